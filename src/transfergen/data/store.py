"""Pictures decoded once into uint8 pixels, in memory or in a memory-mapped cache file."""

import hashlib
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from filelock import FileLock
from PIL import Image, UnidentifiedImageError
from rich.console import Console
from rich.progress import track
from torch import Tensor
from torch.utils.data import Dataset

from transfergen.data.pictures import ByteArray, Fit, Pictures, to_rgb, to_square


class Batch(NamedTuple):
    """What a training step is handed."""

    pixels: Tensor
    """(B, 3, S, S) uint8, channels last in memory."""
    labels: Tensor
    """(B,) int64."""
    indices: np.ndarray
    """(B,) int64: which images of the set these are. An array and not a tensor, so that it stays on the CPU."""


class Store(Dataset[Batch]):
    """Decoded pictures. Indexed by an array of positions, it gives whole batches."""

    def __init__(self, pixels: ByteArray, pictures: Pictures) -> None:
        self.pixels = pixels  # (N, S, S, 3)
        self.labels = pictures.labels
        self.classes = pictures.classes

    def __len__(self) -> int:
        return len(self.pixels)

    def some(self, count: int, seed: int = 0) -> Batch:
        """A random choice of `count` different pictures, or all if there are fewer; the same for the same seed."""
        return self[np.random.default_rng(seed).permutation(len(self))[:count]]

    def __getitem__(self, indices: np.ndarray) -> Batch:
        pixels = torch.from_numpy(self.pixels[indices]).permute(0, 3, 1, 2)
        return Batch(pixels, torch.from_numpy(self.labels[indices]), indices)


def build(pictures: Pictures, *, resolution: int, fit: Fit, max_memory_mib: int, cache_dir: Path) -> Store:
    """Decode all pictures, with a progress bar, to squares of `resolution` pixels.

    Pictures that all are squares of one smaller size are kept at that size, to be enlarged on the device. A store of
    more than `max_memory_mib` goes to a file in `cache_dir`, which later runs find by the source's identity.

    Raises:
        ValueError: a picture cannot be read; names it.
    """
    if pictures.pixels is not None and pictures.pixels.shape[1] <= resolution:
        return Store(pictures.pixels, pictures)
    size = _common_size(pictures, resolution)
    shape = (len(pictures), size, size, 3)
    if np.prod(shape) <= max_memory_mib * 2**20:
        pixels = np.empty(shape, np.uint8)
        _decode(pictures, pixels, fit)
        return Store(pixels, pictures)
    key = hashlib.sha256(f"{pictures.identity}|{shape}|{fit}".encode()).hexdigest()[:24]
    path = cache_dir / f"{key}.npy"
    cache_dir.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{path}.lock"):
        if not path.exists():
            partial = path.with_suffix(f".{os.getpid()}.part")
            try:
                mapped = np.lib.format.open_memmap(partial, mode="w+", dtype=np.uint8, shape=shape)
                _decode(pictures, mapped, fit)
                mapped.flush()
                partial.replace(path)
            finally:
                partial.unlink(missing_ok=True)
    return Store(np.load(path, mmap_mode="r"), pictures)


def _common_size(pictures: Pictures, resolution: int) -> int:
    if pictures.pixels is not None:
        return resolution
    sizes = set()
    for i in range(len(pictures)):
        with _naming(pictures, i), pictures.open(i) as picture:
            sizes.add(picture.size)
        if len(sizes) > 1:
            return resolution
    width, height = sizes.pop()
    return width if width == height <= resolution else resolution


def _decode(pictures: Pictures, pixels: ByteArray, fit: Fit) -> None:
    size = pixels.shape[1]

    def decode(i: int) -> None:
        with _naming(pictures, i), pictures.open(i) as picture:
            pixels[i] = np.asarray(to_square(to_rgb(picture), size, fit))

    # Threads: Pillow decodes and resizes without holding the interpreter.
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        done = pool.map(decode, range(len(pictures)))
        screen = Console(stderr=True)
        bar = track(
            done, "decoding pictures", len(pictures), console=screen, transient=True, disable=not screen.is_terminal
        )
        list(bar)


@contextmanager
def _naming(pictures: Pictures, i: int) -> Iterator[None]:
    try:
        yield
    except (OSError, SyntaxError, ValueError, UnidentifiedImageError, Image.DecompressionBombError) as error:
        raise ValueError(f"cannot read {pictures.name(i)} ({error}); remove it, or set another data.path") from error
