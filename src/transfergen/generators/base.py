"""What every generator has, and the latents that go in."""

from collections.abc import Iterable, Sequence

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


@torch.no_grad()
def sample(generator: Generator, seeds: Sequence[int], device: torch.device, *, batch_size: int = 64) -> Tensor:
    """Images (number of seeds, 3, R, R) of one latent a seed, in eval mode, whatever mode the generator is left in."""
    was_training = generator.training
    generator.eval()
    try:
        z = latents(seeds, generator.z_dim).to(device)
        return torch.cat([generator(part) for part in torch.split(z, batch_size)])
    finally:
        generator.train(was_training)
