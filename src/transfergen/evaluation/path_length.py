"""Perceptual path length: how much a generator's images change along its latent space."""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torchmetrics.functional.image import perceptual_path_length
from torchmetrics.functional.image.lpips import _LPIPS

from transfergen.devices import full_float32
from transfergen.images import to_rgb
from transfergen.networks.backbones.vgg import published
from transfergen.networks.generators.base import Generator, latents
from transfergen.networks.weights import load_weights, read_state_dict

EPSILON = 1e-4
"""Length of a step, as a part of the way between two latents."""


def lpips(vgg16: Path | None = None) -> nn.Module:
    """LPIPS on VGG16, by torchmetrics: images (B, 3, H, W) in [-1, 1], twice -> distances (B, 1, 1, 1), at least 0.

    Zhang 2018, arXiv:1801.03924, eq. 1. VGG16's weights are read here, since torchmetrics would not verify their file;
    its public classes take no others.

    Args:
        vgg16: a file with torchvision's names; None: torchvision's, downloaded once.

    Raises:
        ValueError: the file cannot be read or does not fit.
    """
    path = vgg16 or published("vgg16").fetch()
    state = read_state_dict(path)
    distance = _LPIPS(net="vgg", pnet_rand=True)
    names = {name: f"features.{name.partition('.')[2]}" for name in distance.net.state_dict()}  # as in slice1.0.weight
    load_weights(distance.net, {ours: state[its] for ours, its in names.items() if its in state}, str(path))
    return distance


def path_length(
    generator: Generator, distance: nn.Module, *, count: int, seed: int = 0, batch_size: int = 64
) -> Tensor:
    """Perceptual path length of a generator in eval mode, a scalar >= 0: smaller, the more evenly images change.

    The mean, without the highest and the lowest hundredth, of the distances between images a step apart, divided by the
    step's square. Karras 2019, arXiv:1812.04948, sec. 4.1, by torchmetrics: on the spherical way between two random
    latents, of which only the first step is taken, and on images of the generator's own size. In float32 without TF32.

    Args:
        generator: in eval mode. A conditional one gets random classes.
        distance: images (B, 3, H, W) in [-1, 1], twice -> one number for each pair, such as `lpips`.
        count: number of steps.
        seed: of the first latent; there are two for each step.
        batch_size: steps computed at once.
    """
    device = next(generator.parameters()).device
    sampled: Any = _Sampled(generator, seed)
    with torch.random.fork_rng(devices=[]), full_float32():  # a step changes pixels by less than TF32 can tell
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
