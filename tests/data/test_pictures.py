import dataclasses

import numpy as np
import pytest
from PIL import Image

from transfergen.data.pictures import from_array, hold_out, to_mode, to_rgb, to_shape, upright_size
from transfergen.image_shape import ImageShape


def pixel(picture, x=0, y=0):
    assert picture.mode == "RGB"
    return picture.getpixel((x, y))


def saved(tmp_path, picture, name, **options):
    """The picture, saved and opened again: its mode may be another."""
    picture.save(tmp_path / name, **options)
    return Image.open(tmp_path / name)


def to_square(picture, size, fit):
    return to_shape(picture, ImageShape(3, size, size), fit)


def filled(mode, colour, size=(4, 4)):
    return Image.new(mode, size, colour)


@pytest.mark.parametrize(("value", "grey"), [(0, 0), (400, 2), (64764, 252), (65535, 255)])
@pytest.mark.parametrize("suffix", ["png", "tiff"])
def test_grey_of_16_bits_is_scaled_to_8(tmp_path, suffix, value, grey):
    picture = saved(tmp_path, Image.fromarray(np.full((4, 4), value, np.uint16)), f"grey.{suffix}")
    assert pixel(to_rgb(picture)) == (grey, grey, grey)


def test_grey_of_8_bits_keeps_its_values(tmp_path):
    assert pixel(to_rgb(saved(tmp_path, filled("L", 77), "grey.png"))) == (77, 77, 77)


@pytest.mark.parametrize(
    ("mode", "colour", "expected"),
    [
        ("RGBA", (200, 0, 0, 0), (255, 255, 255)),
        ("RGBA", (200, 0, 0, 255), (200, 0, 0)),
        ("RGBA", (0, 100, 255, 51), (204, 224, 255)),  # a fifth of the colour on four fifths of white
        ("LA", (0, 0), (255, 255, 255)),
        ("LA", (0, 51), (204, 204, 204)),
    ],
)
def test_alpha_is_laid_on_white(tmp_path, mode, colour, expected):
    assert pixel(to_rgb(saved(tmp_path, filled(mode, colour), "alpha.png"))) == expected


def palette_picture():
    picture = Image.new("P", (2, 1))
    picture.putpalette([10, 20, 30, 200, 100, 50])
    picture.putpixel((1, 0), 1)
    return picture


def test_palette_becomes_its_colours(tmp_path):
    rgb = to_rgb(saved(tmp_path, palette_picture(), "palette.png"))
    assert [pixel(rgb, 0), pixel(rgb, 1)] == [(10, 20, 30), (200, 100, 50)]


def test_transparent_palette_entry_becomes_white(tmp_path):
    rgb = to_rgb(saved(tmp_path, palette_picture(), "palette.png", transparency=0))
    assert [pixel(rgb, 0), pixel(rgb, 1)] == [(255, 255, 255), (200, 100, 50)]


@pytest.mark.parametrize(
    ("ink", "expected"), [((0, 0, 0, 0), (255, 255, 255)), ((0, 255, 255, 0), (255, 0, 0)), ((0, 0, 0, 255), (0, 0, 0))]
)
def test_cmyk_jpeg_is_converted_to_rgb(tmp_path, ink, expected):
    picture = saved(tmp_path, filled("CMYK", ink, (16, 16)), "ink.jpg", quality=100, subsampling=0)
    assert picture.mode == "CMYK"
    assert np.abs(np.subtract(pixel(to_rgb(picture)), expected)).max() <= 3


@pytest.mark.parametrize(
    ("orientation", "size", "red_at"),
    [(1, (6, 4), (0, 0)), (2, (6, 4), (5, 0)), (3, (6, 4), (5, 3)), (6, (4, 6), (3, 0)), (8, (4, 6), (0, 5))],
)
def test_exif_orientation_turns_the_picture(tmp_path, orientation, size, red_at):
    picture = filled("RGB", (0, 0, 255), (6, 4))
    picture.putpixel((0, 0), (255, 0, 0))
    exif = Image.Exif()
    exif[0x0112] = orientation
    rgb = to_rgb(saved(tmp_path, picture, "turned.png", exif=exif))
    assert rgb.size == size
    assert pixel(rgb, *red_at) == (255, 0, 0)
    assert np.count_nonzero(np.asarray(rgb)[..., 0]) == 1


@pytest.fixture
def striped():
    """A picture of 12x4 pixels: red, green and blue squares side by side."""
    picture = Image.new("RGB", (12, 4))
    for i, colour in enumerate([(255, 0, 0), (0, 255, 0), (0, 0, 255)]):
        picture.paste(colour, (4 * i, 0, 4 * i + 4, 4))
    return picture


def test_crop_keeps_only_the_centre(striped):
    square = np.asarray(to_square(striped, 4, "crop"))
    assert square.shape == (4, 4, 3)
    assert (square == (0, 255, 0)).all()


def test_crop_of_a_tall_picture_keeps_its_centre(striped):
    assert (np.asarray(to_square(striped.transpose(Image.Transpose.ROTATE_90), 4, "crop")) == (0, 255, 0)).all()


def test_pad_keeps_the_whole_picture_between_black_bars(striped):
    square = np.asarray(to_square(striped, 12, "pad"))
    assert square.shape == (12, 12, 3)
    assert not square[:4].any()
    assert not square[8:].any()
    np.testing.assert_array_equal(square[4:8], np.asarray(striped))


def test_stretch_fills_the_square_with_the_whole_picture(striped):
    square = to_square(striped, 12, "stretch")
    assert square.size == (12, 12)
    for y in (0, 11):
        assert [pixel(square, x, y) for x in (0, 6, 11)] == [(255, 0, 0), (0, 255, 0), (0, 0, 255)]


def numbered(count):
    """Pictures whose grey value and label are their index."""
    positions = np.arange(count)
    pixels = np.broadcast_to(positions[:, None, None, None], (count, 2, 2, 3)).astype(np.uint8)
    return from_array("numbered", pixels, positions.astype(np.int64), ())


@pytest.mark.parametrize(("count", "fraction", "held"), [(50, 0.1, 5), (7, 0.3, 2), (5, 0.01, 1), (2, 0.5, 1)])
def test_hold_out_splits_the_pictures_into_two_parts(count, fraction, held):
    train, test = (hold_out(numbered(count), split, fraction) for split in ("train", "test"))
    assert len(test) == held
    assert sorted([*train.labels, *test.labels]) == list(range(count))
    assert train.identity() != test.identity()


def test_hold_out_is_always_the_same_random_choice():
    first, second = (hold_out(numbered(200), "test", 0.1).labels.tolist() for _ in range(2))
    assert first == second
    assert first not in (list(range(20)), list(range(180, 200)))


def test_hold_out_keeps_pictures_pixels_and_labels_together():
    part = hold_out(numbered(30), "test", 0.2)
    for i, label in enumerate(part.labels):
        assert part.open(i).getpixel((0, 0)) == (label,) * 3
        assert part.pixels[part.rows[i], 0, 0, 0] == label
        assert part.name(i) == f"image {label}"


def test_hold_out_that_leaves_nothing_to_train_on_is_refused():
    with pytest.raises(ValueError, match=r"1 picture is too few"):
        hold_out(numbered(1), "train", 0.1)


def without(pictures, gone):
    return pictures.subset([i for i in range(len(pictures)) if i != gone], f"without-{gone}")


def test_the_split_stays_when_a_picture_goes_or_comes():
    whole = numbered(100)
    before = {split: set(hold_out(whole, split, 0.1).labels) for split in ("train", "test")}
    for gone in range(100):  # seen the other way, this is a picture that comes
        after = hold_out(without(whole, gone), "test", 0.1).labels
        assert len(after) == 10
        assert len(before["train"] & set(after)) == (gone in before["test"])


def test_the_split_depends_on_the_pictures_and_not_on_their_order_or_names():
    backwards = numbered(100).subset(range(99, -1, -1), "backwards")
    renamed = dataclasses.replace(backwards, name=lambda i: f"new name {i}")
    assert set(hold_out(renamed, "test", 0.1).labels) == set(hold_out(numbered(100), "test", 0.1).labels)


def test_copies_of_a_picture_are_on_one_side():
    twice = numbered(60).subset([*range(60), *range(60)], "twice")
    assert not set(hold_out(twice, "train", 0.1).labels) & set(hold_out(twice, "test", 0.1).labels)


@pytest.mark.parametrize(
    ("mode", "colour", "grey", "rgba"),
    [
        ("L", 77, 77, (77, 77, 77, 255)),
        ("LA", (100, 51), 224, (100, 100, 100, 51)),
        ("RGB", (255, 0, 0), 76, (255, 0, 0, 255)),
        ("RGBA", (0, 100, 255, 51), 222, (0, 100, 255, 51)),
        ("RGBA", (9, 8, 7, 0), 255, (0, 0, 0, 0)),  # what nobody sees is black
        ("I;16", 25700, 100, (100, 100, 100, 255)),
    ],
)
def test_pictures_become_grey_or_keep_their_alpha(tmp_path, mode, colour, grey, rgba):
    picture = saved(tmp_path, filled(mode, colour), "picture.png")
    assert to_mode(picture, "L").getpixel((0, 0)) == grey
    assert to_mode(picture, "RGBA").getpixel((0, 0)) == rgba


def test_a_transparent_colour_of_a_palette_is_kept_as_alpha(tmp_path):
    palette = to_mode(saved(tmp_path, palette_picture(), "palette.png", transparency=0), "RGBA")
    assert [palette.getpixel((x, 0)) for x in (0, 1)] == [(0, 0, 0, 0), (200, 100, 50, 255)]


def test_oblong_shapes_are_cropped_from_the_centre_and_padded_with_nothing(striped):
    assert np.asarray(to_shape(striped, ImageShape(3, 4, 8), "crop"))[0, :, 1].tolist() == [0, 0, *[255] * 4, 0, 0]
    padded = np.asarray(to_shape(striped, ImageShape(4, 12, 12), "pad"))
    assert not padded[[0, -1]].any()
    assert (padded[4:8, :, 3] == 255).all()


def test_an_upright_size_is_that_once_a_picture_is_turned(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    assert upright_size(saved(tmp_path, filled("RGB", "red", (8, 4)), "turned.jpg", exif=exif)) == (4, 8)
    assert upright_size(saved(tmp_path, filled("RGB", "red", (8, 4)), "plain.png")) == (8, 4)
