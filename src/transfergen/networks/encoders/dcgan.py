"""A convolutional encoder for variational autoencoders: the layers of DCGAN's discriminator with another output."""

from typing import cast

from torch import Tensor, nn

from transfergen.networks.discriminators.dcgan import DCGANDiscriminator


class DCGANEncoder(nn.Module):
    """Images (B, 3, R, R) in [-1, 1] -> mean and log-variance of a Gaussian over latents, (B, Z) each, float32.

    The layers are those of `DCGANDiscriminator`. The encoder of Kingma 2014, arXiv:1312.6114, appendix C.2, has one
    hidden layer.

    Args:
        resolution: R, in pixels: 32, 64, 128 or 256.
        z_dim: Z.
        width: channels of the first layer.

    Raises:
        ValueError: R is not one of these.
    """

    def __init__(self, *, resolution: int = 64, z_dim: int = 100, width: int = 64) -> None:
        super().__init__()
        self.z_dim = z_dim
        *layers, last = DCGANDiscriminator(resolution=resolution, width=width).layers
        self.layers = nn.Sequential(*layers, nn.Conv2d(cast(nn.Conv2d, last).in_channels, 2 * z_dim, 4))

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Images (B, 3, R, R) in [-1, 1] -> mean and log-variance, (B, Z) each."""
        mean, log_variance = self.layers(images).flatten(1).float().chunk(2, dim=1)
        return mean, log_variance
