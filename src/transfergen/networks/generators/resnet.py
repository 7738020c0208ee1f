"""The residual generator of WGAN-GP, SNGAN, SAGAN and BigGAN. Miyato 2018, arXiv:1802.05957, appendix B.4."""

import math
from collections.abc import Callable, Sequence
from functools import partial
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import parametrizations

from transfergen.networks.generators.base import Generator
from transfergen.networks.layers.attention import SelfAttention, check_attention
from transfergen.networks.layers.conditional_norm import ConditionalBatchNorm2d
from transfergen.networks.layers.resampling import UpsampledConv2d

MULTIPLES = {
    32: (4, 4, 4, 4),
    64: (8, 8, 4, 2, 1),
    128: (16, 16, 8, 4, 2, 1),
    256: (16, 16, 8, 8, 4, 2, 1),
}
"""Channels at 4x4 and after each block, in units of `width`."""


class ResNet(Generator):
    """Latents (B, Z) ~ N(0, 1), and classes (B,) where there are any -> images (B, 3, R, R) in [-1, 1].

    Linear to 4x4, residual blocks that double the size up to R, then batch normalisation, ReLU, convolution and tanh.
    With `width=64` the channels are those of the papers: 256 throughout at 32 px and 1024 down to 64 at 128 px (SNGAN),
    512 down to 64 at 64 px (WGAN-GP, arXiv:1704.00028), 1024 down to 64 at 256 px (BigGAN, arXiv:1809.11096).
    Weights start from Glorot's uniform distribution, with a gain of sqrt(2) on the residual branch, as in SNGAN's code.

    What is conditioned, on classes or on the latent, are the two batch normalisations of each block. As it stands this
    is SNGAN's; SAGAN (arXiv:1805.08318) adds self-attention and spectral normalisation; BigGAN also a shared embedding,
    a hierarchical latent and orthogonal weights.

    Deviations: convolutions but the last have no bias. The next batch normalisation would take it away again, unless
    self-attention comes first. Where a hierarchical latent does not divide evenly, some chunks are longer by one.

    Args:
        resolution: R, in pixels: 32, 64, 128 or 256.
        z_dim: Z, size of the latent.
        width: channels of the last block, from 64 px on; a quarter of all blocks' at 32 px.
        num_classes: 0: unconditional.
        attention: side of the maps that get self-attention, in pixels: 8, 16 and so on up to R; None: none do.
        spectral_norm: whether convolutions and linear maps have spectral normalisation. Embeddings never do.
        class_dim: size of a class embedding that all batch normalisations share; 0: each has a table of its own.
        hierarchical: split the latent in equal chunks, one for the linear layer and one for each block's conditions.
        orthogonal_init: weights start orthogonal.
        orthogonal: weight of the orthogonal regularization (arXiv:1809.11096, equation 3).

    Raises:
        ValueError: R is none of the four, or a setting that does not go with the others.
    """

    def __init__(
        self,
        *,
        resolution: int = 64,
        z_dim: int = 128,
        width: int = 64,
        num_classes: int = 0,
        attention: int | None = None,
        spectral_norm: bool = False,
        class_dim: int = 0,
        hierarchical: bool = False,
        orthogonal_init: bool = False,
        orthogonal: float = 0.0,
    ) -> None:
        super().__init__()
        if resolution not in MULTIPLES:
            raise ValueError(
                f"the ResNet generator makes 32, 64, 128 or 256 px, not {resolution}; set data.resolution=64"
            )
        widths = [multiple * width for multiple in MULTIPLES[resolution]]
        sizes = [4 * 2**i for i in range(len(widths))]
        check_attention("generator", attention, sizes[1:])
        if hierarchical and z_dim < len(widths):
            raise ValueError(f"generator.z_dim={z_dim} has no {len(widths)} chunks; set generator.z_dim=120")
        if hierarchical and num_classes and not class_dim:
            raise ValueError(
                "generator.hierarchical=true joins the latent to a class embedding; set generator.class_dim=128"
            )
        self.resolution, self.z_dim, self.num_classes = resolution, z_dim, num_classes
        self.attention_size, self.orthogonal = attention, orthogonal
        parts = len(widths) if hierarchical else 1
        self.chunks = [len(range(i, z_dim, parts)) for i in range(parts)]
        self.linear = nn.Linear(self.chunks[0], widths[0] * 4 * 4)
        shared = class_dim if num_classes else 0
        self.embedding = nn.Embedding(num_classes, class_dim) if shared else None
        dims = [shared + chunk for chunk in self.chunks[1:]] or [shared] * (len(widths) - 1)
        norms = [_normalization(num_classes, dim) for dim in dims]
        self.blocks = nn.Sequential(*(UpBlock(*pair, norm) for pair, norm in zip(pairwise(widths), norms, strict=True)))
        self.attention = SelfAttention(widths[sizes.index(attention)]) if attention else None
        last = nn.Conv2d(widths[-1], 3, 3, padding=1)
        self.to_rgb = nn.Sequential(nn.BatchNorm2d(widths[-1]), nn.ReLU(inplace=True), last, nn.Tanh())
        embedding = () if self.embedding is None else self.embedding.parameters()
        for parameter in (*self.linear.parameters(), *last.parameters(), *embedding):
            (nn.init.xavier_uniform_ if parameter.ndim > 1 else nn.init.zeros_)(parameter)
        for module in list(self.modules()):
            if orthogonal_init and isinstance(module, nn.Conv2d | nn.Linear | nn.Embedding):
                nn.init.orthogonal_(module.weight)
            if spectral_norm and isinstance(module, nn.Conv2d | nn.Linear):
                parametrizations.spectral_norm(module)

    def forward(self, z: Tensor, y: Tensor | None = None) -> Tensor:
        """Latents (B, Z), classes (B,) -> images (B, 3, R, R) in [-1, 1]. `y` is not looked at if unconditional."""
        start, conditions = self._conditions(z, y)
        maps = self.linear(start).unflatten(1, (-1, 4, 4))
        for block, condition in zip(self.blocks, conditions, strict=True):
            maps = block(maps, condition)
            if self.attention is not None and maps.shape[-1] == self.attention_size:
                maps = self.attention(maps)
        images: Tensor = self.to_rgb(maps)
        return images

    def regularization(self) -> Tensor | None:
        """What `orthogonal` asks for, over all weights but embeddings', as they are before spectral normalisation."""
        if not self.orthogonal:
            return None
        tables = {module.weight for module in self.modules() if isinstance(module, nn.Embedding)}
        weights = [weight for weight in self.parameters() if weight.ndim > 1 and weight not in tables]
        return self.orthogonal * torch.stack([orthogonality(weight) for weight in weights]).sum()

    def _conditions(self, z: Tensor, y: Tensor | None) -> tuple[Tensor, Sequence[Tensor | None]]:
        """What goes into the linear layer, and what conditions each block: None for nothing."""
        assert not self.num_classes or y is not None, "a conditional generator needs classes"
        condition = y if self.num_classes else None
        if self.embedding is not None:
            condition = self.embedding(y)
        start, *chunks = torch.split(z, self.chunks, dim=1)
        if not chunks:
            return start, [condition] * len(self.blocks)
        return start, chunks if condition is None else [torch.cat([condition, chunk], dim=1) for chunk in chunks]


class UpBlock(nn.Module):
    """A residual block with normalisation and activation first: maps (B, C, h, w) -> (B, C', 2h, 2w)."""

    def __init__(self, c_in: int, c_out: int, norm: Callable[[int], nn.Module]) -> None:
        super().__init__()
        first = UpsampledConv2d(c_in, c_out, bias=False)
        second = nn.Conv2d(c_out, c_out, 3, padding=1, bias=False)
        self.residual = nn.Sequential(
            *(norm(c_in), nn.ReLU(inplace=True), first),
            *(norm(c_out), nn.ReLU(inplace=True), second),
        )
        self.shortcut = nn.Conv2d(c_in, c_out, 1, bias=False)
        for convolution, gain in ((first, math.sqrt(2)), (second, math.sqrt(2)), (self.shortcut, 1)):
            nn.init.xavier_uniform_(convolution.weight, gain)

    def forward(self, maps: Tensor, condition: Tensor | None) -> Tensor:
        """Maps (B, C, h, w) and what its normalisations are conditioned on, if anything -> (B, C', 2h, 2w)."""
        residual = maps
        for layer in self.residual:
            residual = layer(residual, condition) if isinstance(layer, ConditionalBatchNorm2d) else layer(residual)
        # A 1x1 convolution gives the same before upsampling as after it, for a quarter of the work.
        return residual + F.interpolate(self.shortcut(maps), scale_factor=2.0)


def orthogonality(weight: Tensor) -> Tensor:
    """How far filters (N, ...) are from orthogonal to each other, whatever their norms, a scalar: 0 if they are.

    The sum of the squared products of all ordered pairs. Brock 2019, arXiv:1809.11096, equation 3, without beta.
    """
    with torch.autocast(weight.device.type, enabled=False):  # a small difference of large numbers
        filters = weight.flatten(1)
        # All squared products, pairs with themselves too, have the same sum in either order, so take the cheaper one.
        products = filters @ filters.T if len(filters) < filters.shape[1] else filters.T @ filters
        return products.square().sum() - filters.square().sum(1).square().sum()


def _normalization(num_classes: int, condition_dim: int) -> Callable[[int], nn.Module]:
    if condition_dim:
        return partial(ConditionalBatchNorm2d, condition_dim=condition_dim)
    return partial(ConditionalBatchNorm2d, num_classes=num_classes) if num_classes else nn.BatchNorm2d
