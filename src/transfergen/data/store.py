"""The store of decoded pictures: uint8 pixels, in memory or in a memory-mapped cache file."""

import errno
import hashlib
import json
import logging
import os
import shutil
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from filelock import FileLock, Timeout
from torch import Tensor
from torch.utils.data import Dataset

from transfergen.data.decoding import (
    MEGAPIXELS,
    Damaged,
    DamagedPictureError,
    abbreviate,
    decode,
    open_picture,
    pillow_limit,
)
from transfergen.data.pictures import ByteArray, Fit, IntArray, Pictures
from transfergen.image_shape import ImageShape

log = logging.getLogger(__name__)


class Batch(NamedTuple):
    """A batch of B images, as a training step gets it."""

    pixels: Tensor
    """(B, C, S, T), uint8, channels last in memory."""
    labels: Tensor
    """(B,), int64."""
    indices: np.ndarray
    """(B,), int64: the indices of the images in their set. An array and not a tensor, so that it stays on the CPU."""

    def split(self, parts: int) -> list["Batch"]:
        """As many equally large parts, in their order."""
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

    If it is square, and so are all pictures, of one smaller size, they keep this size and are enlarged on the device. A
    store of more than `max_memory_mib` goes to a file in `cache_dir`, where later runs find it by the pictures'
    identity, and compare it with its SHA-256.

    Raises:
        ValueError: a picture cannot be read, or, with `damaged="skip"`, a larger fraction of them than `max_damaged`.
        OSError: the disk has no space for the file.
    """
    if shape.is_square:
        side = _common_size(pictures, shape.resolution, max_megapixels)
        shape = shape._replace(height=side, width=side)
    array = (len(pictures), *shape.size, shape.channels)
    if pictures.pixels is not None and pictures.pixels.shape == array:
        return Store(pictures.pixels, pictures)

    def decode_into(pixels: ByteArray) -> IntArray:
        try:
            errors, kept, animations = decode(pictures, pixels, fit=fit, damaged=damaged, max_megapixels=max_megapixels)
        except DamagedPictureError as error:
            raise ValueError(
                f"cannot read {error}; remove it, or set data.damaged=skip (transfergen check lists all such pictures)"
            ) from error
        _warn(pictures, errors, animations, max_damaged)
        return kept

    if np.prod(array) <= max_memory_mib * 2**20:
        pixels = np.empty(array, np.uint8)
        return _store(pixels, pictures, decode_into(pixels))
    state = f"{pictures.identity()}|{array}|{fit}|{damaged}|{max_damaged}|{max_megapixels}"
    path = cache_dir / f"{hashlib.sha256(state.encode()).hexdigest()[:24]}.npy"
    kept = _read_record(path, len(pictures))
    if kept is None:
        cache_dir.mkdir(parents=True, exist_ok=True)
        _remove_debris(cache_dir)
        with FileLock(_lock(path)):
            kept = _read_record(path, len(pictures))  # another process may have written it since
            if kept is None:
                kept = _write(path, array, decode_into)
    return _store(np.load(path, mmap_mode="r"), pictures, kept)


def _write(path: Path, shape: tuple[int, ...], decode_into: Callable[[ByteArray], IntArray]) -> IntArray:
    """Decode pictures into a file, and record its SHA-256 and the pictures that were skipped in one beside it.

    Raises:
        OSError: the disk has no space for the file.
    """
    partial = path.with_suffix(f".{os.getpid()}.part")
    partial.unlink(missing_ok=True)  # it might be a link
    try:
        mapped = np.lib.format.open_memmap(partial, mode="w+", dtype=np.uint8, shape=shape)
        _reserve(partial)
        kept = decode_into(mapped)
        mapped.flush()
        record = {"sha256": _sha256(partial), "skipped": np.setdiff1d(np.arange(shape[0]), kept).tolist()}
        partial.replace(path)
        partial.write_text(json.dumps(record))
        partial.replace(path.with_suffix(".json"))
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        free = shutil.disk_usage(path.parent).free
        raise OSError(
            f"data.cache_dir={path.parent}: the decoded pictures take {np.prod(shape) / 2**20:,.0f} MiB, and "
            f"{free / 2**20:,.0f} MiB are free; free some, or set another folder"
        ) from error
    finally:
        partial.unlink(missing_ok=True)
    return kept


def _reserve(file: Path) -> None:
    """Have the disk set aside a file's space: writing to a mapped page that has none would kill the process."""
    size = file.stat().st_size
    if hasattr(os, "posix_fallocate"):
        with file.open("r+b") as opened:
            os.posix_fallocate(opened.fileno(), 0, size)
    elif shutil.disk_usage(file.parent).free < size:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def _read_record(path: Path, count: int) -> IntArray | None:
    """The indices of the pictures that a file holds; None if there is no such file, or it is not what was written."""
    record_path = path.with_suffix(".json")
    if not path.exists() or path.is_symlink() or record_path.is_symlink():
        return None
    try:
        record = json.loads(record_path.read_text())
        if record["sha256"] == _sha256(path):
            return np.setdiff1d(np.arange(count), record["skipped"])
    except (OSError, ValueError, LookupError, TypeError):
        pass
    log.warning(f"data.cache_dir={path.parent}: {path.name} is damaged; the pictures are decoded again")
    return None


def _remove_debris(cache_dir: Path) -> None:
    """Remove what processes that were killed have left: files whose lock nobody holds."""
    for partial in cache_dir.glob("[0-9a-f]*.part"):
        with suppress(Timeout), FileLock(_lock(cache_dir / partial.name.split(".")[0]), timeout=0):
            partial.unlink(missing_ok=True)


def _lock(path: Path) -> Path:
    return path.with_suffix(".npy.lock")


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _store(pixels: ByteArray, pictures: Pictures, kept: IntArray) -> Store:
    if len(kept) == len(pictures):
        return Store(pixels, pictures)
    return Store(pixels, pictures.subset(kept, "readable"), kept)


def _warn(pictures: Pictures, errors: list[DamagedPictureError], animations: IntArray, max_damaged: float) -> None:
    total = len(pictures)
    if errors:
        what = f"{len(errors):,} of {total:,} pictures cannot be read: {abbreviate([str(error) for error in errors])}"
        if len(errors) > max_damaged * total:
            raise ValueError(f"{what}; more than the fraction data.max_damaged={max_damaged:g}")
        log.warning(f"{what}; they are skipped")
    if len(animations):
        names = abbreviate([pictures.name(int(i)) for i in animations])
        log.warning(
            f"{len(animations):,} of {total:,} pictures are animations: only their first frames are used: {names}"
        )


def _common_size(pictures: Pictures, resolution: int, max_megapixels: float) -> int:
    """The side of all pictures if they are squares of one size up to `resolution`; otherwise `resolution`."""
    if pictures.pixels is not None:
        return min(resolution, int(pictures.pixels.shape[1]))
    sizes = set()
    with pillow_limit(max_megapixels):
        for i in range(len(pictures)):
            with suppress(DamagedPictureError), open_picture(pictures, i, max_megapixels) as picture:
                sizes.add(picture.size)  # decoding tells of the damaged ones
            if len(sizes) > 1:
                return resolution
    return next((width for width, height in sizes if width == height <= resolution), resolution)
