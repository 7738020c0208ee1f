"""The picture formats that are read: those that Pillow decodes by itself, and HEIF where its plugin is installed."""

from contextlib import suppress
from hashlib import blake2b
from pathlib import Path
from typing import BinaryIO

from PIL import Image, PngImagePlugin, UnidentifiedImageError

with suppress(ImportError):  # the extra `heif`
    from pillow_heif import register_heif_opener

    register_heif_opener()

Image.init()
FORMATS = tuple(
    name
    for name in (
        *("AVIF", "BLP", "BMP", "DDS", "DIB", "GIF", "HEIF", "ICNS", "ICO", "JPEG", "JPEG2000"),
        *("PCX", "PNG", "PPM", "PSD", "QOI", "SGI", "SUN", "TGA", "TIFF", "WEBP"),
    )
    if name in Image.OPEN
)
"""Pillow's names. Not among them are formats that it hands to another program, as PostScript to Ghostscript."""
SUFFIXES = frozenset(
    suffix
    for suffix, name in Image.registered_extensions().items()
    if name in (*FORMATS, "MPO")  # read as JPEG
)
HEIF_SUFFIXES = frozenset({".heic", ".heics", ".heif", ".heifs", ".hif"})

PngImagePlugin.MAX_TEXT_CHUNK = PngImagePlugin.MAX_TEXT_MEMORY  # cameras and editors write more than 1 MiB of metadata
_BLOCK = 8192


def open_image(source: str | Path | BinaryIO) -> Image.Image:
    """Open a picture, of which only the header is read, by its content; its suffix does not matter.

    Raises:
        Exception: whatever the decoder raises, if it is damaged or of none of the `FORMATS`.
    """
    try:
        return Image.open(source, formats=FORMATS)
    except UnidentifiedImageError:
        raise UnidentifiedImageError("cannot identify image file") from None  # Pillow adds an object's address


def file_digest(source: str | Path | BinaryIO) -> bytes:
    """16 bytes that tell files of other content apart: of the size, and of blocks at the start, middle and end.

    Encoders compress, so that any change of a picture changes its size or most of the bytes that follow. Files of 24
    KiB or less are read as a whole. A file that cannot be read is told by its path. An open file is closed.
    """
    try:
        with Path(source).open("rb", buffering=0) if isinstance(source, str | Path) else source as file:
            size = file.seek(0, 2)
            content = size.to_bytes(8)
            for start in (0, (size - _BLOCK) // 2, size - _BLOCK) if size > 3 * _BLOCK else (0, _BLOCK, 2 * _BLOCK):
                file.seek(start)
                content += file.read(_BLOCK)
    except OSError:
        content = str(source).encode()
    return bytes_digest(content)


def bytes_digest(content: bytes) -> bytes:
    """16 bytes that tell contents apart."""
    return blake2b(content, digest_size=16).digest()
