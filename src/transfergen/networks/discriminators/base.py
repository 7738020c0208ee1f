"""The base of all discriminators: a frozen prefix and a trainable suffix."""

import math
from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor, nn

from transfergen.networks.backbones.base import Backbone

LogitGroup = tuple[slice, float]
"""Columns of the logits (B, N), and the weight of their loss."""


class Discriminator(nn.Module):
    """Images (B, C, H, W) in [-1, 1], and classes (B,) if it is conditional -> logits (B, N).

    It is computed in two steps: `features`, the frozen prefix, and `score`, the trainable suffix. `freeze` sets the
    boundary between them, within a pretrained trunk of `blocks` blocks. Frozen blocks have no weight gradients and stay
    in eval mode, even after `train()`, but gradients pass through them to the images.
    """

    backbones: Sequence[Backbone] = ()
    """The pretrained networks that it looks through."""
    image_channels: int | None = None
    """C, if a layer depends on it. None: only pretrained networks see the images, and these take any C."""
    num_classes: int = 0
    """Number of classes; 0 if it is unconditional."""
    blocks: int = 0
    """Number of blocks of the pretrained trunk; 0 if nothing in it is pretrained."""
    frozen_blocks: int = 0
    """Number of these blocks that are frozen, the shallowest first."""
    trunk_can_train: bool = True
    """Whether `freeze` takes fewer than all blocks."""
    joint_batchnorm: bool = False
    """Whether reals and fakes are scored as one batch. If each are normalised on their own, batch normalisation hides
    by how much their means differ."""

    @property
    def num_logits(self) -> int:
        """N."""
        return 1

    def features(self, images: Tensor) -> list[Tensor]:
        """The frozen prefix: images (B, C, H, W) -> the input of `score`, which is the images if nothing is frozen."""
        return [images]

    def score(self, features: list[Tensor], y: Tensor | None = None) -> Tensor:
        """The trainable suffix: the output of `features`, and classes (B,) -> logits (B, N), float32."""
        raise NotImplementedError

    def score_jointly(self, real: list[Tensor], fake: list[Tensor], y: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Score equally many reals and fakes of the same classes as one batch: the logits (B, N) of each."""
        both = [torch.cat(pair) for pair in zip(real, fake, strict=True)]
        real_logits, fake_logits = self.score(both, None if y is None else y.repeat(2)).chunk(2)
        return real_logits, fake_logits

    def forward(self, images: Tensor, y: Tensor | None = None) -> Tensor:
        """Images -> logits (B, N)."""
        return self.score(self.features(images), y)

    def freeze(self, blocks: int) -> None:
        """Freeze the trunk's first `blocks` blocks and let the others train.

        Raises:
            ValueError: this trunk can only be frozen as a whole.
        """
        if blocks != self.blocks:
            raise ValueError(f"blocks={blocks}: the blocks of this trunk stay frozen")

    def trainable_parameters(self) -> Iterator[nn.Parameter]:
        """The parameters that the discriminator's optimizer updates."""
        yield from self.parameters()

    def logit_groups(self) -> Sequence[LogitGroup]:
        """Groups of logits. The loss is averaged over each group, and the weighted averages are summed."""
        return ((slice(None), 1.0),)

    def frozen_names(self, backbone: Backbone) -> list[str]:
        """Names, in this network's state dict, of the tensors in the frozen blocks of one of its backbones."""
        frozen = [block for block in backbone.blocks if not any(p.requires_grad for p in block.parameters())]
        theirs = {id(tensor) for block in frozen for tensor in (*block.parameters(), *block.buffers())}
        named = (*self.named_parameters(), *self.named_buffers())
        return [name for name, tensor in named if id(tensor) in theirs]

    def lowest_layers(self) -> list[nn.Module]:
        """The layers that FreezeD can freeze, the shallowest first. A pretrained trunk has none: it has `freeze`."""
        return []

    def calibrate(self, images: Tensor) -> None:
        """Measure constants on real images (B, C, H, W) in [-1, 1], once before training."""

    @property
    def grows_at(self) -> float:
        """The number of images seen at which `grow` is to be called next; infinity: never."""
        return math.inf

    def grow(self, real: Tensor, fake: Tensor) -> None:
        """Add a pretrained network, chosen by these images (B, C, H, W); the output of `features` changes."""


def check_backbone(backbone: object) -> None:
    """Check that a discriminator that stands on a pretrained network is given one.

    Raises:
        ValueError: it is given something else.
    """
    if not isinstance(backbone, Backbone):
        raise ValueError("backbone=none: this discriminator stands on a pretrained network; choose one, such as vgg19")


@torch.no_grad()
def channel_statistics(
    features: Callable[[Tensor], Sequence[Tensor]], images: Tensor, *, batch_size: int = 16
) -> tuple[list[Tensor], list[Tensor]]:
    """Means and standard deviations (C,) of the channels of feature maps, for standardising them.

    The scale of features differs between trunks (near 1,000 at relu3_4 of the original VGG19 weights), and one learning
    rate for the heads does not suit all scales.

    Args:
        features: images (B, C, H, W) -> maps (B, C, h, w).
        images: (N, C, H, W).
        batch_size: images at a time, since a trunk's first maps are large.

    Returns:
        A list of means and one of standard deviations, each with one entry for each map.
    """
    moments = [[_moments(m) for m in features(part)] for part in torch.split(images, batch_size)]
    means, stds = [], []
    for moments_of_map in zip(*moments, strict=True):
        counts, variances, averages = (torch.stack(each) for each in zip(*moments_of_map, strict=True))
        shares = (counts / counts.sum())[:, None]
        mean = (shares * averages).sum(0)
        variance = (shares * (variances + (averages - mean).square())).sum(0)
        std = (variance * (counts.sum() / (counts.sum() - 1))).sqrt()
        means.append(mean)
        stds.append(std.clamp(min=float(std.mean()) * 1e-3))  # a constant channel must not divide by 0
    return means, stds


def _moments(m: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Count the positions of a channel of maps (B, C, h, w); compute each channel's variance and mean (C,)."""
    variance, mean = torch.var_mean(m.float(), (0, 2, 3), correction=0)
    return mean.new_tensor(m.numel() / m.shape[1]), variance, mean
