import dataclasses
import os
import shutil
import struct
import subprocess
from typing import get_args

import numpy as np
import pytest
import torch
from filelock import FileLock
from PIL import Image

from transfergen.data import store
from transfergen.data.image_folder import image_folder
from transfergen.data.pictures import Fit, Pictures, from_array, to_shape
from transfergen.data.store import Store, build_store
from transfergen.image_shape import ImageShape
from transfergen.images import to_float, to_uint8

SHAPE = ImageShape(3, 32, 32)


def pictures_of(*sizes, identity="test"):
    """Noise pictures of these sizes (width, height), the i-th of class i."""
    rng = np.random.default_rng(0)
    arrays = [rng.integers(0, 256, (height, width, 3), np.uint8) for width, height in sizes]
    return Pictures(
        identity=lambda: identity,
        open=lambda i: Image.fromarray(arrays[i]),
        name=lambda i: f"picture {i}",
        labels=np.arange(len(arrays), dtype=np.int64),
        classes=tuple("abcdefghij"[: len(arrays)]),
    )


@pytest.fixture
def built(tmp_path):
    def build_in_tmp(pictures, *, shape=SHAPE, fit="crop", max_memory_mib=64, **more):
        cache = tmp_path / "cache"
        return build_store(pictures, shape=shape, fit=fit, max_memory_mib=max_memory_mib, cache_dir=cache, **more)

    return build_in_tmp


def left_in_cache(tmp_path):
    return sorted(file.suffix for file in (tmp_path / "cache").iterdir() if file.suffix != ".lock")


@pytest.mark.parametrize(
    ("sizes", "kept"),
    [
        ([(8, 8)] * 3, 8),
        ([(32, 32)] * 3, 32),
        ([(40, 40)] * 3, 32),  # squares, but larger
        ([(8, 8), (8, 8), (16, 16)], 32),
        ([(16, 8)] * 3, 32),  # one size, but no squares
    ],
)
def test_small_squares_of_one_size_keep_it_and_all_others_get_the_resolution(built, sizes, kept):
    assert built(pictures_of(*sizes)).pixels.shape == (3, kept, kept, 3)


def opened(pictures):
    """The pictures, and a list that the index of each is added to as it is opened."""
    indices = []
    return dataclasses.replace(pictures, open=lambda i: (indices.append(i), pictures.open(i))[1]), indices


@pytest.mark.parametrize("size", [(8, 8), (32, 32), (40, 40), (40, 30)])
@pytest.mark.parametrize("max_memory_mib", [64, 0])
def test_each_picture_is_opened_once_but_for_a_few_whose_size_is_probed(built, size, max_memory_mib):
    pictures, indices = opened(pictures_of(*[size] * 200))
    assert len(built(pictures, max_memory_mib=max_memory_mib)) == 200
    assert set(indices) == set(range(200))
    assert len(indices) <= 200 + (16 if size == (8, 8) else 1)


@pytest.mark.parametrize("max_memory_mib", [64, 0])
def test_a_picture_of_another_size_that_was_not_probed_gives_all_the_resolution(built, tmp_path, max_memory_mib):
    pictures = pictures_of(*[(16, 16) if i == 3 else (8, 8) for i in range(40)])
    store = built(pictures, max_memory_mib=max_memory_mib)
    for i in range(40):
        np.testing.assert_array_equal(store.pixels[i], np.asarray(to_shape(pictures.open(i), SHAPE, "crop")))
    if not max_memory_mib:
        assert left_in_cache(tmp_path) == [".json", ".npy"]  # and nothing of the smaller pixels
        again, indices = opened(pictures)
        np.testing.assert_array_equal(built(again, max_memory_mib=0).pixels, store.pixels)
        assert len(indices) <= 16


def test_a_damaged_picture_among_small_squares_is_skipped_and_named(built, caplog):
    def open_but_one(i):
        if i == 3:
            raise OSError("broken")
        return pictures_of(*[(8, 8)] * 40).open(i)

    pictures = dataclasses.replace(pictures_of(*[(8, 8)] * 40), open=open_but_one)
    with pytest.raises(ValueError, match=r"cannot read picture 3 \(broken\)"):
        built(pictures)
    assert built(pictures, damaged="skip", max_damaged=0.1).rows(np.arange(39)).tolist() == [0, 1, 2, *range(4, 40)]
    assert "1 of 40 pictures cannot be read: picture 3 (broken); it is skipped" in caplog.text


@pytest.mark.parametrize("shape", [ImageShape(1, 32, 32), ImageShape(4, 32, 48), ImageShape(3, 64, 32)])
def test_pixels_have_the_channels_and_sides_of_the_shape(built, shape):
    pictures = pictures_of((30, 30), (70, 20))
    store, array = built(pictures, shape=shape), built(whole_array(), shape=shape)
    assert store.pixels.shape[1:] == (*shape.size, shape.channels)
    for i in range(2):
        expected = np.asarray(to_shape(pictures.open(i), shape, "crop"))
        np.testing.assert_array_equal(store.pixels[i].squeeze(), expected)
    assert store[np.array([1])].pixels.shape == (1, *shape)
    assert array.pixels.shape == (2, *((16, 16) if shape.is_square else shape.size), shape.channels)


def whole_array():
    return from_array("array", np.full((2, 16, 16, 3), 90, np.uint8), np.zeros(2, np.int64), ())


def test_kept_pixels_are_those_of_the_pictures(built):
    pictures = pictures_of((8, 8), (8, 8))
    store = built(pictures)
    for i in range(2):
        np.testing.assert_array_equal(store.pixels[i], np.asarray(pictures.open(i)))


@pytest.mark.parametrize(("side", "kept"), [(16, 16), (48, 32)])
def test_decoded_arrays_are_shrunk_to_the_resolution_and_never_enlarged(built, side, kept):
    pixels = np.full((2, side, side, 3), 90, np.uint8)
    store = built(from_array("array", pixels, np.zeros(2, np.int64), ()))
    assert store.pixels.shape == (2, kept, kept, 3)
    assert (store.pixels == 90).all()


def test_the_colours_of_small_pictures_with_alpha_reach_their_edges(built):
    pixels = np.zeros((1, 16, 16, 4), np.uint8)
    pixels[:, :, 8:] = 255, 0, 0, 255
    store = built(from_array("alpha", pixels, np.zeros(1, np.int64), ()), shape=ImageShape(4, 32, 32))
    red, *_, alpha = to_uint8(to_float(store[np.array([0])].pixels, 32))[0]
    assert (red[alpha > 32] > 240).all()


def test_pixels_are_fitted_to_a_square_in_the_way_chosen(built):
    pictures = pictures_of((30, 10))
    stores = {fit: built(pictures, fit=fit).pixels[0] for fit in get_args(Fit)}
    for fit, pixels in stores.items():
        np.testing.assert_array_equal(pixels, np.asarray(to_shape(pictures.open(0), SHAPE, fit)))
    assert len({pixels.tobytes() for pixels in stores.values()}) == 3


def test_store_in_a_file_equals_the_one_in_memory(built, tmp_path):
    pictures = pictures_of((20, 30), (50, 40), (32, 32))
    in_memory, in_file = built(pictures), built(pictures, max_memory_mib=0)
    assert isinstance(in_file.pixels, np.memmap)
    assert not isinstance(in_memory.pixels, np.memmap)
    assert left_in_cache(tmp_path) == [".json", ".npy"]  # the pixels, and their digest
    np.testing.assert_array_equal(in_file.pixels, in_memory.pixels)
    order = np.array([2, 0])
    for a, b in zip(in_file[order], in_memory[order], strict=True):
        np.testing.assert_array_equal(np.asarray(a), np.asarray(b))


def white_instead(pictures):
    """White pictures of the same identity, so that the pixels show whether they were decoded."""
    return dataclasses.replace(pictures, open=lambda i: Image.new("RGB", pictures.open(i).size, "white"))


def test_second_run_reads_the_cache_file_without_decoding_again(built):
    pictures = pictures_of((20, 30), (50, 40))
    first = built(pictures, max_memory_mib=0)
    again = built(white_instead(pictures), max_memory_mib=0)
    np.testing.assert_array_equal(again.pixels, first.pixels)


@pytest.mark.parametrize("change", [{"identity": "other"}, {"shape": ImageShape(3, 40, 40)}, {"fit": "pad"}])
def test_cache_file_of_another_source_resolution_or_fit_is_not_taken(built, change):
    pictures = pictures_of((20, 30), (50, 40))
    built(pictures, max_memory_mib=0)
    name = change.pop("identity", "test")
    other = dataclasses.replace(pictures, identity=lambda: name)
    assert (built(white_instead(other), max_memory_mib=0, **change).pixels == 255).mean() > 0.5


def test_cache_file_of_a_folder_whose_picture_changed_is_not_taken(built, tmp_path):
    folder = tmp_path / "pictures"
    folder.mkdir()
    for i, colour in enumerate(["red", "green", "blue"]):
        Image.new("RGB", (40 + i, 40), colour).save(folder / f"{i}.png")

    def pixels():
        return built(image_folder(str(folder), "train"), max_memory_mib=0).pixels

    assert not (pixels() == 255).all(axis=(1, 2, 3)).any()
    for i in range(3):
        Image.new("RGB", (50 + i, 40), "white").save(folder / f"{i}.png")
    assert (pixels() == 255).all()


def cut_in_half(path):
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])


@pytest.fixture
def folder(tmp_path):
    """A function that makes a folder with four noise pictures of one file type as its training split."""

    def make(suffix):
        for split in ("train", "test"):
            (tmp_path / "pictures" / split).mkdir(parents=True)
        for i in range(4):
            noise = np.random.default_rng(i).integers(0, 256, (40, 40 + i, 3), np.uint8)
            Image.fromarray(noise).save(tmp_path / "pictures" / "train" / f"{i}.{suffix}")
        return tmp_path / "pictures" / "train"

    return make


@pytest.mark.parametrize("suffix", ["jpg", "png", "webp", "gif", "bmp", "tiff"])
def test_truncated_picture_is_named_and_leaves_no_cache_file(built, folder, tmp_path, suffix):
    path = folder(suffix)
    cut_in_half(path / f"2.{suffix}")
    with pytest.raises(ValueError, match=rf"cannot read .*2\.{suffix} .*remove it, or set data\.damaged=skip"):
        built(image_folder(str(path.parent), "train"), max_memory_mib=0)
    assert left_in_cache(tmp_path) == []


@pytest.mark.parametrize("content", [b"", b"<html>not found</html>"], ids=["empty", "html"])
@pytest.mark.parametrize("max_memory_mib", [0, 64])
def test_file_that_is_no_picture_is_named(built, folder, content, max_memory_mib):
    path = folder("png")
    (path / "1.png").write_bytes(content)
    with pytest.raises(ValueError, match=r"cannot read .*1\.png"):
        built(image_folder(str(path.parent), "train"), max_memory_mib=max_memory_mib)


def test_decompression_bomb_is_named_and_not_decoded(built, folder):
    path = folder("png")
    Image.new("1", (20_000, 10_000)).save(path / "3.png")  # 25 KB on disk, 600 MB as RGB
    with pytest.raises(
        ValueError, match=r"cannot read .*3\.png \(200 megapixels, more than data\.max_megapixels=100.*bomb"
    ):
        built(image_folder(str(path.parent), "train"))


def test_limit_of_pixels_can_be_raised_and_lowered(built, folder, monkeypatch):
    path = folder("png")
    Image.new("1", (2_000, 1_000)).save(path / "3.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100_000)  # Pillow alone would refuse twice as many
    large = built(image_folder(str(path.parent), "train"), max_megapixels=2).pixels[3]
    assert not large.any()  # the picture is black
    with pytest.raises(ValueError, match=r"data\.max_megapixels=1\.9"):
        built(image_folder(str(path.parent), "train"), max_megapixels=1.9)
    assert Image.MAX_IMAGE_PIXELS == 100_000


@pytest.mark.parametrize("max_memory_mib", [0, 64])
def test_damaged_pictures_are_skipped_and_counted_if_asked_for(built, folder, caplog, max_memory_mib):
    path = folder("png")
    (path / "1.png").write_bytes(b"")
    pictures = image_folder(str(path.parent), "train")
    for _ in range(2):  # the second from the cache file
        store = built(pictures, max_memory_mib=max_memory_mib, damaged="skip", max_damaged=0.25)
        assert len(store) == len(store.labels) == 3
        batch = store[np.array([2, 0])]
        for pixels, name in zip(batch.pixels, ("3.png", "0.png"), strict=True):
            expected = to_shape(Image.open(path / name), SHAPE, "crop")
            np.testing.assert_array_equal(pixels.permute(1, 2, 0), np.asarray(expected))
    assert "1 of 4 pictures cannot be read" in caplog.text
    assert "1.png" in caplog.text
    with pytest.raises(ValueError, match=r"1 of 4 pictures .*1\.png.* more than the fraction data\.max_damaged=0\.2"):
        built(pictures, max_memory_mib=max_memory_mib, damaged="skip", max_damaged=0.2)


def test_first_frame_of_an_animation_is_taken_with_a_warning(built, folder, caplog):
    path = folder("png")
    frames = [Image.new("RGB", (40, 40), colour) for colour in ("red", "blue")]
    frames[0].save(path / "4.gif", save_all=True, append_images=frames[1:])
    store = built(image_folder(str(path.parent), "train"))
    assert (store.pixels[4] == (255, 0, 0)).all()
    assert "1 animation among 5 pictures, of which only the first frame is used" in caplog.text
    assert "4.gif" in caplog.text


def test_large_jpeg_looks_as_if_it_had_been_decoded_at_its_full_size(built, folder):
    path = folder("png")
    for file in path.iterdir():
        file.unlink()
    gradient = np.linspace(0, 255, 800).astype(np.uint8)
    pixels = np.stack([gradient[None].repeat(600, 0), gradient[:600, None].repeat(800, 1), np.full((600, 800), 90)], 2)
    Image.fromarray(pixels.astype(np.uint8)).save(path / "0.jpg", quality=95)
    full = np.asarray(to_shape(Image.open(path / "0.jpg").convert("RGB"), SHAPE, "crop")).astype(int)
    assert np.abs(built(image_folder(str(path.parent), "train")).pixels[0] - full).max() <= 3


def test_run_after_a_failed_one_decodes_again(built, folder):
    path = folder("png")
    whole = (path / "2.png").read_bytes()
    cut_in_half(path / "2.png")
    with pytest.raises(ValueError, match="cannot read"):
        built(image_folder(str(path.parent), "train"), max_memory_mib=0)
    (path / "2.png").write_bytes(whole)
    pictures = image_folder(str(path.parent), "train")
    np.testing.assert_array_equal(built(pictures, max_memory_mib=0).pixels, built(pictures).pixels)


def test_batch_has_bytes_channels_first_with_the_labels_and_indices_asked_for(built):
    store = built(pictures_of(*[(8, 8)] * 5))
    indices = np.array([4, 0, 0, 2])
    batch = store[indices]
    assert batch.pixels.shape == (4, 3, 8, 8)
    assert batch.pixels.dtype == torch.uint8
    assert batch.pixels.is_contiguous(memory_format=torch.channels_last)
    assert batch.labels.tolist() == [4, 0, 0, 2]
    assert batch.labels.dtype == torch.int64
    np.testing.assert_array_equal(batch.indices, indices)
    np.testing.assert_array_equal(batch.pixels.permute(0, 2, 3, 1).numpy(), store.pixels[indices])


@pytest.mark.parametrize("max_memory_mib", [0, 64])
def test_writing_to_a_batch_leaves_the_store_alone(built, max_memory_mib):
    store = built(pictures_of((8, 8), (8, 8)), max_memory_mib=max_memory_mib)
    before = store.pixels.copy()
    store[np.array([0, 1])].pixels.zero_()
    np.testing.assert_array_equal(store.pixels, before)


def test_store_knows_its_length_and_classes(built):
    store = built(pictures_of((8, 8), (8, 8)))
    assert len(store) == 2
    assert store.classes == ("a", "b")


def test_sampled_images_are_a_fixed_choice_from_the_whole_set():
    pixels = np.arange(50, dtype=np.uint8)[:, None, None, None] * np.ones((1, 2, 2, 3), np.uint8)
    store = Store(pixels, from_array("test", pixels, np.arange(50), ()))
    batch = store.sample_images(10, seed=1)
    assert len(set(batch.indices)) == 10
    assert max(batch.indices) > 20
    assert batch.pixels[:, 0, 0, 0].tolist() == batch.labels.tolist() == batch.indices.tolist()
    assert store.sample_images(10, seed=1).indices.tolist() == batch.indices.tolist()
    assert len(store.sample_images(100).indices) == 50


@pytest.mark.parametrize("damage", ["zeroed", "truncated", "empty", "without its record", "linked"])
def test_a_damaged_store_is_decoded_again(built, tmp_path, caplog, damage):
    pictures = pictures_of((20, 30), (50, 40))
    pixels = built(pictures, max_memory_mib=0).pixels.copy()
    (file,) = (tmp_path / "cache").glob("*.npy")
    content = file.read_bytes()
    if damage == "without its record":
        file.with_suffix(".json").unlink()
    elif damage == "linked":
        (tmp_path / "elsewhere").write_bytes(content)
        file.unlink()
        file.symlink_to(tmp_path / "elsewhere")
    else:
        half = len(content) // 2
        file.write_bytes({"zeroed": content[:half] + bytes(half), "truncated": content[:half], "empty": b""}[damage])
    np.testing.assert_array_equal(built(pictures, max_memory_mib=0).pixels, pixels)
    assert not file.is_symlink()
    assert ("is damaged; the pictures are decoded again" in caplog.text) == (damage != "linked")


def test_a_store_of_another_folder_with_the_same_relative_path_is_not_taken(built, tmp_path, monkeypatch):
    for name, colour in (("a", "red"), ("b", "blue")):
        for i in range(2):
            (tmp_path / name / "pictures").mkdir(parents=True, exist_ok=True)
            file = tmp_path / name / "pictures" / f"{i}.bmp"
            Image.new("RGB", (40, 40), colour).save(file)
            os.utime(file, ns=(0, 0))
    seen = []
    for name in "ab":
        monkeypatch.chdir(tmp_path / name)
        seen.append(tuple(built(image_folder("pictures", "train"), max_memory_mib=0).pixels[0, 0, 0]))
    assert seen == [(255, 0, 0), (0, 0, 255)]


def test_a_picture_that_changed_within_its_size_and_time_is_decoded_again(built, tmp_path):
    (tmp_path / "pictures").mkdir()

    def first_pixel(colour):
        for i in range(2):
            file = tmp_path / "pictures" / f"{i}.bmp"
            Image.new("RGB", (40, 40), colour).save(file)
            os.utime(file, ns=(0, 0))
        return tuple(built(image_folder(str(tmp_path / "pictures"), "train"), max_memory_mib=0).pixels[0, 0, 0])

    assert [first_pixel("red"), first_pixel("blue")] == [(255, 0, 0), (0, 0, 255)]


def test_what_a_killed_process_left_is_removed_after_a_week(built, tmp_path):
    cache = tmp_path / "cache"
    cache.mkdir()
    left, in_use, recent = (cache / f"{letter * 24}.part" for letter in "abc")
    for file in (left, in_use, recent):
        file.write_bytes(b"half a store")
    for file in (left, in_use):
        os.utime(file, (0, 0))
    with FileLock(cache / f"{'b' * 24}.npy.lock"):  # another run is still writing this one
        built(pictures_of((20, 30), (50, 40)), max_memory_mib=0)
    assert [file.exists() for file in (left, in_use, recent)] == [False, True, True]


@pytest.fixture
def chunks_of_two(monkeypatch):
    monkeypatch.setattr(store, "chunk_rows", lambda row: 2)


def interrupted(built, pictures, at):
    """Begin to write a store, which is interrupted at the picture `at` as by Ctrl+C."""

    def open_until(i):
        if i == at:
            raise KeyboardInterrupt
        return pictures.open(i)

    with pytest.raises(KeyboardInterrupt):
        built(dataclasses.replace(pictures, open=open_until), max_memory_mib=0)


@pytest.mark.parametrize("damage", [None, "pixels", "journal", "link"])
def test_an_interrupted_store_goes_on_after_the_last_chunk_that_is_as_it_was_written(
    built, tmp_path, chunks_of_two, damage
):
    pictures, decoded = pictures_of(*[(40, 40 + i) for i in range(7)]), []
    interrupted(built, pictures, at=5)
    assert left_in_cache(tmp_path) == [".part", ".part"]
    journal, pixels = sorted((tmp_path / "cache").glob("*.part"))
    if damage == "pixels":  # of the second chunk
        content = bytearray(pixels.read_bytes())
        content[128 + 3 * 32 * 32 * 3] ^= 1
        pixels.write_bytes(content)
    elif damage == "journal":
        journal.write_bytes(journal.read_bytes()[:-3])
    elif damage == "link":
        pixels.replace(tmp_path / "elsewhere")
        pixels.symlink_to(tmp_path / "elsewhere")

    def open_and_count(i):
        decoded.append(i)
        return pictures.open(i)

    # The size of the first tells that they are no small squares.
    again = built(dataclasses.replace(pictures, open=open_and_count), max_memory_mib=0)
    np.testing.assert_array_equal(again.pixels, built(pictures).pixels)
    assert sorted(decoded[1:]) == list(range({None: 4, "link": 0}.get(damage, 2), 7))
    assert left_in_cache(tmp_path) == [".json", ".npy"]


def test_a_damaged_picture_leaves_what_was_decoded_before_it(built, tmp_path, chunks_of_two, caplog):
    caplog.set_level("INFO")

    def open_but_one(i):
        if i == 5:
            raise OSError("broken")
        return pictures_of(*[(40, 40 + i) for i in range(7)]).open(i)

    pictures = dataclasses.replace(pictures_of(*[(40, 40 + i) for i in range(7)]), open=open_but_one)
    with pytest.raises(ValueError, match=r"cannot read picture 5 \(broken\)"):
        built(pictures, max_memory_mib=0)
    assert len(built(pictures, max_memory_mib=0, damaged="skip", max_damaged=0.2)) == 6
    assert "goes on after 4 pictures" in caplog.text
    with pytest.raises(ValueError, match=r"cannot read picture 5 \(broken\)"):  # the file is there now
        built(pictures, max_memory_mib=0)


def test_a_store_that_the_disk_has_no_space_for_is_refused_before_decoding_and_leaves_nothing(tmp_path):
    """Writing to it would kill the process by SIGBUS."""
    small = tmp_path / "small"
    small.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(small)]
    if shutil.which("mount") is None or subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("mounting a tmpfs needs more rights than these")
    pictures = dataclasses.replace(pictures_of(*[(40, 41)] * 9), open=lambda i: pytest.fail("decoded"))
    sizes = dataclasses.replace(pictures, pixels=np.zeros((9, 512, 512, 3), np.uint8))
    try:
        line = (
            r"data\.cache_dir=.*small: the decoded pictures take 2 MiB, and 1 MiB are free; free some, or set another"
        )
        with pytest.raises(OSError, match=line):
            build_store(sizes, shape=ImageShape(3, 256, 256), fit="crop", max_memory_mib=0, cache_dir=small)
        assert [file.name for file in small.iterdir() if file.suffix != ".lock"] == []
    finally:
        subprocess.run(["umount", str(small)], check=True)


class Odd(Exception):
    """An error of a kind that Pillow does not document."""


@pytest.mark.parametrize("error", [Odd, struct.error, IndexError, KeyError, EOFError, MemoryError, RecursionError])
def test_whatever_a_decoder_raises_is_a_damaged_picture(built, error):
    def broken(i):
        raise error

    pictures = dataclasses.replace(pictures_of((40, 41), (40, 41)), open=broken)
    with pytest.raises(
        ValueError, match=rf"cannot read picture 0 \({error.__name__}\); remove it, or set data\.damaged=skip"
    ):
        built(pictures)
    with pytest.raises(ValueError, match="2 of 2 pictures cannot be read"):
        built(pictures, damaged="skip", max_damaged=0.5)
