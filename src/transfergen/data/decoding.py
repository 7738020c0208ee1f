"""Decoding of picture files, in parallel. Damaged files and decompression bombs raise errors that name the file."""

import os
import warnings
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Literal, TypeVar

import numpy as np
from PIL import Image
from rich.console import Console
from rich.progress import track

from transfergen.data.pictures import ByteArray, Fit, IntArray, Pictures, to_shape
from transfergen.errors import first_line
from transfergen.image_shape import ImageShape

T = TypeVar("T")
Damaged = Literal["error", "skip"]
MEGAPIXELS = 100
"""The default limit of a picture's size."""


class DamagedPictureError(ValueError):
    """A picture cannot be read, or is larger than the limit. The message names the picture and the reason."""


@contextmanager
def open_picture(pictures: Pictures, i: int, max_megapixels: float = MEGAPIXELS) -> Iterator[Image.Image]:
    """A context with the i-th picture, of which only the header is read; the caller decodes it inside the context.

    Raises:
        DamagedPictureError: the picture cannot be opened or decoded, or has more pixels than the limit.
    """
    try:
        with pictures.open(i) as picture:
            megapixels = picture.width * picture.height / 1e6
            if megapixels > max_megapixels:
                raise ValueError(
                    f"{megapixels:,.0f} megapixels, more than data.max_megapixels={max_megapixels:g}: perhaps a "
                    "decompression bomb"
                )
            yield picture
    except Exception as error:  # decoders raise whatever a damaged file leads them to
        raise DamagedPictureError(f"{pictures.name(i)} ({first_line(error)})") from error


def is_animation(picture: Image.Image) -> bool:
    """Whether a picture has frames after the first. Those of MPO, a format of cameras, are other views, not frames."""
    return bool(getattr(picture, "is_animated", False)) and picture.format != "MPO"


@contextmanager
def pillow_limit(max_megapixels: float) -> Iterator[None]:
    """A context in which Pillow's own limit, which it also checks for frames and tiles, is `max_megapixels`."""
    before = Image.MAX_IMAGE_PIXELS
    Image.MAX_IMAGE_PIXELS = int(max_megapixels * 1e6)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # `open_picture` raises an error instead
            yield
    finally:
        Image.MAX_IMAGE_PIXELS = before


def map_parallel(work: Callable[[int], T], count: int, description: str) -> list[T]:
    """`work(i)` for each i below `count`, in threads, since Pillow decodes without the GIL, and with a progress bar."""
    screen = Console(stderr=True)
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        try:
            done = pool.map(work, range(count))
            return list(track(done, description, count, console=screen, transient=True, disable=not screen.is_terminal))
        except BaseException:
            pool.shutdown(cancel_futures=True)  # the first error ends all work
            raise


def decode(
    pictures: Pictures, pixels: ByteArray, *, fit: Fit, damaged: Damaged, max_megapixels: float
) -> tuple[list[DamagedPictureError], IntArray, IntArray]:
    """Decode N pictures into `pixels` (N, H, W, C), uint8, each converted to this shape as `fit` says.

    Returns:
        The errors of the pictures that were skipped, the indices of those that were decoded, and the indices of
        animations, of which only the first frame is decoded.

    Raises:
        DamagedPictureError: a picture cannot be read, and `damaged` is "error".
    """
    height, width, channels = pixels.shape[1:]
    shape, longest = ImageShape(channels, height, width), max(height, width)

    def decode_one(i: int) -> DamagedPictureError | bool:
        try:
            with open_picture(pictures, i, max_megapixels) as picture:
                animation = is_animation(picture)
                if fit != "stretch":  # decoding a large JPEG at a fraction of its size is several times as fast
                    picture.draft(None, (2 * longest, 2 * longest))
                pixels[i] = np.asarray(to_shape(picture, shape, fit)).reshape(height, width, channels)
                return animation
        except DamagedPictureError as error:
            if damaged == "error":
                raise
            return error

    with pillow_limit(max_megapixels):
        results = map_parallel(decode_one, len(pictures), "decoding pictures")
    errors = [each for each in results if isinstance(each, DamagedPictureError)]
    kept = np.array([i for i, each in enumerate(results) if not isinstance(each, DamagedPictureError)], np.int64)
    return errors, kept, np.array([i for i, each in enumerate(results) if each is True], np.int64)


def abbreviate(names: Sequence[str], count: int = 3) -> str:
    """The first `count` names as one line, and how many more there are."""
    more = len(names) - count
    return ", ".join(names[:count]) + (f" and {more:,} more" if more > 0 else "")
