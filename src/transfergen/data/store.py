"""The store of decoded pictures: uint8 pixels, in memory or in a memory-mapped cache file."""

from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import cache, partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from transfergen.data.decoding import (
    MEGAPIXELS,
    Damaged,
    DamagedPictureError,
    OtherSizeError,
    decode,
    open_picture,
    pillow_limit,
    progress_bar,
    report,
)
from transfergen.data.pictures import ByteArray, Fit, IntArray, Pictures
from transfergen.data.pixel_file import Chunk, Record, cache_path, chunk_rows, read_or_write
from transfergen.image_shape import ImageShape

_PROBED = 16
"""Pictures whose size tells whether to expect that all have it."""


class Batch(NamedTuple):
    """A batch of B images, as a training step gets it."""

    pixels: Tensor
    """(B, C, S, T), uint8, channels last in memory."""
    labels: Tensor
    """(B,), int64."""
    indices: np.ndarray
    """(B,), int64: the indices of the images in their set. An array and not a tensor, so that it stays on the CPU."""

    def split(self, parts: int) -> list["Batch"]:
        """The batch in this number of equally large parts, in order."""
        size = len(self.pixels) // parts
        shares = [slice(i, i + size) for i in range(0, len(self.pixels), size)]
        return [Batch(self.pixels[share], self.labels[share], self.indices[share]) for share in shares]


class Store(Dataset[Batch]):
    """N decoded pictures. Indexing with an array of indices gives a whole `Batch`.

    Args:
        pixels: (M, S, T, C), uint8.
        pictures: N pictures, with their labels and classes.
        rows: (N,), the row of `pixels` that holds each picture; None: they are in order, and M is N.
    """

    def __init__(self, pixels: ByteArray, pictures: Pictures, rows: IntArray | None = None) -> None:
        self.pixels = pixels
        self.labels = pictures.labels
        self.classes = pictures.classes
        self._rows = rows

    def __len__(self) -> int:
        return len(self.labels)

    def sample_images(self, count: int, seed: int = 0) -> Batch:
        """A random choice of `count` different pictures, or of all if there are fewer; the seed determines it."""
        return self[np.random.default_rng(seed).permutation(len(self))[:count]]

    def rows(self, indices: np.ndarray) -> np.ndarray:
        """The rows of `pixels` that hold the pictures with these indices. Skipped pictures have a row, but no index."""
        return indices if self._rows is None else self._rows[indices]

    def __getitem__(self, indices: np.ndarray) -> Batch:
        pixels = torch.from_numpy(self.pixels[self.rows(indices)]).permute(0, 3, 1, 2)
        return Batch(pixels, torch.from_numpy(self.labels[indices]), indices)


def build_store(
    pictures: Pictures,
    *,
    shape: ImageShape,
    fit: Fit,
    max_memory_mib: int,
    cache_dir: Path,
    damaged: Damaged = "error",
    max_damaged: float = 0.01,
    max_megapixels: float = MEGAPIXELS,
) -> Store:
    """Decode all pictures to a shape, with a progress bar.

    If the shape is a square and all pictures are squares of one smaller size, they keep that size and are enlarged on
    the device. Pictures with alpha are enlarged here, before the black of transparent pixels can mix with colours. A
    store of more than `max_memory_mib` goes to a file in `cache_dir`, where later runs find it by the pictures'
    identity, and compare it with its SHA-256. If a run is interrupted while it writes the file, the next one goes on.

    Raises:
        ValueError: a picture cannot be read, or, with `damaged="skip"`, a larger fraction of them than `max_damaged`.
        OSError: the disk has no space for the file.
    """
    small = _small_shape(pictures, shape, max_megapixels) or shape
    if pictures.pixels is not None:
        shape = small
        if pictures.pixels.shape[1:] == _row(shape):
            return Store(pictures.pixels, pictures, pictures.rows)
    identity = cache(pictures.identity)

    def file(shape: ImageShape, fit: Fit | None) -> Path | None:
        in_memory = len(pictures) * np.prod(_row(shape)) <= max_memory_mib * 2**20
        return None if in_memory else cache_path(cache_dir, identity(), _row(shape), fit, max_megapixels)

    decode_all = partial(_decode_all, pictures, damaged=damaged, max_megapixels=max_megapixels)
    whole, records = file(shape, fit), None
    if small != shape and not (whole and whole.exists()):  # else an earlier run has found other sizes
        with suppress(OtherSizeError):
            pixels, records = decode_all(small, None, file(small, None))
    if records is None:
        pixels, records = decode_all(shape, fit, whole)
    kept = report(records, damaged, max_damaged)
    if len(kept) == len(pictures):
        return Store(pixels, pictures)
    return Store(pixels, pictures.subset(kept, "readable"), kept)


def _decode_all(
    pictures: Pictures, shape: ImageShape, fit: Fit | None, path: Path | None, **settings: Any
) -> tuple[ByteArray, list[Record]]:
    """The pixels of N pictures, (N, H, W, C), and the records of `decode`; in the file `path`, if there is one.

    Raises:
        ValueError, OSError: see `build_store`.
        OtherSizeError: a picture has another size, and `fit` is None.
    """
    row, count = _row(shape), len(pictures)
    decode_part: Callable[..., Record] = partial(decode, fit=fit, **settings)
    if path is None:
        pixels = np.empty((count, *row), np.uint8)
        with progress_bar("decoding pictures", count) as advance:
            return pixels, [decode_part(pictures, pixels, advance=advance)]

    def chunks(records: list[Record]) -> Iterator[Chunk]:
        done = sum(record["rows"] for record in records)
        step = chunk_rows(row)
        with progress_bar("decoding pictures", count, done) as advance:
            for first in range(done, count, step):
                part = pictures.subset(range(first, min(first + step, count)), "part")
                yield Chunk(len(part), partial(decode_part, part, advance=advance))

    return read_or_write(path, row, chunks, count=count)


def _row(shape: ImageShape) -> tuple[int, int, int]:
    return (*shape.size, shape.channels)


def _small_shape(pictures: Pictures, shape: ImageShape, max_megapixels: float) -> ImageShape | None:
    """The shape of all pictures, as far as a few of them tell, if it is a smaller square than `shape`; otherwise None.

    Decoding finds out whether one is of another size, and tells of damaged ones.
    """
    if not shape.is_square or shape.channels == 4:
        return None
    if pictures.pixels is not None:
        side = min(shape.resolution, int(pictures.pixels.shape[1]))
        return shape._replace(height=side, width=side)
    found: int | None = None
    with pillow_limit(max_megapixels):
        for i in np.unique(np.linspace(0, len(pictures) - 1, _PROBED).astype(int)):
            with suppress(DamagedPictureError), open_picture(pictures, int(i), max_megapixels) as picture:
                side = picture.width
                if side != picture.height or side >= shape.resolution or found not in (None, side):
                    return None
                found = side
    return None if found is None else shape._replace(height=found, width=found)
