"""The convolutional discriminator of DCGAN, from scratch. Radford 2016, arXiv:1511.06434."""

from collections.abc import Sequence
from itertools import pairwise
from typing import Literal, get_args

from torch import Tensor, nn

from transfergen.networks.discriminators.base import Discriminator
from transfergen.networks.layers.resampling import WholeMapConv2d
from transfergen.networks.resolutions import map_sizes

Norm = Literal["batch", "layer", "none"]


class DCGANDiscriminator(Discriminator):
    """Images (B, C, H, W) in [-1, 1] -> logits (B, 1), with nothing pretrained.

    Convolutions 4x4 of stride 2 lead down to maps of 4x4, each followed by LeakyReLU 0.2 and all but the first by
    normalisation; a last convolution over the whole map gives the logit. The number of channels doubles from `width` up
    to 8 `width`. Weights have PyTorch's default initialisation, unlike the paper's N(0, 0.02).

    Args:
        resolution: R, in pixels, the shorter side: 32, 64, 128 or 256 for squares.
        aspect: width and height, as in (3, 2). All sizes of maps above are for squares; others have maps of their own
            aspect, the smallest as `first_map` says.
        image_channels: C: 1, 3 or 4.
        width: channels of the first layer.
        norm: `batch`, `layer` or `none`. `layer` normalises over all channels and positions of an image, with a gain
            and a bias for each channel. A gradient penalty needs a logit that depends on one image alone, which `batch`
            does not give (WGAN-GP, arXiv:1704.00028, section 4).
        joint_batchnorm: whether `batch` normalises reals and fakes as one batch instead of separately.

    Raises:
        ValueError: there are no images of this shape (see `map_sizes`), or no such normalisation.
    """

    def __init__(
        self,
        *,
        resolution: int = 64,
        aspect: Sequence[int] = (1, 1),
        image_channels: int = 3,
        width: int = 64,
        norm: Norm = "batch",
        joint_batchnorm: bool = False,
    ) -> None:
        super().__init__()
        self.image_channels, self.joint_batchnorm = image_channels, joint_batchnorm
        first, square = map_sizes(resolution, aspect, image_channels)
        if norm not in get_args(Norm):
            raise ValueError(f"norm={norm}: choose one of {', '.join(get_args(Norm))}")
        layers: list[nn.Module] = [nn.Conv2d(image_channels, width, 4, 2, 1), nn.LeakyReLU(0.2)]
        channels = width
        for i in range(1, square.bit_length() - 3):  # from R / 2 to the smallest maps
            c_in, channels = channels, width * min(8, 2**i)
            layers.append(nn.Conv2d(c_in, channels, 4, 2, 1, bias=norm != "batch"))  # batch norm removes a bias
            if norm != "none":
                layers.append(nn.BatchNorm2d(channels) if norm == "batch" else nn.GroupNorm(1, channels))
            layers.append(nn.LeakyReLU(0.2))
        self.layers = nn.Sequential(*layers, WholeMapConv2d(channels, 1, first))

    def score(self, features: list[Tensor], y: Tensor | None = None) -> Tensor:
        """A list of one tensor, the images (B, C, H, W) -> logits (B, 1). `y` is ignored."""
        logits: Tensor = self.layers(features[0])
        return logits.flatten(1).float()

    def lowest_layers(self) -> list[nn.Module]:
        """Each convolution but the last, with its normalisation and activation."""
        starts = [i for i, layer in enumerate(self.layers) if isinstance(layer, nn.Conv2d)]
        return [self.layers[start:end] for start, end in pairwise(starts)]
