import io
import zipfile

import numpy as np
import pytest

from transfergen.data.array_file import read_pictures


@pytest.fixture
def pixels():
    return np.random.default_rng(0).integers(0, 256, (5, 8, 8, 3), np.uint8)


def test_pictures_are_those_of_either_kind_of_file(tmp_path, pixels):
    np.save(tmp_path / "a.npy", pixels)
    np.savez(tmp_path / "b.npz", pixels, np.arange(5))  # as ADM's sampling script writes images and classes
    np.savez_compressed(tmp_path / "c.npz", pixels)
    for name in ("a.npy", "b.npz", "c.npz"):
        pictures = read_pictures(tmp_path / name)
        np.testing.assert_array_equal(pictures.pixels, pixels)
        np.testing.assert_array_equal(np.asarray(pictures.open(3)), pixels[3])


def test_other_pixels_are_other_pictures_to_caches(tmp_path, pixels):
    identities = set()
    for content in (pixels, 255 - pixels):
        np.save(tmp_path / "a.npy", content)
        identities.add(read_pictures(tmp_path / "a.npy").identity())
    assert len(identities) == 2


def test_pictures_that_are_no_squares_are_left_to_be_made_square(tmp_path, pixels):
    np.save(tmp_path / "a.npy", pixels[:, :6])
    pictures = read_pictures(tmp_path / "a.npy")
    assert pictures.pixels is None
    assert pictures.open(0).size == (8, 6)


@pytest.mark.parametrize(
    ("array", "words"),
    [
        (np.zeros((2, 8, 8, 3), np.float32), r"uint8 .*float32 of shape \(2, 8, 8, 3\)"),
        (np.zeros((2, 3, 8, 8), np.uint8), r"\(2, 3, 8, 8\)"),
        (np.zeros((8, 8, 3), np.uint8), r"\(8, 8, 3\)"),
        (np.zeros((0, 8, 8, 3), np.uint8), r"\(0, 8, 8, 3\)"),
        (np.array([{}], object), "no arrays of numbers"),
    ],
)
@pytest.mark.parametrize("suffix", ["npy", "npz"])
def test_arrays_of_other_types_and_shapes_are_refused(tmp_path, array, words, suffix):
    path = tmp_path / f"a.{suffix}"
    np.save(path, array) if suffix == "npy" else np.savez(path, array)
    with pytest.raises(ValueError, match=words) as refused:
        read_pictures(path)
    assert len(str(refused.value).splitlines()) == 1


def test_damaged_and_foreign_files_are_refused(tmp_path, pixels):
    whole = io.BytesIO()
    np.savez_compressed(whole, pixels)
    flipped = bytearray(whole.getvalue())
    flipped[len(flipped) // 2] ^= 255
    (tmp_path / "flipped.npz").write_bytes(flipped)
    (tmp_path / "cut.npz").write_bytes(whole.getvalue()[:300])
    (tmp_path / "empty.npy").write_bytes(b"")
    with zipfile.ZipFile(tmp_path / "foreign.npz", "w") as archive:
        archive.writestr("arr_0.npy", "none")
    np.savez(tmp_path / "named.npz", images=pixels)
    for name, words in {
        "flipped.npz": "no arrays",
        "cut.npz": "no arrays",
        "empty.npy": "no arrays",
        "foreign.npz": "no array arr_0",
        "named.npz": "no array arr_0",
        "none.npz": "no such file",
    }.items():
        with pytest.raises(ValueError, match=words):
            read_pictures(tmp_path / name)
