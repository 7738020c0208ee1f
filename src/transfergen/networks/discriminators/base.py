"""What every discriminator has: a frozen prefix and a trainable suffix."""

import math
from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor, nn

from transfergen.networks.backbones.base import Backbone

Part = tuple[slice, float]


class Discriminator(nn.Module):
    """Images (B, 3, R, R) in [-1, 1], and classes (B,) where it is conditional -> logits (B, N).

    `features` is the frozen prefix and `score` the rest. The boundary between them lies in a trunk of `blocks` blocks,
    of which `freeze` freezes the first. Frozen blocks have no weight gradients and stay in eval mode whatever `train()`
    says; images get their gradients through.
    """

    backbones: Sequence[Backbone] = ()
    """The pretrained networks in it."""
    num_classes: int = 0
    """0: unconditional."""
    blocks: int = 0
    """How many blocks `freeze` can freeze; 0 if nothing in it is pretrained."""
    frozen_blocks: int = 0
    joint_batchnorm: bool = False
    """Whether a turn scores its reals and fakes as one batch, so that batch normalisation does not hide how their means
    differ."""

    def features(self, images: Tensor) -> list[Tensor]:
        """The frozen prefix: images -> what `score` takes; the images themselves if nothing is frozen."""
        return [images]

    def score(self, features: list[Tensor], y: Tensor | None = None) -> Tensor:
        """The trainable suffix: what `features` gave -> logits (B, N), float32."""
        raise NotImplementedError

    def score_jointly(self, real: list[Tensor], fake: list[Tensor], y: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """`score` of as many reals and fakes, of the same classes, as one batch: the logits (B, N) of each."""
        both = [torch.cat(pair) for pair in zip(real, fake, strict=True)]
        real_logits, fake_logits = self.score(both, None if y is None else y.repeat(2)).chunk(2)
        return real_logits, fake_logits

    def forward(self, images: Tensor, y: Tensor | None = None) -> Tensor:
        """Images -> logits (B, N)."""
        return self.score(self.features(images), y)

    def freeze(self, blocks: int) -> None:
        """Freeze the trunk's first `blocks` blocks and let the others train."""
        assert blocks == self.blocks == 0

    def trainable_parameters(self) -> Iterator[nn.Parameter]:
        """What the discriminator's optimizer gets."""
        yield from self.parameters()

    def parts(self) -> Sequence[Part]:
        """Columns of the last logits whose loss is averaged on its own, and the weight of that in the sum."""
        return ((slice(None), 1.0),)

    def frozen_names(self, backbone: Backbone) -> list[str]:
        """Names, in this network, of the tensors in the frozen blocks of one of its backbones."""
        frozen = [block for block in backbone.blocks if not any(p.requires_grad for p in block.parameters())]
        theirs = {id(tensor) for block in frozen for tensor in (*block.parameters(), *block.buffers())}
        named = (*self.named_parameters(), *self.named_buffers())
        return [name for name, tensor in named if id(tensor) in theirs]

    def lowest_layers(self) -> list[nn.Module]:
        """The layers that can keep what `init_from` gave them, the shallowest first; none in a pretrained trunk."""
        return []

    def calibrate(self, images: Tensor) -> None:
        """Real images (B, 3, R, R) in [-1, 1], once before training."""

    @property
    def grows_at(self) -> float:
        """After how many images seen `grow` is due; infinity: never."""
        return math.inf

    def grow(self, real: Tensor, fake: Tensor) -> None:
        """Take in another part of itself, chosen by these images (B, 3, R, R). `features` changes."""

    def networks(self) -> Iterator[nn.Module]:
        """What `torch.compile` may compile one by one: networks that are called, by `features` and `score`."""
        raise NotImplementedError


def check_backbone(backbone: object) -> None:
    """Refuse the nothing that `backbone=none` leaves.

    Raises:
        ValueError: there is no pretrained network.
    """
    if not isinstance(backbone, Backbone):
        raise ValueError("this discriminator needs a pretrained network; set backbone=vgg19, or discriminator=dcgan")


@torch.no_grad()
def channel_statistics(
    features: Callable[[Tensor], Sequence[Tensor]], images: Tensor, *, batch_size: int = 16
) -> tuple[list[Tensor], list[Tensor]]:
    """Mean and standard deviation (C,) of each channel of what `features` makes of images, to standardise by.

    Trunks differ in the size of their features (near 1,000 at relu3_4 of the original VGG19 weights), and heads of one
    learning rate cannot serve them all.

    Args:
        features: (B, 3, R, R) -> maps (B, C, h, w), one of each a map in the result.
        images: (N, 3, R, R).
        batch_size: images at a time, since a trunk's first maps are large.
    """
    moments = [[_moments(m) for m in features(part)] for part in torch.split(images, batch_size)]
    means, stds = [], []
    for of_parts in zip(*moments, strict=True):
        counts, variances, averages = (torch.stack(each) for each in zip(*of_parts, strict=True))
        shares = (counts / counts.sum())[:, None]
        mean = (shares * averages).sum(0)
        variance = (shares * (variances + (averages - mean).square())).sum(0)
        std = (variance * (counts.sum() / (counts.sum() - 1))).sqrt()
        means.append(mean)
        stds.append(std.clamp(min=float(std.mean()) * 1e-3))  # a channel that is always 0 stays 0
    return means, stds


def _moments(m: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """How many positions each channel of maps (B, C, h, w) has, its variance over these, and its mean."""
    variance, mean = torch.var_mean(m.float(), (0, 2, 3), correction=0)
    return mean.new_tensor(m.numel() / m.shape[1]), variance, mean
