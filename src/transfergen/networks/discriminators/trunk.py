"""The base of discriminators on one pretrained trunk, whose first blocks can be frozen."""

from collections.abc import Callable, Iterator, Sequence
from typing import cast

import torch
from torch import Tensor, nn

from transfergen.images import Size, to_rgb
from transfergen.networks.acceleration.folding import fuse_activations
from transfergen.networks.acceleration.frozen_conv import set_frozen
from transfergen.networks.backbones.base import Backbone
from transfergen.networks.discriminators.base import Discriminator, channel_statistics, check_backbone
from transfergen.networks.discriminators.heads import Head, Statistics


class TrunkDiscriminator(Discriminator):
    """A discriminator with heads on the feature maps of a pretrained trunk.

    `calibrate`, called once before training, measures the mean and the standard deviation of each of the trunk's
    channels on real images, and the heads get channels that are standardised by these constants.

    Args:
        backbone: the trunk.
        size: H and W, in pixels.
        standardize_features: whether `calibrate` does anything.
        prepare: (trunk, size), makes the trunk faster in place.

    Raises:
        ValueError: there is no trunk, or it is too deep for such images.
    """

    feature_mean: Tensor
    feature_std: Tensor

    def __init__(
        self,
        backbone: Backbone,
        *,
        size: tuple[int, int],
        standardize_features: bool,
        prepare: Callable[[nn.Module, Size], None] = fuse_activations,
    ) -> None:
        super().__init__()
        check_backbone(backbone)
        backbone.check_depth(size)  # before anything runs it
        prepare(backbone, size)
        self.backbone = backbone
        self.backbones = (backbone,)
        self.blocks = len(backbone.blocks)
        self.standardize_features = standardize_features
        self.register_buffer("feature_mean", torch.zeros(sum(backbone.channels)))
        self.register_buffer("feature_std", torch.ones(sum(backbone.channels)))

    def freeze(self, blocks: int) -> None:
        """Freeze the trunk's first `blocks` blocks and let the others train."""
        self.frozen_blocks = blocks
        for i, block in enumerate(self.backbone.blocks):
            block.requires_grad_(i >= blocks)
            set_frozen(block, i < blocks)
        self.train(self.training)

    def train(self, mode: bool = True) -> "TrunkDiscriminator":
        """Set the mode of all but the frozen blocks, which stay in eval mode."""
        super().train(mode)
        for block in self.backbone.blocks[: self.frozen_blocks]:
            block.eval()
        return self

    @torch.no_grad()
    def calibrate(self, images: Tensor) -> None:
        """Measure the mean and deviation of the trunk's channels on real images (B, C, H, W) in [-1, 1].

        What is transparent is laid on a mid grey, so that all ranks measure the same.
        """
        if self.standardize_features:
            was_training = self.training
            self.eval()  # the running statistics of a trunk with batch normalisation stay as they are
            means, stds = channel_statistics(self._maps_of, to_rgb(images))
            self.train(was_training)
            self.feature_mean.copy_(torch.cat(means))
            self.feature_std.copy_(torch.cat(stds))

    def trainable_parameters(self) -> Iterator[nn.Parameter]:
        """Parameters of the heads and of the blocks that are not frozen."""
        frozen = {p for block in self.backbone.blocks[: self.frozen_blocks] for p in block.parameters()}
        return (p for p in self.parameters() if p not in frozen)

    def features(self, images: Tensor) -> list[Tensor]:
        """Images (B, C, H, W) -> the output of the frozen blocks; the images themselves if nothing is frozen."""
        return self.backbone.prefix(images, self.frozen_blocks)

    def feature_statistics(self) -> list[Statistics]:
        """The mean and the standard deviation of each channel, for each tap."""
        channels = list(self.backbone.channels)
        means, stds = (torch.split(moments, channels) for moments in (self.feature_mean, self.feature_std))
        return list(zip(means, stds, strict=True))

    def trunk_maps(self, features: list[Tensor]) -> list[Tensor]:
        """The output of the frozen blocks -> the trunk's feature maps (B, C, h, w)."""
        return self.backbone.suffix(features, self.frozen_blocks)

    def _maps_of(self, images: Tensor) -> list[Tensor]:
        return self.trunk_maps(self.backbone.prefix(images, self.frozen_blocks))


class MultiHeadDiscriminator(TrunkDiscriminator):
    """A discriminator with a head on each of several maps: images (B, C, H, W) -> logits (B, N) of all heads."""

    heads: nn.ModuleList

    @property
    def num_logits(self) -> int:
        """N, of all heads."""
        return sum(cast(Head, head).num_logits for head in self.heads)

    def maps(self, features: list[Tensor]) -> list[Tensor]:
        """The output of `features` -> the maps (B, C, h, w) of each head."""
        return features

    def statistics(self) -> Sequence[Statistics | None]:
        """The statistics by which each head standardises its maps; None: it takes them as they are."""
        return [None] * len(self.heads)

    def score(self, features: list[Tensor], y: Tensor | None = None) -> Tensor:
        """The output of `features` -> logits (B, N), float32, those of all heads concatenated."""
        scored = zip(self.heads, self.maps(features), self.statistics(), strict=True)
        return torch.cat([head(m, statistics=by, y=y).flatten(1).float() for head, m, by in scored], dim=1)

    def score_jointly(self, real: list[Tensor], fake: list[Tensor], y: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """`score` of as many reals and fakes as one batch. With a frozen trunk, reals get no gradient on the way."""
        if self.frozen_blocks < self.blocks or not any(m.requires_grad for m in fake):
            return super().score_jointly(real, fake, y)
        scored = zip(self.heads, self.maps(fake), self.maps(real), self.statistics(), strict=True)
        both = None if y is None else y.repeat(2)
        logits = torch.cat(
            [head(fakes, reals, by, both).flatten(1).float() for head, fakes, reals, by in scored], dim=1
        )
        real_logits, fake_logits = logits.chunk(2)
        return real_logits, fake_logits
