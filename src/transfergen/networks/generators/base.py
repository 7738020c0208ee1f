"""What every generator has, and the latents and classes that go in."""

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

    def regularization(self) -> Tensor | None:
        """A scalar that its training adds to the loss; None for none."""
        return None


def latents(seeds: Iterable[int], z_dim: int, *, truncation: float | None = None) -> Tensor:
    """One latent a seed, (number of seeds, Z): the same whatever the device, the batch and the other seeds.

    Args:
        seeds: of the latents.
        z_dim: Z.
        truncation: draw from N(0, 1) cut off at this distance from 0: fewer kinds of images, but better ones. None cuts
            off nothing. Brock 2019, arXiv:1809.11096, section 3.1.
    """
    return torch.stack([_latent(torch.Generator().manual_seed(seed), z_dim, truncation) for seed in seeds])


def _latent(source: torch.Generator, z_dim: int, truncation: float | None) -> Tensor:
    if truncation is None:
        return torch.randn(z_dim, generator=source)
    return nn.init.trunc_normal_(torch.empty(z_dim), a=-truncation, b=truncation, generator=source)


@torch.no_grad()
def sample(
    generator: Generator,
    seeds: Sequence[int],
    device: torch.device,
    *,
    batch_size: int = 64,
    truncation: float | None = None,
    classes: Sequence[int] = (),
) -> Tensor:
    """Images (number of seeds, 3, R, R) of one latent a seed, in eval mode, whatever mode the generator is left in.

    A conditional generator's are of `classes`, or else of all that it has: seed s of the (s modulo their number)-th.
    """
    was_training = generator.training
    generator.eval()
    try:
        z = latents(seeds, generator.z_dim, truncation=truncation).to(device)
        if not generator.num_classes:
            return torch.cat([generator(part) for part in torch.split(z, batch_size)])
        wanted = classes or range(generator.num_classes)
        y = torch.tensor([wanted[seed % len(wanted)] for seed in seeds]).to(device)
        parts = zip(torch.split(z, batch_size), torch.split(y, batch_size), strict=True)
        return torch.cat([generator(*part) for part in parts])
    finally:
        generator.train(was_training)
