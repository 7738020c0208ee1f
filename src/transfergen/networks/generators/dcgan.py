"""The fully convolutional generator of DCGAN. Radford 2016, arXiv:1511.06434."""

from collections.abc import Sequence
from typing import cast

from torch import Tensor, nn

from transfergen.networks.generators.base import Generator
from transfergen.networks.layers.initialization import dcgan_init
from transfergen.networks.layers.low_pass import LowPass
from transfergen.networks.layers.resampling import ConvTranspose2x, ProjectAndReshape
from transfergen.networks.resolutions import map_sizes


class DCGAN(Generator):
    """Latents (B, Z) ~ N(0, 1) -> images (B, C, H, W) in [-1, 1].

    Transposed convolutions 4x4 lead to maps of 4x4 and double their size up to R. All but the last are followed by
    batch normalisation and ReLU; none has a bias. The number of channels halves with each layer down to `width`, and is
    at most `8 * width`: 512, 256, 128, 64 where R is 64. Weights start from N(0, 0.02), as in the paper.

    Args:
        resolution: R, in pixels, the shorter side: 32, 64, 128 or 256 for squares.
        aspect: width and height, as in (3, 2). All sizes of maps above are for squares; others have maps of their own
            aspect, the smallest as `first_map` says.
        image_channels: C: 1, 3 or 4.
        z_dim: Z, size of the latent.
        width: channels of the last hidden layer.
        low_pass: whether the last transposed convolution's output is smoothed before the tanh, so that no pattern
            alternates from pixel to pixel.

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
        low_pass: bool = False,
    ) -> None:
        super().__init__()
        first, square = map_sizes(resolution, aspect, image_channels)
        self.resolution, self.aspect, self.image_channels, self.z_dim = resolution, aspect, image_channels, z_dim
        doublings = square.bit_length() - 3  # from the first maps to the image
        widths = [min(8, 2**i) * width for i in reversed(range(doublings))]
        layers: list[nn.Module] = []
        for i, (c_in, c_out) in enumerate(zip([z_dim, *widths], widths, strict=False)):
            convolution = ConvTranspose2x(c_in, c_out, bias=False) if i else ProjectAndReshape(c_in, c_out, first)
            layers += [convolution, nn.BatchNorm2d(c_out), nn.ReLU(inplace=True)]
        layers.append(ConvTranspose2x(widths[-1], image_channels, bias=False))
        layers += [LowPass(), nn.Tanh()] if low_pass else [nn.Tanh()]
        self.layers = nn.Sequential(*layers)
        self.apply(dcgan_init)

    def forward(self, z: Tensor, y: Tensor | None = None) -> Tensor:
        """Latents (B, Z) -> images (B, C, H, W) in [-1, 1]. `y` is ignored."""
        blocks = [self.layers[:3], *(block for (block,) in self.stages())] if self.checkpointing else [self.layers]
        maps = z
        for block in blocks:
            maps = self.apply_block(block, maps)
        return maps

    def stages(self) -> list[list[nn.Module]]:
        """The transposed convolutions after the first, each with its batch normalisation or the tanh."""
        return [[self.layers[i : i + 3]] for i in range(3, len(self.layers), 3)]

    def latent_weight(self) -> Tensor:
        """The weight (N, Z) of the first transposed convolution."""
        return cast(ProjectAndReshape, self.layers[0]).matrix()
