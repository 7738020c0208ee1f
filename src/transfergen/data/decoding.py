"""Picture files into pixels, many at a time; what is damaged, hostile or surprising is found here."""

import os
import warnings
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Literal, TypeVar, get_args

import numpy as np
from PIL import Image, UnidentifiedImageError
from rich.console import Console
from rich.progress import track

from transfergen.data.pictures import ByteArray, Fit, IntArray, Pictures, to_rgb, to_square

T = TypeVar("T")
Damaged = Literal["error", "skip"]
MEGAPIXELS = 100

_UNREADABLE = (OSError, SyntaxError, ValueError, UnidentifiedImageError, Image.DecompressionBombError)


class DamagedPictureError(ValueError):
    """A picture that cannot be read, or is larger than the limit. Says which and why."""


def check_damaged(damaged: str) -> None:
    """Raises ValueError for a policy that does not exist."""
    if damaged not in get_args(Damaged):
        raise ValueError(f"data.damaged={damaged}: choose one of {', '.join(get_args(Damaged))}")


@contextmanager
def opened(pictures: Pictures, i: int, max_megapixels: float = MEGAPIXELS) -> Iterator[Image.Image]:
    """The i-th picture, its header read.

    Raises:
        DamagedPictureError: it cannot be opened, or has too many pixels, of which none is decoded then; or what the
            caller does with it fails, as decoding it does.
    """
    try:
        with pictures.open(i) as picture:
            megapixels = picture.width * picture.height / 1e6
            if megapixels > max_megapixels:
                raise ValueError(
                    f"{megapixels:,.0f} megapixels, more than data.max_megapixels={max_megapixels:g}: a decompression "
                    "bomb, unless you know better"
                )
            yield picture
    except _UNREADABLE as error:
        raise DamagedPictureError(f"{pictures.name(i)} ({error})") from error


def is_animation(picture: Image.Image) -> bool:
    """Whether there are more frames than the one that is taken: but of MPO, as cameras write it, the rest are views."""
    return bool(getattr(picture, "is_animated", False)) and picture.format != "MPO"


@contextmanager
def pillow_limit(max_megapixels: float) -> Iterator[None]:
    """Pillow's own limit, which it checks inside frames and tiles too, raised or lowered to ours."""
    before = Image.MAX_IMAGE_PIXELS
    Image.MAX_IMAGE_PIXELS = int(max_megapixels * 1e6)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # ours is an error already
            yield
    finally:
        Image.MAX_IMAGE_PIXELS = before


def in_parallel(work: Callable[[int], T], count: int, description: str) -> list[T]:
    """`work(i)` for each i below `count`, with a progress bar. Threads: Pillow decodes without holding Python."""
    screen = Console(stderr=True)
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        try:
            done = pool.map(work, range(count))
            return list(track(done, description, count, console=screen, transient=True, disable=not screen.is_terminal))
        except BaseException:
            pool.shutdown(cancel_futures=True)  # one error is enough
            raise


def decode(
    pictures: Pictures, pixels: ByteArray, *, fit: Fit, damaged: Damaged, max_megapixels: float
) -> tuple[list[DamagedPictureError], IntArray, IntArray]:
    """Fill pixels (N, S, S, 3) with squares of the pictures.

    Returns:
        What could not be read, only with `damaged="skip"`; positions of what could; positions of animations.

    Raises:
        DamagedPictureError: a picture cannot be read, with `damaged="error"`.
    """
    size = pixels.shape[1]

    def one(i: int) -> DamagedPictureError | bool:
        try:
            with opened(pictures, i, max_megapixels) as picture:
                animation = is_animation(picture)
                if fit != "stretch":  # a JPEG of a camera, decoded at half its size or less, is several times as fast
                    picture.draft(None, (2 * size, 2 * size))
                pixels[i] = np.asarray(to_square(to_rgb(picture), size, fit))
                return animation
        except DamagedPictureError as error:
            if damaged == "error":
                raise
            return error

    with pillow_limit(max_megapixels):
        found = in_parallel(one, len(pictures), "decoding pictures")
    errors = [each for each in found if isinstance(each, DamagedPictureError)]
    kept = np.array([i for i, each in enumerate(found) if not isinstance(each, DamagedPictureError)], np.int64)
    return errors, kept, np.array([i for i, each in enumerate(found) if each is True], np.int64)


def some(names: Sequence[str], count: int = 3) -> str:
    """The first few of names, and how many more there are."""
    more = len(names) - count
    return ", ".join(names[:count]) + (f" and {more:,} more" if more > 0 else "")
