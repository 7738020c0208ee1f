"""A pretrained trunk such as VGG19, with fully connected heads at several depths."""

from collections.abc import Sequence

from torch import Tensor, nn

from transfergen.image_shape import image_shape
from transfergen.networks.backbones.base import Backbone
from transfergen.networks.discriminators.heads import FullyConnectedHead, Statistics
from transfergen.networks.discriminators.trunk import MultiHeadDiscriminator


class VGGDiscriminator(MultiHeadDiscriminator):
    """Images (B, C, H, W) in [-1, 1] -> logits (B, N), one a head.

    Each tap of the trunk has a head of its own: convolutions of stride 2 down to 4x4 positions, then two fully
    connected layers. Shallow taps see textures and edges, deep ones things. One more head looks at the pixels
    themselves, where the generator's finest patterns show: a trunk pretrained on photographs hardly answers to a
    dither from pixel to pixel, and without that head samples have one.

    Heads on several frozen scales: Sauer 2021, arXiv:2111.01007. Here nothing is projected at random, the heads end in
    fully connected layers, and the trunk may be fine-tuned.

    Args:
        backbone: the trunk.
        resolution: R, in pixels, the shorter side.
        aspect: width and height, as in (3, 2).
        image_channels: C: 1, 3 or 4. The head on the pixels sees all of them.
        width: channels of the heads' convolutions.
        hidden: width of the hidden fully connected layer.
        pixels: whether there is a head on the pixels.
        standardize_features: whether the trunk's channels are standardised by constants measured on real images.
        joint_batchnorm: whether the heads normalise reals and fakes as one batch, so that they see how their means
            differ.

    Raises:
        ValueError: no trunk, or one too deep for such images.
    """

    def __init__(
        self,
        backbone: Backbone,
        *,
        resolution: int = 64,
        aspect: Sequence[int] = (1, 1),
        image_channels: int = 3,
        width: int = 64,
        hidden: int = 256,
        pixels: bool = True,
        standardize_features: bool = True,
        joint_batchnorm: bool = True,
    ) -> None:
        size = image_shape(resolution, aspect).size
        super().__init__(backbone, size=size, standardize_features=standardize_features)
        self.image_channels = image_channels if pixels else None
        self.pixels, self.joint_batchnorm = pixels, joint_batchnorm
        seen = [(image_channels, *size)] if pixels else []
        seen += backbone.shapes(size)
        self.heads = nn.ModuleList(FullyConnectedHead(c, (h, w), width=width, hidden=hidden) for c, h, w in seen)

    def features(self, images: Tensor) -> list[Tensor]:
        """Images (B, C, H, W) -> the images, if a head looks at them, and the output of the frozen blocks."""
        state = super().features(images)
        return [images, *state] if self.pixels and self.frozen_blocks else state

    def maps(self, features: list[Tensor]) -> list[Tensor]:
        """The output of `features` -> the images, if a head looks at them, and the trunk's maps."""
        if not self.pixels:
            return self.trunk_maps(features)
        return [features[0], *self.trunk_maps(features[1:] if self.frozen_blocks else features)]

    def statistics(self) -> Sequence[Statistics | None]:
        """The statistics by which each head standardises its maps; None: it takes them as they are."""
        if not self.standardize_features:
            return super().statistics()
        return [None, *self.feature_statistics()] if self.pixels else self.feature_statistics()
