"""The residual discriminator of SNGAN, SAGAN and BigGAN. Miyato 2018, arXiv:1802.05957, appendix B.4."""

import math
from collections.abc import Sequence
from itertools import pairwise

from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import parametrizations

from transfergen.networks.discriminators.base import Discriminator
from transfergen.networks.layers.attention import SelfAttention, check_attention
from transfergen.networks.layers.initialization import glorot_init
from transfergen.networks.layers.resampling import DownsampledConv2d
from transfergen.networks.resolutions import map_sizes

MULTIPLES = {
    32: (2, 2, 2, 2),
    64: (1, 2, 4, 8, 16),
    128: (1, 2, 4, 8, 16, 16),
    256: (1, 2, 4, 8, 8, 16, 16),
}
"""By the resolution of square images: channels after each block, in units of `width`."""


class ResNetDiscriminator(Discriminator):
    """Images (B, C, H, W) in [-1, 1], and classes (B,) if it is conditional -> logits (B, 1), with nothing pretrained.

    Residual blocks without normalisation halve the size of the maps down to 4x4 (8x8 where R is 32), and one more block
    (two where R is 32) keeps it. Then come ReLU, a sum or mean over positions, and a linear layer. If it is
    conditional, the dot product of that sum or mean with an embedding of the class is added to the logit: the
    projection discriminator (Miyato 2018, arXiv:1802.05637, equation 3). With `width=64` the channels are SNGAN's: 128
    throughout at 32 px and 64 up to 1024 at 128 px; those at 64 and 256 px are BigGAN's (arXiv:1809.11096). Weights
    start from Glorot's uniform distribution, with a gain of sqrt(2) on the residual branch, as in SNGAN's code.

    With the defaults this is SNGAN's discriminator. SAGAN (arXiv:1805.08318) and BigGAN add self-attention, and
    WGAN-GP (arXiv:1704.00028) has no spectral normalisation. A block's first convolution changes the number of
    channels, as in those three; in SNGAN it is the second.

    Args:
        resolution: R, in pixels, the shorter side: 32, 64, 128 or 256 for squares.
        aspect: width and height, as in (3, 2). All sizes of maps above are for squares; others have maps of their own
            aspect, the smallest as `first_map` says.
        image_channels: C: 1, 3 or 4.
        width: channels of the first block, from 64 px on; half of all blocks' at 32 px.
        num_classes: number of classes; 0: unconditional.
        attention: side of the maps that get self-attention, in pixels: R / 2, R / 4 and so on; None: no maps.
        spectral_norm: whether all weights have spectral normalisation. If so, positions are summed, as in SNGAN;
            otherwise averaged, as in WGAN-GP.
        orthogonal_init: start with orthogonal weights instead.

    Raises:
        ValueError: there are no images of this shape (see `map_sizes`), or no maps are of the size `attention`.
    """

    def __init__(
        self,
        *,
        resolution: int = 64,
        aspect: Sequence[int] = (1, 1),
        image_channels: int = 3,
        width: int = 64,
        num_classes: int = 0,
        attention: int | None = None,
        spectral_norm: bool = True,
        orthogonal_init: bool = False,
    ) -> None:
        super().__init__()
        _, square = map_sizes(resolution, aspect, image_channels)
        widths = [multiple * width for multiple in MULTIPLES[square]]
        halvings = 2 if square == 32 else len(widths) - 1
        sizes = [square >> i for i in range(1, halvings + 1)]
        check_attention(attention, sizes)
        self.image_channels, self.num_classes, self.summed = image_channels, num_classes, spectral_norm
        layers: list[nn.Module] = []
        for i, (c_in, c_out) in enumerate(pairwise([image_channels, *widths])):
            layers.append(DownBlock(c_in, c_out, halved=i < halvings, first=i == 0))
            if i < halvings and sizes[i] == attention:
                layers.append(SelfAttention(c_out))
        self.layers = nn.Sequential(*layers, nn.ReLU(inplace=True))
        self.linear = nn.Linear(widths[-1], 1)
        self.embedding = nn.Embedding(num_classes, widths[-1]) if num_classes else None
        for layer in (self.linear, self.embedding):
            if layer is not None:
                glorot_init(layer)
        for module in list(self.modules()):
            if isinstance(module, nn.Conv2d | nn.Linear | nn.Embedding):
                if orthogonal_init:
                    nn.init.orthogonal_(module.weight)
                if spectral_norm:
                    parametrizations.spectral_norm(module)

    def score(self, features: list[Tensor], y: Tensor | None = None) -> Tensor:
        """A list of one tensor, the images (B, C, H, W), and classes (B,) if it is conditional -> logits (B, 1)."""
        maps: Tensor = self.layers(features[0])
        vectors = maps.sum(dim=(2, 3)) if self.summed else maps.mean(dim=(2, 3))
        logits: Tensor = self.linear(vectors)
        if self.embedding is not None:
            assert y is not None, "a conditional discriminator needs classes"
            embedded: Tensor = self.embedding(y)
            logits = logits + (embedded * vectors).sum(dim=1, keepdim=True)
        return logits.float()

    def lowest_layers(self) -> list[nn.Module]:
        """The residual blocks, and the self-attention between them."""
        return list(self.layers[:-1])


class DownBlock(nn.Module):
    """Maps (B, C, h, w) -> (B, C', h / 2, w / 2), or (B, C', h, w) unless `halved`: a residual block.

    Activations come before convolutions, except that the `first` block, whose input is the image, starts without.
    """

    def __init__(self, c_in: int, c_out: int, *, halved: bool, first: bool) -> None:
        super().__init__()
        self.residual = nn.Sequential(
            *([] if first else [nn.ReLU()]),  # not in place: the shortcut takes the same maps
            nn.Conv2d(c_in, c_out, 3, padding=1),
            nn.ReLU(inplace=True),
            (DownsampledConv2d if halved else nn.Conv2d)(c_out, c_out, 3, padding=1),
        )
        self.halved = halved
        self.shortcut = nn.Conv2d(c_in, c_out, 1) if halved or c_in != c_out else nn.Identity()
        glorot_init(self.residual, math.sqrt(2))
        glorot_init(self.shortcut)

    def forward(self, maps: Tensor) -> Tensor:
        """Maps (B, C, h, w) -> (B, C', h / 2, w / 2), or (B, C', h, w)."""
        residual: Tensor = self.residual(maps)
        # Pooling before a 1x1 convolution gives the same as pooling after it, for a quarter of the work.
        shortcut: Tensor = self.shortcut(F.avg_pool2d(maps, 2) if self.halved else maps)
        return residual + shortcut
