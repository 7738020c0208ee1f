"""Features of samples and of real images: streamed, shared between ranks, the reals' kept on disk."""

import hashlib
import logging
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from transfergen.data.store import Store
from transfergen.distributed import all_gather_objects, rank_and_world_size
from transfergen.evaluation.extractors import Extractor
from transfergen.images import to_float
from transfergen.networks.generators.base import Generator, sample
from transfergen.runs import artefacts

log = logging.getLogger(__name__)

Track = Callable[[Sequence[Any], str], Iterable[Any]]
"""(items, description) -> the same items, shown as progress while they are taken."""


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
    batch_size: int = 64,
    track: Track = silently,
) -> Tensor:
    """Features (count, D), float32 on the CPU, of samples in eval mode from the latents seed, seed + 1, ...

    To be called on all ranks: each makes its share, and all return all of them.
    """
    if rank_and_world_size()[1] > 1:
        for buffer in generator.buffers():
            dist.broadcast(buffer, 0)  # batch norm's statistics differ by rank, and rank 0's are those that are saved

    def images(positions: list[int]) -> Tensor:
        return sample(generator, [seed + i for i in positions], device, batch_size=batch_size)

    return _extract(extractor, images, count, batch_size, track, "samples")


def store_features(
    extractor: Extractor,
    store: Store,
    *,
    what: str,
    count: int,
    resolution: int,
    cache_dir: Path | None,
    device: torch.device,
    batch_size: int = 64,
    track: Track = silently,
) -> Tensor:
    """Features (at most `count`, D), float32 on the CPU, of the images `chosen(store, count)`, at `resolution` pixels.

    They are kept in `cache_dir`, if given, by the images' own bytes, their number and resolution, what they are called,
    and the extractor's name and weights.
    To be called on all ranks: each extracts its share, and all return all of them.
    """
    indices = chosen(store, count)
    about = {"extractor": extractor.name, "images": what, "count": str(len(indices)), "resolution": str(resolution)}
    key = hashlib.sha256(repr((extractor.fingerprint, about, _digest(store, indices))).encode()).hexdigest()
    path = cache_dir / f"features-{key[:24]}.safetensors" if cache_dir else None
    cached = _read(path) if path else None
    if all(all_gather_objects(cached is not None)):  # else all extract, since a rank alone has but a share
        assert cached is not None
        return cached

    def images(positions: list[int]) -> Tensor:
        return to_float(store[indices[positions]].pixels.to(device), resolution)

    features = _extract(extractor, images, len(indices), batch_size, track, what)
    if path and cached is None:
        digest = hashlib.sha256(features.numpy().tobytes()).hexdigest()
        try:
            artefacts.write(path, save({"features": features}, about | {"sha256": digest}))
        except OSError as error:
            log.warning(f"data.cache_dir={cache_dir}: features of {what} cannot be kept there ({error})")
    return features


def chosen(store: Store, count: int) -> np.ndarray:
    """Positions of `count` random images of a set, or of all if there are fewer: always the same."""
    return np.random.default_rng(0).permutation(len(store))[:count]  # in folders one class follows the other


def _extract(
    extractor: Extractor,
    images: Callable[[list[int]], Tensor],
    count: int,
    batch_size: int,
    track: Track,
    what: str,
) -> Tensor:
    """Features (count, D) of the images at positions 0 to count - 1."""
    rank, world = rank_and_world_size()
    # All ranks take equally many, as gathering wants it: the last of them may be one that another rank has too.
    mine = [(rank + i * world) % count for i in range(-(-count // world))]
    batches = [mine[start : start + batch_size] for start in range(0, len(mine), batch_size)]
    with torch.no_grad():
        share = torch.cat([extractor(images(b)) for b in track(batches, f"features of {what}")])
    if world > 1:
        parts = [torch.empty_like(share) for _ in range(world)]
        dist.all_gather(parts, share)
        share = torch.stack(parts, dim=1).flatten(0, 1)
    return share[:count].cpu()


def _read(path: Path) -> Tensor | None:
    """Features from the cache; None if they are not there, or damaged."""
    try:
        with safe_open(path, "pt") as file:
            features: Tensor = file.get_tensor("features")
            intact = file.metadata()["sha256"] == hashlib.sha256(features.numpy().tobytes()).hexdigest()
    except (OSError, SafetensorError, KeyError, TypeError):
        return None
    return features if intact else None


def _digest(store: Store, indices: np.ndarray) -> str:
    digest = hashlib.sha256(repr(store.pixels.shape[1:]).encode())
    for row in store.rows(indices):
        digest.update(store.pixels[row].tobytes())
    return digest.hexdigest()
