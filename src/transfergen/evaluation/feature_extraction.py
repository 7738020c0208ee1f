"""Features of samples and of real images: extracted in batches, shared over ranks, cached on disk for real images."""

import hashlib
import logging
from collections.abc import Callable, Iterable, Sequence, Sized
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from transfergen.data.store import Store
from transfergen.distributed import all_gather_objects, gather_rows, rank_and_world_size
from transfergen.evaluation.extractors import Extractor
from transfergen.images import to_float
from transfergen.networks.generators.base import Generator, sample
from transfergen.runs import artefacts

log = logging.getLogger(__name__)

Track = Callable[[Sequence[Any], str], Iterable[Any]]
"""A function (items, description) -> the same items that shows progress while they are consumed."""


def silently(items: Sequence[Any], description: str) -> Iterable[Any]:
    """A `Track` that shows nothing."""
    return items


def sample_features(
    extractor: Extractor,
    generator: Generator,
    *,
    count: int,
    seed: int,
    device: torch.device,
    classes: Sequence[int] = (),
    batch_size: int = 64,
    track: Track = silently,
) -> Tensor:
    """Features of samples, drawn in eval mode from the latents with seeds seed, seed + 1, ...

    To be called on all ranks: each extracts a share, and all return the features of all samples.

    Args:
        extractor: on `device`.
        generator: on `device`.
        count: number of samples.
        seed: of the first latent.
        device: computes samples and features.
        classes: of a conditional generator, see `sample`. Those of the `count` real images that the samples are
            measured against give each class as often as these have it; empty: all classes equally often.
        batch_size: images computed at once.
        track: shows progress.

    Returns:
        Features (count, D), float32, on the CPU.
    """
    if rank_and_world_size()[1] > 1:
        for buffer in generator.buffers():
            dist.broadcast(buffer, 0)  # statistics of batch norm differ between ranks; those of rank 0 are saved

    def images(positions: list[int]) -> Tensor:
        return sample(generator, [seed + i for i in positions], device, batch_size=batch_size, classes=classes)

    return _extract(extractor, images, count, batch_size, track, "samples")


def store_features(
    extractor: Extractor,
    store: Store,
    *,
    what: str,
    count: int,
    size: tuple[int, int],
    cache_dir: Path | None,
    device: torch.device,
    batch_size: int = 64,
    track: Track = silently,
) -> Tensor:
    """Features of the images `chosen(store, count)`.

    They are cached by the images' pixels, `what`, number and size, and by the extractor's name and weights.
    To be called on all ranks: each extracts a share, and all return the features of all images.

    Args:
        extractor: on `device`.
        store: the images.
        what: name of the images, such as "test images".
        count: number of images, at most.
        size: height and width in pixels to which images are resized first.
        cache_dir: folder of the cache; None for no cache.
        device: computes the features.
        batch_size: images computed at once.
        track: shows progress.

    Returns:
        Features (at most count, D), float32, on the CPU.
    """
    indices = chosen(store, count)
    resolution = str(size[0]) if size[0] == size[1] else f"{size[1]}x{size[0]}"
    about = {"extractor": extractor.name, "images": what, "count": str(len(indices)), "resolution": resolution}
    key = hashlib.sha256(repr((extractor.fingerprint, about, _digest(store, indices))).encode()).hexdigest()
    path = cache_dir / f"features-{key[:24]}.safetensors" if cache_dir else None
    cached = _read(path) if path else None
    if all(all_gather_objects(cached is not None)):  # otherwise all extract: one rank alone has only its share
        assert cached is not None
        return cached

    def images(positions: list[int]) -> Tensor:
        return to_float(store[indices[positions]].pixels.to(device), size)

    features = _extract(extractor, images, len(indices), batch_size, track, what)
    if path and cached is None:
        digest = hashlib.sha256(features.numpy().tobytes()).hexdigest()
        try:
            artefacts.write(path, save({"features": features}, about | {"sha256": digest}))
        except OSError as error:
            log.warning(f"data.cache_dir={cache_dir}: features of {what} cannot be kept there ({error})")
    return features


def chosen(items: Sized, count: int) -> np.ndarray:
    """Positions of `count` random images, or features, or of all if there are fewer; always the same ones.

    Random, since many sources are ordered by class.
    """
    return np.random.default_rng(0).permutation(len(items))[:count]


def _extract(
    extractor: Extractor,
    images: Callable[[list[int]], Tensor],
    count: int,
    batch_size: int,
    track: Track,
    what: str,
) -> Tensor:
    """Features (count, D) of the images at positions 0 to count - 1, each extracted on one of the ranks."""
    rank, world = rank_and_world_size()
    # Gathering needs equally many on all ranks, so a last one may be repeated on another rank.
    mine = [(rank + i * world) % count for i in range(-(-count // world))]
    batches = [mine[start : start + batch_size] for start in range(0, len(mine), batch_size)]
    with torch.no_grad():
        share = torch.cat([extractor(images(b)) for b in track(batches, f"features of {what}")])
        every = gather_rows(share).view(world, len(mine), -1).transpose(0, 1).flatten(0, 1)
    return every[:count].cpu()


def _read(path: Path) -> Tensor | None:
    """Features (N, D) from a cache file; None if it does not exist, is a link or is damaged."""
    if path.is_symlink() or not path.is_file():
        return None
    try:
        with safe_open(path, "pt") as file:
            features: Tensor = file.get_tensor("features")
            intact = file.metadata()["sha256"] == hashlib.sha256(features.numpy().tobytes()).hexdigest()
    except (OSError, SafetensorError, KeyError, TypeError):
        return None
    return features if intact else None


def _digest(store: Store, indices: np.ndarray) -> str:
    """SHA-256 of the pixels of some images, in hex."""
    digest = hashlib.sha256(repr(store.pixels.shape[1:]).encode())
    for row in store.rows(indices):
        digest.update(store.pixels[row].tobytes())
    return digest.hexdigest()
