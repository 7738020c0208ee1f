"""What every generator has, and the latents that go in."""

from collections.abc import Iterable

import torch
from torch import Tensor, nn


class Generator(nn.Module):
    """Latents (B, Z) ~ N(0, 1), and classes (B,) where `num_classes` is not 0 -> images (B, 3, R, R) in [-1, 1]."""

    z_dim: int
    """Z."""
    resolution: int
    """R, in pixels."""
    num_classes: int = 0
    """0: unconditional."""


def latents(seeds: Iterable[int], z_dim: int) -> Tensor:
    """One latent a seed, (number of seeds, Z): the same whatever the device, the batch and the other seeds."""
    return torch.stack([torch.randn(z_dim, generator=torch.Generator().manual_seed(seed)) for seed in seeds])
