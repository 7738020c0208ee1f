"""The discriminator of StyleGAN-T: heads on a vision transformer's tokens. Sauer 2023, arXiv:2301.09515."""

from collections.abc import Sequence

from torch import Tensor, nn

from transfergen.image_shape import image_shape
from transfergen.networks.backbones.base import Backbone
from transfergen.networks.discriminators.heads import TokenHead
from transfergen.networks.discriminators.trunk import MultiHeadDiscriminator


class StyleGANTDiscriminator(MultiHeadDiscriminator):
    """Images (B, C, H, W) in [-1, 1] -> logits (B, N), one for each token at each tap of the trunk.

    Each tap has a `TokenHead`. On `backbones.vit.ViT` with its defaults, which are DINO's ViT-S/16 with five taps of
    images of 224 px, it is that of the authors' code (section 3.2): 5 heads of 196 logits, 7.4 million parameters.
    Deviations:

    - It is not conditional. Theirs can also compare tokens with an embedded text.
    - Images are enlarged by bilinear interpolation, theirs by repeating pixels; those of more than 224 px are reduced,
      and theirs cropped half of the time.
    - The convolutions before the normalisations have no biases, which these would remove.
    - The trunk may train.

    Args:
        backbone: the trunk. Each position of its maps is a token, row by row; other trunks than transformers fit, too.
        resolution: R, in pixels, the shorter side.
        aspect: width and height, as in (3, 2).

    Raises:
        ValueError: there is no trunk, or it is too deep for such images.
    """

    def __init__(self, backbone: Backbone, *, resolution: int = 64, aspect: Sequence[int] = (1, 1)) -> None:
        size = image_shape(resolution, aspect).size
        super().__init__(backbone, size=size, standardize_features=False)
        self.heads = nn.ModuleList(TokenHead(c, h * w) for c, h, w in backbone.shapes(size))

    def maps(self, features: list[Tensor]) -> list[Tensor]:
        """The output of the frozen blocks -> the tokens (B, C, L) of each tap."""
        return [m.flatten(2) for m in self.trunk_maps(features)]
