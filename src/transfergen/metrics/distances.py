"""Distances between two sets of features."""

import torch
from torch import Tensor


def sliced_wasserstein(a: Tensor, b: Tensor, *, projections: int = 512, seed: int = 0) -> Tensor:
    """Sliced 2-Wasserstein distance between samples (N, D) and (N, D), a scalar; 0 for equal sets.

    The root of the mean, over random unit directions, of the squared distance between the sorted projections. Rabin
    2011, doi:10.1007/978-3-642-24785-9_37. No weights, so nothing that a pretrained discriminator could flatter.

    Raises:
        ValueError: the two are of different shapes.
    """
    if a.shape != b.shape:
        raise ValueError(f"two sets of one shape are needed, not {tuple(a.shape)} and {tuple(b.shape)}")
    generator = torch.Generator().manual_seed(seed)
    directions = torch.randn(a.shape[1], projections, generator=generator).to(a)
    directions /= directions.norm(dim=0)
    difference = (a @ directions).sort(dim=0).values - (b @ directions).sort(dim=0).values
    return difference.square().mean().sqrt()
