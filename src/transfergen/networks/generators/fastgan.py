"""The light generator with skip-layer excitation. Liu 2021, arXiv:2101.04775 (FastGAN)."""

from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor, nn

from transfergen.networks.generators.base import Generator
from transfergen.networks.layers.initialization import dcgan_init
from transfergen.networks.layers.resampling import ProjectAndReshape, UpsampledConv2d, WholeMapConv2d
from transfergen.networks.resolutions import map_sizes

MULTIPLES = {4: 16, 8: 8, 16: 4, 32: 2, 64: 2, 128: 1, 256: 0.5, 512: 0.25, 1024: 0.125}
"""Channels at each size of the maps for square images, in units of `width`."""


class FastGAN(Generator):
    """Latents (B, Z) ~ N(0, 1) -> images (B, C, H, W) in [-1, 1].

    A transposed convolution leads to maps of 4x4, and blocks double their size up to R: upsampling, convolution, batch
    normalisation and a gated linear unit, without biases. The blocks to 8, 32, 128 and 512 px have a second
    convolution, and add noise after each. Maps of 64 to 512 px are multiplied, channel by channel, by a skip-layer
    excitation of the maps a sixteenth of their size; where R is 32, the last maps by an excitation of the maps of 4 px.
    Weights start from N(0, 0.02), as in the authors' code.

    Deviations from the authors' code:

    - There are images of one size only, so that any discriminator can be used. Theirs are also made at 128 px.
    - Noise is drawn anew in training only. In eval mode it is a constant, as in StyleGAN, so that an image depends on
      nothing but its latent.
    - There is no spectral normalisation. Before batch normalisation it has no effect, which leaves the excitations and
      the last convolution, and the latter starts with the scale that spectral normalisation would give it.

    The generator in the code of Projected GAN (Sauer 2021, arXiv:2111.01007) has `width=128 second_convolutions=True
    hypersphere=True bounded=False`. It is for 128 px or more, and the deviations above hold for it, too. Its weights
    start from PyTorch's default distribution.

    Args:
        resolution: R, in pixels, the shorter side: 32, 64, 128, 256, 512 or 1024 for squares.
        aspect: width and height, as in (3, 2). All sizes of maps above are for squares; others have maps of their own
            aspect, the smallest as `first_map` says.
        image_channels: C: 1, 3 or 4.
        z_dim: Z, size of the latent.
        width: channels at 128 px; 16 times as many at 4 px, an eighth at 1024 px, but at least 1.
        second_convolutions: whether all blocks have a second convolution, and noise.
        hypersphere: whether latents are scaled to a root mean square of 1 first.
        bounded: whether the images come out of a tanh. Otherwise they may leave [-1, 1] in training, and are clipped to
            it in eval mode.

    Raises:
        ValueError: there are no images of this shape, see `map_sizes`.
    """

    def __init__(
        self,
        *,
        resolution: int = 64,
        aspect: Sequence[int] = (1, 1),
        image_channels: int = 3,
        z_dim: int = 256,
        width: int = 64,
        second_convolutions: bool = False,
        hypersphere: bool = False,
        bounded: bool = True,
    ) -> None:
        super().__init__()
        first, square = map_sizes(resolution, aspect, image_channels, squares=[32, 64, 128, 256, 512, 1024])
        self.resolution, self.aspect, self.image_channels, self.z_dim = resolution, aspect, image_channels, z_dim
        self.hypersphere, self.bounded = hypersphere, bounded
        channels = {size: max(1, int(multiple * width)) for size, multiple in MULTIPLES.items() if size <= square}
        self.start = nn.Sequential(ProjectAndReshape(z_dim, 2 * channels[4], first), *_gated(channels[4]))
        self.sizes = list(channels)
        self.blocks = nn.ModuleList(
            _block(
                channels[size // 2],
                channels[size],
                (first[0] * size // 4, first[1] * size // 4),
                second=second_convolutions or size in (8, 32, 128, 512),
            )
            for size in self.sizes[1:]
        )
        self.skips = {size: max(4, size // 16) for size in self.sizes if 64 <= size <= 512 or size == 32 == square}
        self.excitations = nn.ModuleDict(
            {str(size): Excitation(channels[low], channels[size], first) for size, low in self.skips.items()}
        )
        self.to_rgb = nn.Conv2d(channels[square], image_channels, 3, padding=1, bias=not bounded)
        self.apply(dcgan_init)
        nn.init.normal_(self.to_rgb.weight, std=self.to_rgb.weight[0].numel() ** -0.5)

    def forward(self, z: Tensor, y: Tensor | None = None) -> Tensor:
        """Latents (B, Z) -> images (B, C, H, W) in [-1, 1]. `y` is ignored."""
        if self.hypersphere:
            z = z * (z.square().mean(1, keepdim=True) + 1e-8).rsqrt()
        maps = self.start(z)
        maps_of_size = {4: maps}
        for size, block in zip(self.sizes[1:], self.blocks, strict=True):
            maps = self.apply_block(block, maps)
            if size in self.skips:
                maps = maps * self.excitations[str(size)](maps_of_size[self.skips[size]])
            maps_of_size[size] = maps
        images: Tensor = self.to_rgb(maps)
        if self.bounded:
            return images.tanh()
        return images if self.training else images.clamp(-1, 1)

    def stages(self) -> list[list[nn.Module]]:
        """The blocks, each with the excitation of its maps; the last makes the pixels, too."""
        stages: list[list[nn.Module]] = [[block] for block in self.blocks]
        for size, excitation in self.excitations.items():
            stages[int(size).bit_length() - 4].append(excitation)  # the first block's maps are 8x8
        stages[-1].append(self.to_rgb)
        return stages

    def latent_weight(self) -> Tensor:
        """The weight (N, Z) of the first transposed convolution."""
        return cast(ProjectAndReshape, self.start[0]).matrix()


class Excitation(nn.Module):
    """Maps (B, C, h, w) -> factors (B, C', 1, 1) in (0, 1) for the channels of larger maps.

    The maps are pooled to the size `first` of the smallest ones, of which h and w are multiples.
    """

    def __init__(self, c_in: int, c_out: int, first: tuple[int, int] = (4, 4)) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.AdaptiveAvgPool2d(first),
            WholeMapConv2d(c_in, c_out, first, bias=False),
            nn.SiLU(inplace=True),
            nn.Conv2d(c_out, c_out, 1, bias=False),
            nn.Sigmoid(),
        )

    def forward(self, maps: Tensor) -> Tensor:
        """Maps (B, C, h, w) -> factors (B, C', 1, 1)."""
        factors: Tensor = self.layers(maps)
        return factors


class Noise(nn.Module):
    """Maps (B, C, h, w) -> the same plus noise, one value a position, times a trained factor that starts from 0."""

    constant: Tensor

    def __init__(self, size: tuple[int, int]) -> None:
        super().__init__()
        self.factor = nn.Parameter(torch.zeros(()))
        self.register_buffer("constant", torch.randn(1, 1, *size))

    def forward(self, maps: Tensor) -> Tensor:
        """Maps (B, C, h, w) -> the same shape."""
        noise = torch.randn_like(maps[:, :1]) if self.training else self.constant
        return maps + (self.factor * noise).to(maps.dtype)


class GLU(nn.Module):
    """Maps (B, 2C, h, w) -> (B, C, h, w): the first half times the sigmoid of the second. arXiv:1612.08083.

    Equal to `nn.GLU(1)`, which takes twice the time on a CPU in channels_last.
    """

    def forward(self, maps: Tensor) -> Tensor:
        """Maps (B, 2C, h, w) -> (B, C, h, w)."""
        values, gates = maps.chunk(2, dim=1)
        return values * gates.sigmoid()


def _gated(channels: int) -> tuple[nn.Module, nn.Module]:
    return nn.BatchNorm2d(2 * channels), GLU()


def _block(c_in: int, c_out: int, size: tuple[int, int], *, second: bool) -> nn.Sequential:
    up = UpsampledConv2d(c_in, 2 * c_out, bias=False)
    if not second:
        return nn.Sequential(up, *_gated(c_out))
    convolution = nn.Conv2d(c_out, 2 * c_out, 3, padding=1, bias=False)
    return nn.Sequential(up, Noise(size), *_gated(c_out), convolution, Noise(size), *_gated(c_out))
