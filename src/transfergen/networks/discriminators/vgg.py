"""The discriminator of `model=vgg_disc`: a pretrained trunk, seen at several depths, and fully connected heads."""

from typing import cast

import torch
from torch import Tensor, nn

from transfergen.networks.backbones.base import Backbone
from transfergen.networks.discriminators.heads import FullyConnectedHead
from transfergen.networks.discriminators.trunk import TrunkDiscriminator


class VGGDiscriminator(TrunkDiscriminator):
    """Images (B, 3, R, R) in [-1, 1] -> logits (B, N), one a head.

    Each tap of the trunk has a head of its own: convolutions of stride 2 down to 4x4 positions, then two fully
    connected layers. Shallow taps see textures and edges, deep ones things. One more head looks at the pixels
    themselves, where the generator's finest patterns show: a trunk pretrained on photographs hardly answers to a
    dither from pixel to pixel, and without that head samples have one.

    Heads on several frozen scales: Sauer 2021, arXiv:2111.01007. Here nothing is projected at random, the heads end in
    fully connected layers, and the trunk may be fine-tuned.

    Args:
        backbone: the trunk.
        resolution: R, in pixels.
        width: channels of the heads' convolutions.
        hidden: width of the hidden fully connected layer.
        pixels: whether there is a head on the pixels.
        standardize_features: whether the trunk's channels are standardised by constants measured on real images.
        joint_batchnorm: whether the heads normalise reals and fakes as one batch, so that they see how their means
            differ.

    Raises:
        ValueError: no trunk, or one too deep for R.
    """

    def __init__(
        self,
        backbone: Backbone,
        *,
        resolution: int = 64,
        width: int = 64,
        hidden: int = 256,
        pixels: bool = True,
        standardize_features: bool = True,
        joint_batchnorm: bool = True,
    ) -> None:
        super().__init__(backbone, resolution=resolution, standardize_features=standardize_features)
        self.pixels, self.joint_batchnorm = pixels, joint_batchnorm
        seen = [(3, resolution)] if pixels else []
        seen += [(channels, size) for channels, size, _ in backbone.shapes(resolution)]
        self.heads = nn.ModuleList(FullyConnectedHead(c, size, width=width, hidden=hidden) for c, size in seen)

    @property
    def num_logits(self) -> int:
        """N."""
        return len(self.heads)

    def features(self, images: Tensor) -> list[Tensor]:
        """Images (B, 3, R, R) -> the images, if a head looks at them, and the output of the frozen blocks."""
        state = super().features(images)
        return [images, *state] if self.pixels and self.frozen_blocks else state

    def score(self, features: list[Tensor], y: Tensor | None = None) -> Tensor:
        """What `features` gave -> logits (B, N), float32."""
        maps = self._maps(features)
        return torch.cat([head(m).float() for head, m in zip(self.heads, maps, strict=True)], dim=1)

    def score_jointly(self, real: list[Tensor], fake: list[Tensor], y: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """`score` of as many reals and fakes as one batch. With a frozen trunk, reals get no gradient on the way."""
        if self.frozen_blocks < self.blocks or not any(m.requires_grad for m in fake):
            return super().score_jointly(real, fake, y)
        maps = zip(self.heads, self._maps(real), self._maps(fake), strict=True)
        logits = torch.cat([head(theirs, ours).float() for head, ours, theirs in maps], dim=1)
        return cast(tuple[Tensor, Tensor], logits.chunk(2))

    def _maps(self, features: list[Tensor]) -> list[Tensor]:
        """What each head looks at."""
        if not self.pixels:
            return self.standardized_maps(features)
        return [features[0], *self.standardized_maps(features[1:] if self.frozen_blocks else features)]
