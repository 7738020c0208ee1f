"""A pretrained trunk with one fully connected head: the discriminator of experiment=tutorial."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from transfergen.networks.backbones.base import Backbone
from transfergen.networks.discriminators.trunk import TrunkDiscriminator


class SingleHeadDiscriminator(TrunkDiscriminator):
    """Images (B, 3, R, R) in [-1, 1] -> logits (B, 1).

    Every feature map of the trunk is average-pooled to `pool` x `pool` if it is larger. The maps are flattened and
    concatenated; Linear, LeakyReLU 0.2, Dropout and Linear follow. The sizes with VGG19 cut at pool4 and 64 px are
    512x4x4 = 8192 -> 1024 -> 1.

    Args:
        backbone: the trunk.
        resolution: R, in pixels.
        pool: the side, in positions, to which larger feature maps are pooled.
        hidden: width of the hidden layer.
        dropout: probability of dropping a hidden unit.
        standardize_features: whether the trunk's channels are standardised by constants measured on real images. They
            are scaled further, so that all of an image's features together have a norm of about 1.

    Raises:
        ValueError: there is no trunk, or it is too deep for R.
    """

    def __init__(
        self,
        backbone: Backbone,
        *,
        resolution: int = 64,
        pool: int = 4,
        hidden: int = 1024,
        dropout: float = 0.5,
        standardize_features: bool = True,
    ) -> None:
        super().__init__(backbone, resolution=resolution, standardize_features=standardize_features)
        self.pool = pool
        inputs = sum(c * min(h, pool) * min(w, pool) for c, h, w in backbone.shapes(resolution))
        self.scale = inputs**-0.5 if standardize_features else 1.0
        self.head = nn.Sequential(
            nn.Linear(inputs, hidden),
            nn.LeakyReLU(0.2, inplace=True),
            nn.Dropout(dropout),
            nn.Linear(hidden, 1),
        )

    def features(self, images: Tensor) -> list[Tensor]:
        """Images (B, 3, R, R) -> the output of the frozen blocks, pooled if that is all of the trunk."""
        state = super().features(images)
        return [self._pooled(m) for m in state] if self.frozen_blocks == self.blocks else state

    def score(self, features: list[Tensor], y: Tensor | None = None) -> Tensor:
        """The output of `features` -> logits (B, 1), float32. `y` is ignored."""
        maps = [m.flatten(1) for m in self.standardized_maps(features)]
        logits: Tensor = self.head(self.scale * torch.cat(maps, dim=1))
        return logits.float()

    def trunk_maps(self, features: list[Tensor]) -> list[Tensor]:
        """The output of the frozen blocks -> the trunk's feature maps, pooled."""
        return [self._pooled(m) for m in super().trunk_maps(features)]

    def _pooled(self, feature_map: Tensor) -> Tensor:
        return F.adaptive_avg_pool2d(feature_map, self.pool) if feature_map.shape[-1] > self.pool else feature_map
