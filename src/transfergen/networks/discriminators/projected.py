"""The discriminator of Projected GANs: random projections of frozen features. Sauer 2021, arXiv:2111.01007."""

import math
from collections.abc import Iterator
from itertools import pairwise
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from transfergen.networks.acceleration.folding import fold_batchnorm
from transfergen.networks.acceleration.frozen_conv import FrozenConv2d
from transfergen.networks.backbones.base import Backbone
from transfergen.networks.discriminators.base import Discriminator, channel_statistics, check_backbone
from transfergen.networks.discriminators.heads import ScaleHead


class ProjectedDiscriminator(Discriminator):
    """Images (B, 3, R, R) in [-1, 1] -> logits (B, N) of all positions of all scales.

    The frozen trunk gives a map a scale. Cross-channel mixing: a random 1x1 convolution to `channels` channels,
    doubling from scale to scale. Cross-scale mixing: from the deepest scale up, what is below is enlarged, brought to
    the width of the scale by another random 1x1 convolution, and added. Neither is ever trained: both belong to the
    frozen prefix. One head a scale judges the result (section 3.2 and figure 2).

    Deviations from the release: the trunk's channels are standardised first (`standardize_features`), for trunks whose features
    are large, and a sum of two maps is divided by the root of 2, so that all scales stay near unit variance.

    Args:
        backbone: the trunk; each of its taps is a scale.
        resolution: R, in pixels. `backbone.input_size` is what they are resized to, if at all.
        channels: of the shallowest scale after mixing.
        width: of the heads.
        mix_scales: whether there is cross-scale mixing.
        standardize_features: whether the trunk's channels are standardised.
        joint_batchnorm: whether the heads normalise reals and fakes as one batch; the release normalises each on its own.

    Raises:
        ValueError: no trunk, or one too deep for R.
    """

    frozen_blocks: int

    def __init__(
        self,
        backbone: Backbone,
        *,
        resolution: int = 64,
        channels: int = 64,
        width: int = 64,
        mix_scales: bool = True,
        standardize_features: bool = True,
        joint_batchnorm: bool = False,
    ) -> None:
        super().__init__()
        self.joint_batchnorm = joint_batchnorm
        check_backbone(backbone)
        fold_batchnorm(backbone.eval(), resolution)
        self.backbone = backbone.requires_grad_(False)
        self.backbones = (backbone,)
        self.blocks = self.frozen_blocks = len(backbone.blocks)
        self.standardize_features = standardize_features
        shapes = backbone.shapes(resolution)
        widths = [channels * 2**i for i in range(len(shapes))]
        self.mix_channels = nn.ModuleList(_random_projection(c, w) for (c, _, _), w in zip(shapes, widths, strict=True))
        self.mix_scales = nn.ModuleList(_random_projection(deep, w) for w, deep in pairwise(widths) if mix_scales)
        self.heads = nn.ModuleList(ScaleHead(w, h, width=width) for w, (_, h, _) in zip(widths, shapes, strict=True))

    def freeze(self, blocks: int) -> None:
        """Raises ValueError if any of the trunk is to train: the random projections are meant for fixed features."""
        if blocks != self.blocks:
            raise ValueError("the projected discriminator's trunk stays frozen; set transfer=feature_extraction")

    def train(self, mode: bool = True) -> "ProjectedDiscriminator":
        """As usual, but the trunk stays in eval mode."""
        super().train(mode)
        self.backbone.eval()
        return self

    @torch.no_grad()
    def calibrate(self, images: Tensor) -> None:
        """Standardise the trunk's channels on real images (B, 3, R, R) in [-1, 1]: the mixing does it from now on.

        Once: a mixing that came from another run, where it was done, stays as the heads know it.
        """
        if self.standardize_features and not any(cast(Tensor, mix.bias).any() for mix in self.mix_channels):
            means, stds = channel_statistics(self.backbone, images)
            for mix, mean, std in zip(self.mix_channels, means, stds, strict=True):
                weight, bias = cast(Tensor, mix.weight), cast(Tensor, mix.bias)
                weight.div_(std[:, None, None])
                bias.copy_(-(weight.flatten(1) @ mean))

    def trainable_parameters(self) -> Iterator[nn.Parameter]:
        """The heads'."""
        yield from self.heads.parameters()

    def features(self, images: Tensor) -> list[Tensor]:
        """Images (B, 3, R, R) in [-1, 1] -> the mixed maps (B, C, h, w), shallow first."""
        mixed: list[Tensor] = [mix(m) for mix, m in zip(self.mix_channels, self.backbone(images), strict=True)]
        for i, mix in reversed(list(enumerate(self.mix_scales))):
            below = F.interpolate(mix(mixed[i + 1]), size=mixed[i].shape[-2:], mode="bilinear")
            mixed[i] = (mixed[i] + below) / math.sqrt(2)
        return mixed

    def score(self, features: list[Tensor], y: Tensor | None = None) -> Tensor:
        """The mixed maps -> logits (B, N), all scales joined."""
        return torch.cat([head(m).flatten(1).float() for head, m in zip(self.heads, features, strict=True)], dim=1)

    def score_jointly(self, real: list[Tensor], fake: list[Tensor], y: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """As usual; in the generator's turn, without the gradient with respect to the reals' maps."""
        if not any(m.requires_grad for m in fake):
            return super().score_jointly(real, fake, y)
        logits = [head(f, r).flatten(1).float() for head, r, f in zip(self.heads, real, fake, strict=True)]
        real_logits, fake_logits = torch.cat(logits, dim=1).chunk(2)
        return real_logits, fake_logits

    def networks(self) -> Iterator[nn.Module]:
        """The trunk's blocks and the heads."""
        yield from (*self.backbone.blocks, *self.heads)


def _random_projection(c_in: int, c_out: int) -> FrozenConv2d:
    """A fixed 1x1 convolution that keeps the variance of independent channels."""
    convolution = nn.Conv2d(c_in, c_out, 1)
    nn.init.normal_(convolution.weight, std=c_in**-0.5)
    nn.init.zeros_(cast(Tensor, convolution.bias))
    return FrozenConv2d(convolution.requires_grad_(False))
