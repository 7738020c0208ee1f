"""The fully convolutional generator of DCGAN. Radford 2016, arXiv:1511.06434."""

from torch import Tensor, nn

from transfergen.networks.generators.base import Generator
from transfergen.networks.layers.resampling import DoublingConv2d, ProjectAndReshape


class DCGAN(Generator):
    """Latents (B, Z) ~ N(0, 1) -> images (B, 3, R, R) in [-1, 1].

    Transposed convolutions 4x4 from 4x4 up to R, each but the last with batch normalisation and ReLU, without biases.
    The widths halve from layer to layer down to `width`, and never pass `8 * width`: 512, 256, 128, 64 at 64 px.
    Weights start from N(0, 0.02), as in the paper.

    Args:
        resolution: R, in pixels: 32, 64, 128 or 256.
        z_dim: Z, size of the latent.
        width: channels of the last hidden layer.

    Raises:
        ValueError: R is none of the four.
    """

    def __init__(self, *, resolution: int = 64, z_dim: int = 100, width: int = 64) -> None:
        super().__init__()
        if resolution not in (32, 64, 128, 256):
            raise ValueError(
                f"the DCGAN generator makes 32, 64, 128 or 256 px, not {resolution}; set data.resolution=64"
            )
        self.resolution, self.z_dim = resolution, z_dim
        doublings = resolution.bit_length() - 3  # from 4 px to R
        widths = [min(8, 2**i) * width for i in reversed(range(doublings))]
        layers: list[nn.Module] = []
        for i, (c_in, c_out) in enumerate(zip([z_dim, *widths], widths, strict=False)):
            doubled = DoublingConv2d(c_in, c_out, bias=False) if i else ProjectAndReshape(c_in, c_out)
            layers += [doubled, nn.BatchNorm2d(c_out), nn.ReLU(inplace=True)]
        layers += [DoublingConv2d(widths[-1], 3, bias=False), nn.Tanh()]
        self.layers = nn.Sequential(*layers)
        self.apply(_paper_init)

    def forward(self, z: Tensor, y: Tensor | None = None) -> Tensor:
        """Latents (B, Z) -> images (B, 3, R, R) in [-1, 1]. Unconditional: `y` is not looked at."""
        images: Tensor = self.layers(z)
        return images


def _paper_init(module: nn.Module) -> None:
    if isinstance(module, nn.ConvTranspose2d):
        nn.init.normal_(module.weight, std=0.02)
    elif isinstance(module, nn.BatchNorm2d):
        nn.init.normal_(module.weight, mean=1.0, std=0.02)
