import re

import pytest

from transfergen.image_shape import ImageShape, first_map, image_shape, overrides, resolutions


@pytest.mark.parametrize(
    ("given", "shape", "words"),
    [
        ((64,), (3, 64, 64), "64x64 px"),
        ((64, (3, 2)), (3, 64, 96), "96x64 px"),
        ((64, [4, 8], 4), (4, 128, 64), "64x128 px, RGBA"),
        ((72, (9, 16), 1), (1, 128, 72), "72x128 px, grey"),
    ],
)
def test_the_resolution_is_the_shorter_side(given, shape, words):
    assert image_shape(*given) == ImageShape(*shape)
    assert image_shape(*given).resolution == given[0]
    assert str(image_shape(*given)) == words


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (
            (64, (9, 16)),
            "resolution=64: the longer side would have 113.8 pixels with aspect=[9, 16]; choose 72, 144, 288 or 576",
        ),
        (
            (64, [4, 3]),
            "resolution=64: the longer side would have 85.3 pixels with aspect=[4, 3]; choose 48, 96, 192, 384 or 768",
        ),
        ((64, [201, 200]), "aspect=[201, 200]: the shorter side would have more than 1024 pixels; choose smaller"),
        ((64, [3]), "aspect=[3]: choose two whole numbers above 0"),
        ((64, [3, 0]), "aspect=[3, 0]: choose two whole numbers above 0"),
        ((64, (1, 1), 2), "channels=2: choose 1 for grey, 3 for RGB"),
    ],
)
def test_a_shape_of_no_whole_pixels_is_refused_with_those_that_work(given, message):
    with pytest.raises(ValueError, match=f"^{re.escape(message)}"):
        image_shape(*given)


@pytest.mark.parametrize(
    ("aspect", "smallest", "sides"),
    [
        ((1, 1), (4, 4), [32, 64, 128, 256, 512, 1024]),
        ((640, 320), (4, 8), [32, 64, 128, 256, 512, 1024]),
        ((3, 2), (4, 6), [32, 64, 128, 256, 512, 1024]),
        ((3, 4), (8, 6), [48, 96, 192, 384, 768]),
        ((9, 16), (16, 9), [72, 144, 288, 576]),
    ],
)
def test_the_smallest_maps_have_the_aspect_and_doublings_of_them_the_sides(aspect, smallest, sides):
    assert first_map(aspect) == smallest
    assert list(resolutions(aspect)) == sides
    for side in sides:
        assert image_shape(side, aspect).size == tuple(n * side // min(smallest) for n in smallest)


def test_overrides_name_what_differs():
    ours, theirs = image_shape(64), image_shape(32, (2, 1), 4)
    assert overrides(theirs, ours) == "data.resolution=32 data.aspect=[2,1] data.channels=4"
    assert overrides(ours._replace(channels=1), ours) == "data.channels=1"
