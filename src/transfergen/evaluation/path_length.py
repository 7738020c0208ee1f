"""Perceptual path length: how much a generator's images change along its latent space."""

from pathlib import Path
from typing import Any

import torch
import torchmetrics
from torch import Tensor, nn
from torchmetrics.functional.image import perceptual_path_length

from transfergen.images import to_rgb
from transfergen.networks.backbones.vgg import VGG
from transfergen.networks.generators.base import Generator, latents
from transfergen.networks.weights import read_state_dict

EPSILON = 1e-4
"""Length of a step, as a part of the way between two latents."""
_LAYERS = ("relu1_2", "relu2_2", "relu3_3", "relu4_3", "relu5_3")


class LPIPS(nn.Module):
    """Perceptual distance between images: (B, 3, H, W) in [-1, 1], twice -> (B,), at least 0.

    The squared differences between the normalised features of VGG16, weighted by channel and averaged over positions.
    Zhang 2018, arXiv:1801.03924, eq. 1, with the weights of channels that torchmetrics carries. Its own module computes
    the same, but reads VGG16's file unverified.

    Args:
        weights: see `networks.backbones.vgg.VGG`.

    Raises:
        ValueError: the weights cannot be read or do not fit.
    """

    def __init__(self, *, weights: str = "imagenet") -> None:
        super().__init__()
        self.net = VGG(arch="vgg16", cut=_LAYERS[-1], taps=_LAYERS[:-1], weights=weights).requires_grad_(False).eval()
        heads = read_state_dict(Path(torchmetrics.__path__[0], "functional", "image", "lpips_models", "vgg.pth"))
        for i in range(len(_LAYERS)):
            self.register_buffer(f"head{i}", heads[f"lin{i}.model.1.weight"])

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        """Images (B, 3, H, W), twice -> distances (B,)."""
        pairs = zip(self.buffers(recurse=False), self.net(a), self.net(b), strict=True)
        distances = [(head * (_normalised(x) - _normalised(y)).square()).sum(1).mean((1, 2)) for head, x, y in pairs]
        return torch.stack(distances).sum(dim=0)


def path_length(
    generator: Generator, distance: nn.Module, *, count: int, seed: int = 0, batch_size: int = 64
) -> Tensor:
    """Perceptual path length of a generator in eval mode, a scalar >= 0: smaller, the more evenly images change.

    The mean, without the highest and the lowest hundredth, of the distances between images a step apart, divided by the
    step's square. Karras 2019, arXiv:1812.04948, sec. 4.1, by torchmetrics: on the spherical way between two random
    latents, of which only the first step is taken, and on images of the generator's own size.

    Args:
        generator: in eval mode. A conditional one gets random classes.
        distance: images (B, 3, H, W) in [-1, 1], twice -> (B,), such as `LPIPS`.
        count: number of steps.
        seed: of the first latent; there are two for each step.
        batch_size: steps computed at once.
    """
    device = next(generator.parameters()).device
    sampled: Any = _Sampled(generator, seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)  # of the classes
        mean, _, _ = perceptual_path_length(
            sampled,
            num_samples=count,
            conditional=generator.num_classes > 0,
            batch_size=batch_size,
            interpolation_method="slerp_any",
            epsilon=EPSILON,
            resize=None,
            sim_net=distance,
            device=device,
        )
    return mean


class _Sampled(nn.Module):
    """A generator as torchmetrics wants it: it draws latents, of one seed after the other, and pixels are 0 to 255."""

    def __init__(self, generator: Generator, seed: int) -> None:
        super().__init__()
        self.generator, self.num_classes, self.next_seed = generator, generator.num_classes, seed

    def sample(self, count: int) -> Tensor:
        seeds = range(self.next_seed, self.next_seed + count)
        self.next_seed += count
        return latents(seeds, self.generator.z_dim)

    def forward(self, z: Tensor, labels: Tensor | None = None) -> Tensor:
        images: Tensor = to_rgb(self.generator(z, labels))
        return (images + 1) * 127.5


def _normalised(maps: Tensor) -> Tensor:
    """Maps (B, C, h, w) with a length of 1 at each position."""
    return maps / (maps.square().sum(dim=1, keepdim=True) + 1e-8).sqrt()
