"""Samples against images that training did not see."""

from typing import Any

import torch
from torch import Tensor

from transfergen.data.store import Store
from transfergen.generators.base import Generator, latents
from transfergen.images import resize, to_float
from transfergen.metrics.distances import sliced_wasserstein

PIXELS = 16


@torch.no_grad()
def evaluate(
    generator: Generator,
    test_set: Store,
    *,
    resolution: int,
    device: torch.device,
    count: int = 2048,
    seed: int = 1_000_000,
) -> dict[str, Any]:
    """The sliced Wasserstein distance between samples and test images, both reduced to 16x16 pixels in [-1, 1].

    It sees colours and coarse forms, no more; but it needs no network, so none can be flattered.
    """
    count = min(count, len(test_set))
    was_training = generator.training
    generator.eval()
    z = latents(range(seed, seed + count), generator.z_dim)
    generated = torch.cat([_pixels(generator(part.to(device))) for part in torch.split(z, 128)])
    generator.train(was_training)
    pixels = test_set.some(count).pixels  # in folders one class follows the other
    real = torch.cat([_pixels(to_float(part, resolution)) for part in torch.split(pixels, 128)])
    return {
        "name": "sliced_wasserstein",
        "value": float(sliced_wasserstein(generated, real)),
        "features": f"pixels, {PIXELS}x{PIXELS}",
        "generated": count,
        "real": count,
        "split": "test",
        "seed": seed,
    }


def _pixels(images: Tensor) -> Tensor:
    return resize(images.float(), PIXELS).flatten(1).cpu()
