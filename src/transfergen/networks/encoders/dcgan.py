"""A convolutional encoder for variational autoencoders: the layers of DCGAN's discriminator with another output."""

from collections.abc import Sequence
from typing import cast

from torch import Tensor, nn

from transfergen.networks.discriminators.dcgan import DCGANDiscriminator


class DCGANEncoder(nn.Module):
    """Images (B, C, H, W) in [-1, 1] -> mean and log-variance of a Gaussian over latents, (B, Z) each, float32.

    The layers are those of `DCGANDiscriminator`. The encoder of Kingma 2014, arXiv:1312.6114, appendix C.2, has one
    hidden layer.

    Args:
        resolution: R, in pixels, the shorter side: 32, 64, 128 or 256 for squares.
        aspect: width and height, as in (3, 2).
        image_channels: C: 1, 3 or 4.
        z_dim: Z.
        width: channels of the first layer.

    Raises:
        ValueError: there are no images of this shape, see `map_sizes`.
    """

    def __init__(
        self,
        *,
        resolution: int = 64,
        aspect: Sequence[int] = (1, 1),
        image_channels: int = 3,
        z_dim: int = 100,
        width: int = 64,
    ) -> None:
        super().__init__()
        self.z_dim = z_dim
        like = DCGANDiscriminator(resolution=resolution, aspect=aspect, image_channels=image_channels, width=width)
        *layers, last = like.layers
        channels, *kernel = cast(nn.Conv2d, last).weight.shape[1:]
        self.layers = nn.Sequential(*layers, nn.Conv2d(channels, 2 * z_dim, (kernel[0], kernel[1])))

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Images (B, C, H, W) in [-1, 1] -> mean and log-variance, (B, Z) each."""
        mean, log_variance = self.layers(images).flatten(1).float().chunk(2, dim=1)
        return mean, log_variance
