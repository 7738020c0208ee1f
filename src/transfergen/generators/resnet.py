"""The residual generator of SNGAN. Miyato 2018, arXiv:1802.05957, appendix B.4; WGAN-GP's before it."""

import math
from itertools import pairwise

from torch import Tensor, nn
from torch.nn import functional as F

from transfergen.generators.base import Generator
from transfergen.generators.upsampling import UpsampledConv2d

MULTIPLES = {
    32: (4, 4, 4, 4),
    64: (8, 8, 4, 2, 1),
    128: (16, 16, 8, 4, 2, 1),
    256: (16, 16, 8, 8, 4, 2, 1),
}
"""Channels at 4x4 and after each block, in units of `width`."""


class ResNet(Generator):
    """Latents (B, Z) ~ N(0, 1) -> images (B, 3, R, R) in [-1, 1].

    Linear to 4x4, residual blocks that double the size up to R, then batch normalisation, ReLU, convolution and tanh.
    With `width=64` the channels are those of the papers: 256 throughout at 32 px and 1024 down to 64 at 128 px (SNGAN),
    512 down to 64 at 64 px (WGAN-GP, arXiv:1704.00028), 1024 down to 64 at 256 px (BigGAN, arXiv:1809.11096).
    Weights start from Glorot's uniform distribution, with a gain of sqrt(2) on the residual branch, as in SNGAN's code.

    Deviation: convolutions but the last have no bias. The next batch normalisation would take it away again.

    Args:
        resolution: R, in pixels: 32, 64, 128 or 256.
        z_dim: Z, size of the latent.
        width: channels of the last block, from 64 px on; a quarter of all blocks' at 32 px.

    Raises:
        ValueError: R is none of the four.
    """

    def __init__(self, *, resolution: int = 64, z_dim: int = 128, width: int = 64) -> None:
        super().__init__()
        if resolution not in MULTIPLES:
            raise ValueError(
                f"the ResNet generator makes 32, 64, 128 or 256 px, not {resolution}; set data.resolution=64"
            )
        self.resolution, self.z_dim = resolution, z_dim
        widths = [multiple * width for multiple in MULTIPLES[resolution]]
        self.linear = nn.Linear(z_dim, widths[0] * 4 * 4)
        self.blocks = nn.Sequential(*(UpBlock(c_in, c_out) for c_in, c_out in pairwise(widths)))
        last = nn.Conv2d(widths[-1], 3, 3, padding=1)
        self.to_rgb = nn.Sequential(nn.BatchNorm2d(widths[-1]), nn.ReLU(inplace=True), last, nn.Tanh())
        for parameter in (*self.linear.parameters(), *last.parameters()):
            (nn.init.xavier_uniform_ if parameter.ndim > 1 else nn.init.zeros_)(parameter)

    def forward(self, z: Tensor, y: Tensor | None = None) -> Tensor:
        """Latents (B, Z) -> images (B, 3, R, R) in [-1, 1]. Unconditional: `y` is not looked at."""
        maps = self.linear(z).unflatten(1, (-1, 4, 4))
        images: Tensor = self.to_rgb(self.blocks(maps))
        return images


class UpBlock(nn.Module):
    """A residual block with normalisation and activation first: maps (B, C, h, w) -> (B, C', 2h, 2w)."""

    def __init__(self, c_in: int, c_out: int) -> None:
        super().__init__()
        first = UpsampledConv2d(c_in, c_out, bias=False)
        second = nn.Conv2d(c_out, c_out, 3, padding=1, bias=False)
        self.residual = nn.Sequential(
            *(nn.BatchNorm2d(c_in), nn.ReLU(inplace=True), first),
            *(nn.BatchNorm2d(c_out), nn.ReLU(inplace=True), second),
        )
        self.shortcut = nn.Conv2d(c_in, c_out, 1, bias=False)
        for convolution, gain in ((first, math.sqrt(2)), (second, math.sqrt(2)), (self.shortcut, 1)):
            nn.init.xavier_uniform_(convolution.weight, gain)

    def forward(self, maps: Tensor) -> Tensor:
        """Maps (B, C, h, w) -> (B, C', 2h, 2w)."""
        residual: Tensor = self.residual(maps)
        # A 1x1 convolution gives the same before upsampling as after it, for a quarter of the work.
        return residual + F.interpolate(self.shortcut(maps), scale_factor=2.0)
