"""All formats, whole and damaged."""

import io

import numpy as np
import pytest
from PIL import Image

from transfergen.data.decoding import DamagedPictureError, is_animation, open_picture
from transfergen.data.formats import FORMATS, SUFFIXES, file_digest, open_image
from transfergen.data.pictures import Pictures, to_shape
from transfergen.image_shape import ImageShape

WRITTEN = [name for name in FORMATS if name in Image.SAVE]
MODES = {"BLP": "P"}


def encoded(name):
    """A picture of 32x32 pixels as a file of this format; an animation where the format has such."""
    noise = np.random.default_rng(0).integers(0, 256, (2, 32, 32, 3), np.uint8)
    first, second = (Image.fromarray(pixels).convert(MODES.get(name, "RGB")) for pixels in noise)
    if name == "ICNS":  # Pillow's own would hold seven sizes
        png = encoded("PNG")
        return b"".join([b"icns", (16 + len(png)).to_bytes(4), b"icp5", (8 + len(png)).to_bytes(4), png])
    file = io.BytesIO()
    frames = {"save_all": True, "append_images": [second]} if name in ("GIF", "PNG", "WEBP") else {}
    first.save(file, name, **frames)
    return file.getvalue()


def read(content):
    """Read a file as training and `check` do: its pixels, or None if it is damaged."""
    pictures = Pictures(
        lambda: "", lambda i: open_image(io.BytesIO(content)), lambda i: "picture", np.zeros(1, np.int64)
    )
    try:
        with open_picture(pictures, 0, max_megapixels=1) as picture:
            is_animation(picture)
            picture.getexif()
            return np.asarray(to_shape(picture, ImageShape(3, 32, 32), "crop"))
    except DamagedPictureError:
        return None


@pytest.mark.parametrize("name", WRITTEN)
def test_each_format_is_read(name):
    assert read(encoded(name)).shape == (32, 32, 3)


@pytest.mark.parametrize("name", ["EPS", "PDF", "WMF", "HDF5"])
def test_formats_that_other_programs_decode_are_not_among_them(name):
    assert name not in FORMATS
    assert not SUFFIXES & {".eps", ".ps", ".pdf", ".wmf", ".emf", ".h5"}


@pytest.mark.parametrize("name", WRITTEN)
def test_a_file_that_is_cut_short_is_read_or_damaged(name):
    content = encoded(name)
    for length in np.linspace(0, len(content) - 1, 40).astype(int):
        read(content[:length])


@pytest.mark.faults
@pytest.mark.parametrize("name", WRITTEN)
@pytest.mark.filterwarnings("ignore")
def test_damage_anywhere_is_read_or_a_damaged_picture(name):
    """500 lengths, and 1,000 files with up to eight bytes changed; headers are hit most often."""
    content = encoded(name)
    for length in np.unique(np.linspace(0, len(content) - 1, 500).astype(int)):
        read(content[:length])
    rng = np.random.default_rng(0)
    for _ in range(1000):
        damaged = bytearray(content)
        reach = min(len(content), int(rng.choice([32, 256, len(content)])))
        for position in rng.integers(0, reach, rng.integers(1, 9)):
            damaged[position] = rng.integers(0, 256)
        read(bytes(damaged))


@pytest.mark.parametrize("size", [100, 24_576, 24_577, 1_000_000])
def test_a_digest_follows_the_content_at_the_start_the_middle_and_the_end_and_the_size(tmp_path, size):
    content = np.random.default_rng(0).integers(0, 256, size, np.uint8).tobytes()
    files = [content, content + b"0"]
    for position in (0, size // 2, size - 1):
        files.append(content[:position] + bytes([content[position] ^ 1]) + content[position + 1 :])
    digests = set()
    for i, each in enumerate(files):
        (tmp_path / f"{i}").write_bytes(each)
        digests.add(file_digest(tmp_path / f"{i}"))
    (tmp_path / "copy").write_bytes(content)
    assert len(digests) == len(files)
    assert file_digest(tmp_path / "copy") in digests
