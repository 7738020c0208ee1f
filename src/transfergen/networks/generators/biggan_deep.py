"""BigGAN-deep's generator. Brock 2019, arXiv:1809.11096, appendix B, figure 16 and tables 7 to 9."""

from collections.abc import Iterable, Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import parametrizations

from transfergen.networks.generators.base import latents
from transfergen.networks.generators.styles import StyledGenerator
from transfergen.networks.layers.attention import SelfAttention
from transfergen.networks.layers.class_embedding import ClassEmbedding
from transfergen.networks.layers.conditional_norm import ConditionalBatchNorm2d, ConditionalSequential
from transfergen.networks.layers.initialization import glorot_init
from transfergen.networks.layers.resampling import UpsampledConv2d
from transfergen.networks.layers.truncation_norm import TruncationBatchNorm2d, batch_norm
from transfergen.networks.resolutions import map_sizes

MULTIPLES = {
    128: (16, 16, 8, 4, 2, 1),
    256: (16, 16, 8, 8, 4, 2, 1),
    512: (16, 16, 8, 8, 4, 2, 1, 1),
}
"""By the resolution of square images: channels of the first maps and of each size after it, in units of `width`."""
ATTENTION = 8
"""Blocks before the self-attention, which is on maps of 64x64 where the images are squares."""
BOUND = 2.0
"""The normal distribution of truncated latents is cut off here, before it is scaled by the truncation."""


class BigGANDeep(StyledGenerator):
    """Latents (B, Z) ~ N(0, 1), and classes (B,) if it is conditional -> images (B, C, H, W) in [-1, 1].

    The latent and an embedding of the class, as one vector, lead by a linear layer to maps of 4x4, and set the gains
    and biases of all batch normalisations in the blocks. Each size up to R / 2 has two residual blocks with a
    bottleneck, of which the second doubles it; maps of 64x64 get self-attention. All convolutions and linear layers
    have spectral normalisation.

    It follows the graph of the released generators where that differs from the paper. The last convolution has `width`
    channels, of which the first C are the image. Truncated latents are those of a normal distribution truncated at
    2 deviations, times the truncation, and batch normalisation has statistics of its own for each truncation.

    Args:
        resolution: R, in pixels, the shorter side: 128, 256 or 512 for squares.
        aspect: width and height, as in (3, 2). All sizes of maps above are for squares; others have maps of their own
            aspect, the smallest as `first_map` says.
        image_channels: C: 1, 3 or 4.
        z_dim: Z, size of the latent.
        width: channels of the last block.
        num_classes: number of classes; 0: unconditional, with one learnt embedding for all images.
        class_dim: size of the embedding.
        eps: is added to the variance in batch normalisation.
        statistics: truncations, at equal distances from 0 to 1, for which batch normalisation keeps statistics; 0: it
            is an ordinary one. Training changes none of them, so they are for a generator that is only used.

    Raises:
        ValueError: there are no images of this shape (see `map_sizes`), or `width` is no multiple of 4.
    """

    def __init__(
        self,
        *,
        resolution: int = 128,
        aspect: Sequence[int] = (1, 1),
        image_channels: int = 3,
        z_dim: int = 128,
        width: int = 128,
        num_classes: int = 0,
        class_dim: int = 128,
        eps: float = 1e-4,
        statistics: int = 0,
    ) -> None:
        super().__init__()
        self.first, square = map_sizes(resolution, aspect, image_channels, squares=list(MULTIPLES))
        if width % 4:
            raise ValueError(f"width={width}: a quarter of it passes the bottlenecks; choose a multiple of 4")
        self.resolution, self.aspect, self.image_channels = resolution, aspect, image_channels
        self.z_dim, self.num_classes = z_dim, num_classes
        widths = [multiple * width for multiple in MULTIPLES[square]]
        condition_dim = z_dim + class_dim
        self.embedding = ClassEmbedding(max(1, num_classes), class_dim)
        self.linear = nn.Linear(condition_dim, widths[0] * self.first[0] * self.first[1])
        self.blocks = nn.Sequential(
            *(
                BottleneckBlock(c_in, out, condition_dim, doubled=doubled, eps=eps, statistics=statistics)
                for c_in, c_out in pairwise(widths)
                for out, doubled in ((c_in, False), (c_out, True))
            )
        )
        self.latent_blocks = len(self.blocks)
        self.attention = SelfAttention(widths[ATTENTION // 2])
        norm = batch_norm(width, eps=eps, statistics=statistics)
        last = LeadingConv2d(width, image_channels)
        self.to_rgb = nn.Sequential(norm, nn.ReLU(inplace=True), last, nn.Tanh())
        for layer in (self.embedding, self.linear, last):
            glorot_init(layer)
        for module in list(self.modules()):
            if isinstance(module, nn.Conv2d | nn.Linear):
                parametrizations.spectral_norm(module)

    def conditions(self, z: Tensor, y: Tensor | None = None) -> Sequence[Tensor]:
        """Latents (B, Z), classes (B,) -> both in one vector (B, D), for the linear layer and for each block."""
        assert not self.num_classes or y is not None, "a conditional generator needs classes"
        embedded = self.embedding(y) if self.num_classes else self.embedding.weight.expand(z.shape[0], -1)
        return [torch.cat([z, embedded], dim=1)] * (1 + len(self.blocks))

    def synthesize(self, conditions: Sequence[Tensor | None]) -> Tensor:
        """The output of `conditions` -> images (B, C, H, W) in [-1, 1]."""
        maps = self.linear(conditions[0]).unflatten(1, (*self.first, -1)).permute(0, 3, 1, 2)
        for i, (block, condition) in enumerate(zip(self.blocks, conditions[1:], strict=True)):
            if i == ATTENTION:
                maps = self.apply_block(self.attention, maps)
            maps = self.apply_block(block, maps, condition)
        return self.apply_block(self.to_rgb, maps)

    def stages(self) -> list[list[nn.Module]]:
        """The blocks, one of them with the self-attention and the last with the layers that make the pixels."""
        stages: list[list[nn.Module]] = [[block] for block in self.blocks]
        stages[ATTENTION - 1].append(self.attention)
        stages[-1].append(self.to_rgb)
        return stages

    def latent_weight(self) -> Tensor:
        """The weights (N, Z) of the linear layer, and of all layers that compute gains and biases."""
        norms = [module for module in self.modules() if isinstance(module, ConditionalBatchNorm2d)]
        layers = [self.linear, *(layer for norm in norms for layer in (norm.gain, norm.bias))]
        return torch.cat([layer.weight[:, : self.z_dim] for layer in layers])  # the class embedding comes after

    def latents(self, seeds: Iterable[int], truncation: float | None = None) -> Tensor:
        """Latents (number of seeds, Z), one for each seed.

        Args:
            seeds: one for each latent.
            truncation: draw from N(0, 1) truncated to [-2, 2], and multiply by this. None: draw from N(0, 1).
        """
        if truncation is None:
            return super().latents(seeds)
        return truncation * latents(seeds, self.z_dim, truncation=BOUND)

    def truncate(self, truncation: float | None) -> None:
        """Use the statistics of a truncation, if there are any, until the next call. None: the running statistics."""
        for module in self.modules():
            if isinstance(module, TruncationBatchNorm2d):
                module.truncation = truncation


class BottleneckBlock(nn.Module):
    """Maps (B, C, h, w) -> (B, C', h, w), or (B, C', 2h, 2w) if `doubled`; C' is at most C.

    The residual branch has a quarter of C channels inside. The shortcut takes the first C' channels as they are.
    """

    def __init__(
        self, c_in: int, c_out: int, condition_dim: int, *, doubled: bool, eps: float, statistics: int
    ) -> None:
        super().__init__()
        inner = c_in // 4
        convolutions = (
            nn.Conv2d(c_in, inner, 1),
            UpsampledConv2d(inner, inner) if doubled else nn.Conv2d(inner, inner, 3, padding=1),
            nn.Conv2d(inner, inner, 3, padding=1),
            nn.Conv2d(inner, c_out, 1),
        )
        self.residual = ConditionalSequential()
        for convolution in convolutions:
            norm = ConditionalBatchNorm2d(
                convolution.in_channels, condition_dim=condition_dim, eps=eps, statistics=statistics
            )
            glorot_init(convolution)
            self.residual.extend([norm, nn.ReLU(inplace=True), convolution])
        self.c_out, self.doubled = c_out, doubled

    def forward(self, maps: Tensor, condition: Tensor) -> Tensor:
        """Maps (B, C, h, w), vectors (B, D) -> (B, C', h, w) or (B, C', 2h, 2w)."""
        residual: Tensor = self.residual(maps, condition)
        shortcut = maps[:, : self.c_out]
        return residual + (F.interpolate(shortcut, scale_factor=2.0) if self.doubled else shortcut)


class LeadingConv2d(nn.Conv2d):
    """A convolution 3x3 from maps (B, W, h, w) to as many channels, of which only the first C are computed.

    The weights of the others only count in spectral normalisation, which divides by the largest singular value of all.
    """

    def __init__(self, width: int, computed: int) -> None:
        super().__init__(width, width, 3, padding=1)
        self.computed = computed

    def forward(self, maps: Tensor) -> Tensor:
        """Maps (B, W, h, w) -> (B, C, h, w)."""
        assert self.bias is not None
        return F.conv2d(maps, self.weight[: self.computed], self.bias[: self.computed], padding=self.padding)
