"""A pretrained trunk with one fully connected head, as a textbook has it."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from transfergen.image_shape import image_shape
from transfergen.networks.backbones.base import Backbone
from transfergen.networks.discriminators.trunk import TrunkDiscriminator


class SingleHeadDiscriminator(TrunkDiscriminator):
    """Images (B, C, H, W) in [-1, 1] -> logits (B, 1).

    Each side of every feature map of the trunk is average-pooled to `pool` positions if it has more. The maps are
    flattened and concatenated; Linear, LeakyReLU 0.2, Dropout and Linear follow. The sizes with VGG19 cut at pool4 and
    64x64 px are 512x4x4 = 8192 -> 1024 -> 1.

    Args:
        backbone: the trunk.
        resolution: R, in pixels, the shorter side.
        aspect: width and height, as in (3, 2).
        pool: positions to which larger sides of feature maps are pooled.
        hidden: width of the hidden layer.
        dropout: probability of dropping a hidden unit.
        standardize_features: whether the trunk's channels are standardised by constants measured on real images. They
            are scaled further, so that all of an image's features together have a norm of about 1.

    Raises:
        ValueError: there is no trunk, or it is too deep for such images.
    """

    def __init__(
        self,
        backbone: Backbone,
        *,
        resolution: int = 64,
        aspect: Sequence[int] = (1, 1),
        pool: int = 4,
        hidden: int = 1024,
        dropout: float = 0.5,
        standardize_features: bool = True,
    ) -> None:
        size = image_shape(resolution, aspect).size
        super().__init__(backbone, size=size, standardize_features=standardize_features)
        self.pool = pool
        inputs = sum(c * min(h, pool) * min(w, pool) for c, h, w in backbone.shapes(size))
        self.scale = inputs**-0.5 if standardize_features else 1.0
        self.head = nn.Sequential(
            nn.Linear(inputs, hidden),
            nn.LeakyReLU(0.2, inplace=True),
            nn.Dropout(dropout),
            nn.Linear(hidden, 1),
        )

    def features(self, images: Tensor) -> list[Tensor]:
        """Images (B, C, H, W) -> the output of the frozen blocks, pooled if that is all of the trunk."""
        state = super().features(images)
        return [self._pooled(m) for m in state] if self.frozen_blocks == self.blocks else state

    def score(self, features: list[Tensor], y: Tensor | None = None) -> Tensor:
        """The output of `features` -> logits (B, 1), float32. `y` is ignored."""
        maps = [
            ((m - mean.to(m.dtype)[:, None, None]) / std.to(m.dtype)[:, None, None]).flatten(1)
            for m, (mean, std) in zip(self.trunk_maps(features), self.feature_statistics(), strict=True)
        ]
        logits: Tensor = self.head(self.scale * torch.cat(maps, dim=1))
        return logits.float()

    def trunk_maps(self, features: list[Tensor]) -> list[Tensor]:
        """The output of the frozen blocks -> the trunk's feature maps, pooled."""
        return [self._pooled(m) for m in super().trunk_maps(features)]

    def _pooled(self, feature_map: Tensor) -> Tensor:
        height, width = (min(side, self.pool) for side in feature_map.shape[2:])
        pooled = feature_map.shape[2:] != (height, width)
        return F.adaptive_avg_pool2d(feature_map, (height, width)) if pooled else feature_map
