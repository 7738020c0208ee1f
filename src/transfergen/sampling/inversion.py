"""The latents whose images are nearest to given pictures."""

from collections.abc import Callable, Iterable

import torch
from torch import Tensor
from torch.nn import functional as F

from transfergen.networks.generators.base import Generator, latents

STARTS = 512
"""Random latents, the best of which each search begins from."""


def invert(
    generator: Generator,
    pictures: Tensor,
    *,
    steps: int = 500,
    lr: float = 0.05,
    seed: int = 0,
    prior: float = 1e-3,
    labels: Tensor | None = None,
    over: Callable[[range], Iterable[int]] = iter,
) -> tuple[Tensor, Tensor]:
    """Search latents by gradient descent. Zhu 2016, arXiv:1609.03552, section 3.1, with pixels at three scales.

    Args:
        generator: frozen, in eval mode.
        pictures: (B, 3, R, R) in [-1, 1], on the generator's device.
        steps: of Adam.
        lr: at the start; it falls to 0 along a cosine.
        seed: of the latents that are tried first.
        prior: weight of the latents' mean square, so that they stay where images are good.
        labels: classes (B,) for a conditional generator.
        over: goes over the steps, such as a progress bar.

    Returns:
        Latents (B, Z), and mean squared error over pixels of each image, (B,).
    """
    device = pictures.device
    z = _start(generator, pictures, seed, labels).requires_grad_()
    optimizer = torch.optim.Adam([z], lr=lr)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    for _ in over(range(steps)):
        images = _images(generator, z, labels)
        loss = (_distance(images, pictures) + prior * z.square().mean(dim=1)).sum()
        (z.grad,) = torch.autograd.grad(loss, [z])
        optimizer.step()
        schedule.step()
    with torch.no_grad():
        error = (_images(generator, z, labels) - pictures).square().mean(dim=(1, 2, 3))
    return z.detach().to(device), error


@torch.no_grad()
def _start(generator: Generator, pictures: Tensor, seed: int, labels: Tensor | None) -> Tensor:
    tried = latents(range(seed, seed + STARTS), generator.z_dim).to(pictures.device)
    chosen = []
    for i, picture in enumerate(pictures):
        label = None if labels is None else labels[i : i + 1]
        found = [
            _distance(_images(generator, part, None if label is None else label.expand(len(part))), picture[None])
            for part in torch.split(tried, 64)
        ]
        chosen.append(tried[torch.cat(found).argmin()])
    return torch.stack(chosen)


def _images(generator: Generator, z: Tensor, labels: Tensor | None) -> Tensor:
    images: Tensor = generator(z) if labels is None else generator(z, labels)
    return images


def _distance(a: Tensor, b: Tensor) -> Tensor:
    """Mean squared difference (B,) at full size, a half and a quarter, so that coarse forms count too."""
    difference = a - b
    scales = [difference, F.avg_pool2d(difference, 2), F.avg_pool2d(difference, 4)]
    return torch.stack([each.square().mean(dim=(1, 2, 3)) for each in scales]).sum(dim=0)
