"""The convolutional discriminator of DCGAN, from scratch. Radford 2016, arXiv:1511.06434."""

from collections.abc import Iterator
from itertools import pairwise
from typing import Literal, get_args

from torch import Tensor, nn

from transfergen.networks.discriminators.base import Discriminator
from transfergen.networks.layers.resampling import WholeMapConv2d

Norm = Literal["batch", "layer", "none"]


class DCGANDiscriminator(Discriminator):
    """Images (B, 3, R, R) in [-1, 1] -> logits (B, 1); nothing in it is pretrained.

    Convolutions 4x4 of stride 2 down to 4x4, the first without and the others with normalisation, each with
    LeakyReLU 0.2; then one convolution over all that is left. The widths double from `width` and never pass 8 `width`.
    Weights start as torch has them, and not from N(0, 0.02) as in the paper.

    Args:
        resolution: R, in pixels: 32, 64, 128 or 256.
        width: channels of the first layer.
        norm: `batch`, `layer` or `none`. `layer` is over all channels and positions of an image, with a gain and a bias
            a channel. A gradient penalty is meant for single images, which `batch` does not judge one by one
            (WGAN-GP, arXiv:1704.00028, section 4).
        joint_batchnorm: whether `batch` normalises reals and fakes as one batch, rather than each on its own.

    Raises:
        ValueError: R is none of the four, or an unknown normalisation.
    """

    def __init__(
        self, *, resolution: int = 64, width: int = 64, norm: Norm = "batch", joint_batchnorm: bool = False
    ) -> None:
        super().__init__()
        self.joint_batchnorm = joint_batchnorm
        if resolution not in (32, 64, 128, 256):
            raise ValueError(
                f"the DCGAN discriminator takes 32, 64, 128 or 256 px, not {resolution}; set data.resolution=64"
            )
        if norm not in get_args(Norm):
            raise ValueError(f"discriminator.norm={norm}: choose one of {', '.join(get_args(Norm))}")
        layers: list[nn.Module] = [nn.Conv2d(3, width, 4, 2, 1), nn.LeakyReLU(0.2)]
        channels = width
        for i in range(1, resolution.bit_length() - 3):  # from R / 2 to 4 px
            c_in, channels = channels, width * min(8, 2**i)
            layers.append(nn.Conv2d(c_in, channels, 4, 2, 1, bias=norm != "batch"))  # which would take it away again
            if norm != "none":
                layers.append(nn.BatchNorm2d(channels) if norm == "batch" else nn.GroupNorm(1, channels))
            layers.append(nn.LeakyReLU(0.2))
        self.layers = nn.Sequential(*layers, WholeMapConv2d(channels, 1, 4))

    def score(self, features: list[Tensor], y: Tensor | None = None) -> Tensor:
        """Images, as a list of one -> logits (B, 1)."""
        logits: Tensor = self.layers(features[0])
        return logits.flatten(1).float()

    def networks(self) -> Iterator[nn.Module]:
        """All of it."""
        yield self.layers

    def lowest_layers(self) -> list[nn.Module]:
        """Each convolution but the last, with what follows it."""
        starts = [i for i, layer in enumerate(self.layers) if isinstance(layer, nn.Conv2d)]
        return [self.layers[start:end] for start, end in pairwise(starts)]
