"""Inversion: the latents whose images are nearest to given pictures."""

from collections.abc import Callable, Iterable
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from transfergen.data.formats import open_image
from transfergen.data.pictures import to_shape
from transfergen.image_shape import ImageShape
from transfergen.images import to_rgb
from transfergen.losses.perceptual import perceptual_distance
from transfergen.networks.generators.base import Generator, latents

STARTS = 512
"""Random latents; each search begins from the one whose image is nearest to the picture."""


def invert(
    generator: Generator,
    pictures: Tensor,
    *,
    steps: int = 500,
    lr: float = 0.05,
    seed: int = 0,
    prior: float = 1e-3,
    perceptual: float = 0.3,
    labels: Tensor | None = None,
    track: Callable[[range], Iterable[int]] = iter,
) -> tuple[Tensor, Tensor]:
    """Search latents by gradient descent. Zhu 2016, arXiv:1609.03552, section 3.1.

    The loss is the distance of pixels at three scales plus that of EfficientNet-Lite0's features.

    Args:
        generator: frozen, in eval mode.
        pictures: (B, C, H, W) in [-1, 1], on the generator's device.
        steps: of Adam.
        lr: learning rate of the first step; it falls to 0 along a cosine.
        seed: of the random latents that are tried first.
        prior: weight of the latents' mean square in the loss; it keeps them where images are good.
        perceptual: weight of `perceptual_distance` in the features of EfficientNet-Lite0; 0: pixels alone.
        labels: classes (B,) for a conditional generator, or weights (B, `num_classes`) of mixtures.
        track: is handed the range of steps and iterates over it, for a progress bar.

    Returns:
        Latents (B, Z), and the mean squared error over the pixels of each image, (B,).
    """
    trunk, wanted = None, []
    if perceptual:
        from transfergen.networks.backbones.timm import TimmBackbone  # its import takes seconds

        trunk = TimmBackbone().to(pictures.device).eval().requires_grad_(False)
        wanted = trunk(to_rgb(pictures))  # else the trunk lays each on a random background
    z = _nearest_of_random(generator, pictures, seed, labels).requires_grad_()
    optimizer = torch.optim.Adam([z], lr=lr)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    for _ in track(range(steps)):
        images = generator(z, labels)
        loss = (_distance(images, pictures) + prior * z.square().mean(dim=1)).sum()
        if trunk is not None:  # a mean over the pictures, each of which is searched by itself
            loss = loss + perceptual * len(pictures) * perceptual_distance(trunk(to_rgb(images)), wanted)
        (z.grad,) = torch.autograd.grad(loss, [z])
        optimizer.step()
        schedule.step()
    with torch.no_grad():
        error = (generator(z, labels) - pictures).square().mean(dim=(1, 2, 3))
    return z.detach(), error


def read_picture(path: str | Path, shape: ImageShape, override: str = "picture") -> Image.Image:
    """The picture in a file, cropped to its centre and resized to a shape.

    Raises:
        ValueError: it cannot be read. The message names the `override`.
    """
    try:
        with open_image(Path(path).expanduser()) as file:
            return to_shape(file, shape, "crop")
    except Exception as error:  # whatever a decoder raises
        raise ValueError(f"{override}={path}: cannot read it ({error})") from error


@torch.no_grad()
def _nearest_of_random(generator: Generator, pictures: Tensor, seed: int, labels: Tensor | None) -> Tensor:
    tried = latents(range(seed, seed + STARTS), generator.z_dim).to(pictures.device)
    nearest = []
    for i, picture in enumerate(pictures):
        label = None if labels is None else labels[i]
        distances = [
            _distance(generator(part, None if label is None else label.expand(len(part), *label.shape)), picture[None])
            for part in torch.split(tried, 64)
        ]
        nearest.append(tried[torch.cat(distances).argmin()])
    return torch.stack(nearest)


def _distance(a: Tensor, b: Tensor) -> Tensor:
    """Mean squared difference (B,) at full, half and quarter size, so that coarse forms count too."""
    difference = a - b
    scales = [difference, F.avg_pool2d(difference, 2), F.avg_pool2d(difference, 4)]
    return torch.stack([each.square().mean(dim=(1, 2, 3)) for each in scales]).sum(dim=0)
