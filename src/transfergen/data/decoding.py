"""Decoding of picture files, in parallel. Damaged files and decompression bombs raise errors that name the file."""

import logging
import sys
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, Literal, TypeVar

import numpy as np
from PIL import Image
from rich.console import Console
from rich.progress import Progress

from transfergen.data.pictures import ByteArray, Fit, IntArray, Pictures, to_shape
from transfergen.devices import usable_cores
from transfergen.errors import counted, first_line
from transfergen.image_shape import ImageShape

log = logging.getLogger(__name__)

T = TypeVar("T")
Damaged = Literal["error", "skip"]
MEGAPIXELS = 100
"""The default limit of a picture's size."""
LINE_EVERY_S = 60.0
_TOGETHER = 32
"""The largest number of pictures that a thread gets at a time, and how often it gets some, where they are few."""


class DamagedPictureError(ValueError):
    """A picture cannot be read, or is larger than the limit. The message names the picture and the reason."""


class OtherSizeError(Exception):
    """A picture has another size than the pixels that it was to be decoded into as it is."""


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


@contextmanager
def progress_bar(description: str, total: int | None, done: int = 0) -> Iterator[Callable[[], None]]:
    """A context with a function that moves a bar on by one; where there is no terminal, it logs a line each minute.

    Args:
        description: in words, of what is going on.
        total: the number at the end; None: unknown.
        done: the number at the start.
    """
    screen, last = Console(stderr=True), time.monotonic()
    with Progress(console=screen, transient=True, disable=not sys.stderr.isatty()) as bar:
        task = bar.add_task(description, total=total, completed=done)

        def advance() -> None:
            nonlocal done, last
            done += 1
            bar.advance(task)
            if not sys.stderr.isatty() and time.monotonic() - last > LINE_EVERY_S:
                last = time.monotonic()
                log.info(f"{description}: {done:,}" + (f" of {total:,}" if total else ""))

        yield advance


def map_parallel(work: Callable[[int], T], count: int, advance: Callable[[], None]) -> list[T]:
    """`work(i)` for each i below `count`, in threads, since Pillow decodes without the GIL; `advance` after each.

    A thread gets several at a time: to hand over one costs a fifth of the time that a picture of 64x64 pixels takes.
    """
    results: list[T] = []
    threads = len(usable_cores())
    size = min(_TOGETHER, max(1, count // (_TOGETHER * threads)))
    parts = [range(first, min(first + size, count)) for first in range(0, count, size)]
    with ThreadPoolExecutor(threads) as pool:
        try:
            for part in pool.map(lambda indices: [work(i) for i in indices], parts):
                results += part
                for _ in part:
                    advance()
        except BaseException:
            pool.shutdown(cancel_futures=True)  # the first error ends all work
            raise
    return results


def decode(
    pictures: Pictures,
    pixels: ByteArray,
    *,
    fit: Fit | None,
    damaged: Damaged,
    max_megapixels: float,
    advance: Callable[[], None],
) -> dict[str, Any]:
    """Decode N pictures into `pixels` (N, H, W, C), uint8, each converted to this shape by `fit`; `advance` after each.

    Without `fit` all must have this size.

    Returns:
        `rows`: N; `skipped`: the index of each picture that cannot be read, with the reason; `animations`: the names of
        those of which only the first frame is decoded.

    Raises:
        ValueError: a picture cannot be read, and `damaged` is "error".
        OtherSizeError: a picture has another size, and `fit` is None.
    """
    height, width, channels = pixels.shape[1:]
    shape, longest = ImageShape(channels, height, width), max(height, width)

    def decode_one(i: int) -> DamagedPictureError | bool:
        try:
            with open_picture(pictures, i, max_megapixels) as picture:
                if fit is not None or picture.size == (width, height):
                    animation = is_animation(picture)
                    if fit != "stretch":  # decoding a large JPEG at a fraction of its size is several times as fast
                        picture.draft(None, (2 * longest, 2 * longest))
                    pixels[i] = np.asarray(to_shape(picture, shape, fit)).reshape(height, width, channels)
                    return animation
        except DamagedPictureError as error:
            if damaged == "error":
                raise unreadable(str(error)) from error
            return error
        raise OtherSizeError

    with pillow_limit(max_megapixels):
        results = map_parallel(decode_one, len(pictures), advance)
    return {
        "rows": len(pictures),
        "skipped": [(i, str(each)) for i, each in enumerate(results) if isinstance(each, DamagedPictureError)],
        "animations": [pictures.name(i) for i, each in enumerate(results) if each is True],
    }


def report(records: list[dict[str, Any]], damaged: Damaged, max_damaged: float) -> IntArray:
    """Warn of the pictures that were skipped and of animations.

    Args:
        records: what `decode` gave for parts of a set, in their order.
        damaged: whether pictures may be skipped.
        max_damaged: the largest fraction that may be.

    Returns:
        The indices of the pictures that were decoded.

    Raises:
        ValueError: more were skipped.
    """
    ends = np.cumsum([record["rows"] for record in records])
    skipped, errors, animations, total = [], [], [], int(ends[-1])
    for end, record in zip(ends, records, strict=True):
        skipped += [int(end) - record["rows"] + i for i, _ in record["skipped"]]
        errors += [error for _, error in record["skipped"]]
        animations += record["animations"]
    if errors and damaged == "error":
        raise unreadable(errors[0])
    if errors:
        what = f"{len(errors):,} of {counted(total, 'picture')} cannot be read: {abbreviate(errors)}"
        if len(errors) > max_damaged * total:
            raise ValueError(f"{what}; more than the fraction data.max_damaged={max_damaged:g}")
        log.warning(f"{what}; {'it is' if len(errors) == 1 else 'they are'} skipped")
    if animations:
        found = f"{counted(len(animations), 'animation')} among {counted(total, 'picture')}"
        log.warning(f"{found}, of which only the first frame is used: {abbreviate(animations)}")
    return np.setdiff1d(np.arange(total), skipped)


def unreadable(error: str) -> ValueError:
    """The error of a picture that may not be skipped."""
    return ValueError(
        f"cannot read {error}; remove it, or set data.damaged=skip (transfergen check lists all such pictures)"
    )


def abbreviate(names: Sequence[str], count: int = 3) -> str:
    """The first `count` names as one line, and how many more there are."""
    more = len(names) - count
    return ", ".join(names[:count]) + (f" and {more:,} more" if more > 0 else "")
