"""The reference discriminator: a pretrained trunk and a fully connected head."""

from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from transfergen.networks.acceleration.folding import fuse_activations
from transfergen.networks.acceleration.frozen_conv import set_frozen
from transfergen.networks.backbones.base import Backbone
from transfergen.networks.discriminators.base import Discriminator, channel_statistics, check_backbone


class VGGDiscriminator(Discriminator):
    """Images (B, 3, R, R) in [-1, 1] -> logits (B, 1).

    Every feature map of the trunk, average-pooled to `pool` x `pool` where it is larger, is flattened and joined; then
    Linear, LeakyReLU 0.2, Dropout, Linear. With VGG19 cut at pool4 and 64 px: 512x4x4 = 8192 -> 1024 -> 1.

    Two things keep the game going that the plain head loses by collapse, and each can be turned off.

    `calibrate`, called once before training, measures the mean and the standard deviation of each of the trunk's
    channels on real images, and the head sees channels of mean 0, scaled so that all of an image's features together
    have a norm of about 1. These are constants: they change where the head starts and how fast it learns, and not what
    it can express.

    One image does not show that all fakes are alike. So the deviation of each channel over the batch goes through a
    small head of its own, whose one logit is added. Karras 2018, arXiv:1710.10196, section 3, has one value for all
    channels, as one more input.

    Args:
        backbone: the trunk.
        resolution: R, in pixels.
        pool: the side, in positions, to which larger feature maps are pooled.
        hidden: width of the head.
        dropout: probability of dropping a hidden unit.
        batch_std: whether there is a head for the deviation over the batch.
        standardize_features: whether `calibrate` does anything.

    Raises:
        ValueError: no trunk, or one too deep for R.
    """

    feature_mean: Tensor
    feature_std: Tensor

    def __init__(
        self,
        backbone: Backbone,
        *,
        resolution: int = 64,
        pool: int = 4,
        hidden: int = 1024,
        dropout: float = 0.5,
        batch_std: bool = True,
        standardize_features: bool = True,
    ) -> None:
        super().__init__()
        check_backbone(backbone)
        fuse_activations(backbone, resolution)
        self.backbone = backbone
        self.backbones = (backbone,)
        self.blocks = len(backbone.blocks)
        self.pool = pool
        self.standardize_features = standardize_features
        self.register_buffer("feature_mean", torch.zeros(sum(backbone.channels)))
        self.register_buffer("feature_std", torch.ones(sum(backbone.channels)))
        inputs = sum(c * min(h, pool) * min(w, pool) for c, h, w in backbone.shapes(resolution))
        self.inputs = inputs
        self.head = nn.Sequential(
            nn.Linear(inputs, hidden),
            nn.LeakyReLU(0.2, inplace=True),
            nn.Dropout(dropout),
            nn.Linear(hidden, 1),
        )
        self.batch_head = (
            nn.Sequential(nn.Linear(sum(backbone.channels), 64), nn.LeakyReLU(0.2), nn.Linear(64, 1))
            if batch_std
            else None
        )

    def freeze(self, blocks: int) -> None:
        """Freeze the trunk's first `blocks` blocks and let the others train."""
        self.frozen_blocks = blocks
        for i, block in enumerate(self.backbone.blocks):
            block.requires_grad_(i >= blocks)
            set_frozen(block, i < blocks)
        self.train(self.training)

    def train(self, mode: bool = True) -> "VGGDiscriminator":
        """As usual, but frozen blocks stay in eval mode."""
        super().train(mode)
        for block in self.backbone.blocks[: self.frozen_blocks]:
            block.eval()
        return self

    @torch.no_grad()
    def calibrate(self, images: Tensor) -> None:
        """Real images (B, 3, R, R) in [-1, 1]: the head sees channels that are standardised on them from now on."""
        if self.standardize_features:
            was_training = self.training
            self.eval()  # the running statistics of a trunk with batch norm stay as they are
            means, stds = channel_statistics(lambda part: self._maps(self.features(part)), images)
            self.train(was_training)
            self.feature_mean.copy_(torch.cat(means))
            self.feature_std.copy_(torch.cat(stds) * self.inputs**0.5)  # a norm of 1 over all inputs

    def trainable_parameters(self) -> Iterator[nn.Parameter]:
        """Parameters of the head and of the blocks that are not frozen."""
        for block in self.backbone.blocks[self.frozen_blocks :]:
            yield from block.parameters()
        yield from self.head.parameters()
        if self.batch_head is not None:
            yield from self.batch_head.parameters()

    def features(self, images: Tensor) -> list[Tensor]:
        """The frozen prefix: images (B, 3, R, R) -> what `score` takes; the images themselves if nothing is frozen."""
        state = self.backbone.prefix(images, self.frozen_blocks)
        if self.frozen_blocks == self.blocks:
            state = [self._pooled(feature_map) for feature_map in state]
        return state

    def score(self, features: list[Tensor], y: Tensor | None = None) -> Tensor:
        """The trainable suffix: what `features` gave -> logits (B, 1), float32."""
        maps = self._maps(features)
        means, stds = (torch.split(t, list(self.backbone.channels)) for t in (self.feature_mean, self.feature_std))
        scaled = [
            (m - mean[:, None, None]) / std[:, None, None] for m, mean, std in zip(maps, means, stds, strict=True)
        ]
        logits: Tensor = self.head(torch.cat([m.flatten(1) for m in scaled], dim=1))
        if self.batch_head is not None:
            deviations = [(self.inputs * m.var(dim=0, unbiased=False) + 1e-6).sqrt().mean(dim=(1, 2)) for m in scaled]
            logits = logits + self.batch_head(torch.cat(deviations))
        return logits.float()

    def networks(self) -> Iterator[nn.Module]:
        """The trunk's blocks and the head."""
        yield from (*self.backbone.blocks, self.head)

    def _maps(self, features: list[Tensor]) -> list[Tensor]:
        return [self._pooled(feature_map) for feature_map in self.backbone.suffix(features, self.frozen_blocks)]

    def _pooled(self, feature_map: Tensor) -> Tensor:
        return F.adaptive_avg_pool2d(feature_map, self.pool) if feature_map.shape[-1] > self.pool else feature_map
