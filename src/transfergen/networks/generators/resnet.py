"""The residual generator of WGAN-GP, SNGAN, SAGAN and BigGAN. Miyato 2018, arXiv:1802.05957, appendix B.4."""

import math
from collections.abc import Callable, Sequence
from functools import partial
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import parametrizations

from transfergen.devices import full_float32
from transfergen.networks.generators.styles import StyledGenerator
from transfergen.networks.layers.attention import SelfAttention, check_attention
from transfergen.networks.layers.class_embedding import ClassEmbedding
from transfergen.networks.layers.conditional_norm import ConditionalBatchNorm2d, ConditionalSequential
from transfergen.networks.layers.initialization import glorot_init
from transfergen.networks.layers.resampling import UpsampledConv2d
from transfergen.networks.resolutions import map_sizes

MULTIPLES = {
    32: (4, 4, 4, 4),
    64: (8, 8, 4, 2, 1),
    128: (16, 16, 8, 4, 2, 1),
    256: (16, 16, 8, 8, 4, 2, 1),
}
"""By the resolution of square images: channels of the first maps and after each block, in units of `width`."""


class ResNet(StyledGenerator):
    """Latents (B, Z) ~ N(0, 1), and classes (B,) if it is conditional -> images (B, C, H, W) in [-1, 1].

    A linear layer leads to maps of 4x4, residual blocks double their size up to R, and batch normalisation, ReLU, a
    convolution and tanh follow. With `width=64` the channels are those of the papers: 256 throughout at 32 px and 1024
    down to 64 at 128 px (SNGAN), 512 down to 64 at 64 px (WGAN-GP, arXiv:1704.00028), 1024 down to 64 at 256 px
    (BigGAN, arXiv:1809.11096). Weights start from Glorot's uniform distribution, with a gain of sqrt(2) on the residual
    branch, as in SNGAN's code.

    Classes, or a hierarchical latent, set the gains and biases of the two batch normalisations in each block. With the
    defaults this is SNGAN's generator. SAGAN (arXiv:1805.08318) adds self-attention and spectral normalisation, and
    BigGAN also a shared class embedding, a hierarchical latent and orthogonal weights.

    Deviations: only the last convolution has a bias, since batch normalisation follows all others and would remove it
    (except where self-attention comes between). Where the latent does not divide evenly into chunks, some chunks have
    one number more.

    Args:
        resolution: R, in pixels, the shorter side: 32, 64, 128 or 256 for squares.
        aspect: width and height, as in (3, 2). All sizes of maps above are for squares; others have maps of their own
            aspect, the smallest as `first_map` says.
        image_channels: C: 1, 3 or 4.
        z_dim: Z, size of the latent.
        width: channels of the last block, from 64 px on; a quarter of all blocks' at 32 px.
        num_classes: number of classes; 0: unconditional.
        attention: side of the maps that get self-attention, in pixels: 8, 16 and so on up to R; None: no maps.
        spectral_norm: whether convolutions and linear layers have spectral normalisation. Embeddings never have it.
        class_dim: size of the class embedding that all batch normalisations share; 0: each has its own table of gains
            and biases.
        hierarchical: split the latent into equal chunks, one for the linear layer and one for each block.
        orthogonal_init: start with orthogonal weights instead.
        orthogonal: weight of the orthogonal regularization (arXiv:1809.11096, equation 3).
        multiples: channels at 4x4 and after each block, in units of `width`; None: those of the papers.
        bias: whether all convolutions have a bias, as in the codes of BigGAN-PyTorch and StudioGAN.
        eps: is added to the variance in batch normalisation.

    Raises:
        ValueError: there are no images of this shape (see `map_sizes`), no maps are of the size `attention`,
            `multiples` are too many or too few, or a hierarchical latent has too few numbers or no class embedding to
            be joined to.
    """

    def __init__(
        self,
        *,
        resolution: int = 64,
        aspect: Sequence[int] = (1, 1),
        image_channels: int = 3,
        z_dim: int = 128,
        width: int = 64,
        num_classes: int = 0,
        attention: int | None = None,
        spectral_norm: bool = False,
        class_dim: int = 0,
        hierarchical: bool = False,
        orthogonal_init: bool = False,
        orthogonal: float = 0.0,
        multiples: Sequence[int] | None = None,
        bias: bool = False,
        eps: float = 1e-5,
    ) -> None:
        super().__init__()
        first, square = map_sizes(resolution, aspect, image_channels)
        multiples = multiples or MULTIPLES[square]
        if len(multiples) != len(MULTIPLES[square]):
            raise ValueError(f"multiples={list(multiples)}: give {len(MULTIPLES[square])} for {resolution} px")
        widths = [multiple * width for multiple in multiples]
        sizes = [4 * 2**i for i in range(len(widths))]
        check_attention(attention, sizes[1:])
        if hierarchical and z_dim < len(widths):
            raise ValueError(f"z_dim={z_dim}: a hierarchical latent has {len(widths)} chunks; choose 120, say")
        if hierarchical and num_classes and not class_dim:
            raise ValueError("class_dim=0: a hierarchical latent is joined to a class embedding; choose 128, say")
        self.resolution, self.aspect, self.image_channels = resolution, aspect, image_channels
        self.z_dim, self.num_classes, self.orthogonal = z_dim, num_classes, orthogonal
        self.first, self.attention_block = first, sizes.index(attention) - 1 if attention else None
        parts = len(widths) if hierarchical else 1
        self.chunks = [len(range(i, z_dim, parts)) for i in range(parts)]
        self.latent_blocks = parts - 1
        self.linear = nn.Linear(self.chunks[0], widths[0] * first[0] * first[1])
        shared = class_dim if num_classes else 0
        self.embedding = ClassEmbedding(num_classes, class_dim) if shared else None
        dims = [shared + chunk for chunk in self.chunks[1:]] or [shared] * (len(widths) - 1)
        norms = [_normalization(num_classes, dim, eps) for dim in dims]
        pairs = zip(pairwise(widths), norms, strict=True)
        self.blocks = nn.Sequential(*(UpBlock(*pair, norm, bias=bias) for pair, norm in pairs))
        self.attention = SelfAttention(widths[sizes.index(attention)]) if attention else None
        last = nn.Conv2d(widths[-1], image_channels, 3, padding=1)
        self.to_rgb = nn.Sequential(nn.BatchNorm2d(widths[-1], eps=eps), nn.ReLU(inplace=True), last, nn.Tanh())
        for layer in (self.linear, last, self.embedding):
            if layer is not None:
                glorot_init(layer)
        for module in list(self.modules()):
            if orthogonal_init and isinstance(module, nn.Conv2d | nn.Linear | nn.Embedding):
                nn.init.orthogonal_(module.weight)
            if spectral_norm and isinstance(module, nn.Conv2d | nn.Linear):
                parametrizations.spectral_norm(module)

    def conditions(self, z: Tensor, y: Tensor | None = None) -> Sequence[Tensor | None]:
        """The input of the linear layer, and for each block the class or vector that conditions it, or None."""
        assert not self.num_classes or y is not None, "a conditional generator needs classes"
        condition = y if self.num_classes else None
        if self.embedding is not None:
            condition = self.embedding(y)
        start, *chunks = torch.split(z, self.chunks, dim=1)
        if not chunks:
            return [start, *[condition] * len(self.blocks)]
        return [start, *(chunk if condition is None else torch.cat([condition, chunk], dim=1) for chunk in chunks)]

    def synthesize(self, conditions: Sequence[Tensor | None]) -> Tensor:
        """The output of `conditions` -> images (B, C, H, W) in [-1, 1]."""
        maps = self.linear(conditions[0]).unflatten(1, (-1, *self.first))
        for i, (block, condition) in enumerate(zip(self.blocks, conditions[1:], strict=True)):
            maps = self.apply_block(block, maps, condition)
            if self.attention is not None and i == self.attention_block:
                maps = self.apply_block(self.attention, maps)
        return self.apply_block(self.to_rgb, maps)

    def stages(self) -> list[list[nn.Module]]:
        """The residual blocks, one with the self-attention, the last with the layers that make the pixels."""
        stages: list[list[nn.Module]] = [[block] for block in self.blocks]
        if self.attention is not None:
            assert self.attention_block is not None
            stages[self.attention_block].append(self.attention)
        stages[-1].append(self.to_rgb)
        return stages

    def regularization(self) -> Tensor | None:
        """The weighted sum of `orthogonality` over all weights that train, before spectral normalisation.

        Embeddings are left out. None without a weighting factor, or where no such weight trains.
        """
        if not self.orthogonal:
            return None
        tables = {p for module in self.modules() if isinstance(module, nn.Embedding) for p in module.parameters()}
        weights = [w for w in self.parameters() if w.ndim > 1 and w.requires_grad and w not in tables]
        terms = [orthogonality(weight) for weight in weights]
        return self.orthogonal * torch.stack(terms).sum() if terms else None

    def latent_weight(self) -> Tensor:
        """The weight (N, Z) of the linear layer; of a hierarchical latent, each chunk has the rows of its layers."""
        parts = [self.linear.weight]
        for block, chunk in zip(self.blocks, self.chunks[1:], strict=False):  # of one chunk, there is no more
            norms = [module for module in block.modules() if isinstance(module, ConditionalBatchNorm2d)]
            weights = [layer.weight for norm in norms for layer in (norm.gain, norm.bias)]
            parts.append(torch.cat(weights)[:, -chunk:])  # the class embedding comes before
        whole: Tensor = torch.block_diag(*parts)  # type: ignore[no-untyped-call]
        return whole


class UpBlock(nn.Module):
    """Maps (B, C, h, w) -> (B, C', 2h, 2w): a residual block with normalisation and activation before convolution."""

    def __init__(self, c_in: int, c_out: int, norm: Callable[[int], nn.Module], *, bias: bool) -> None:
        super().__init__()
        first = UpsampledConv2d(c_in, c_out, bias=bias)
        second = nn.Conv2d(c_out, c_out, 3, padding=1, bias=bias)
        self.residual = ConditionalSequential(
            *(norm(c_in), nn.ReLU(inplace=True), first),
            *(norm(c_out), nn.ReLU(inplace=True), second),
        )
        self.shortcut = nn.Conv2d(c_in, c_out, 1, bias=bias)
        for convolution, gain in ((first, math.sqrt(2)), (second, math.sqrt(2)), (self.shortcut, 1)):
            glorot_init(convolution, gain)

    def forward(self, maps: Tensor, condition: Tensor | None) -> Tensor:
        """Maps (B, C, h, w), and classes (B,) or vectors (B, D) if it is conditional -> (B, C', 2h, 2w)."""
        residual: Tensor = self.residual(maps, condition)
        # A 1x1 convolution gives the same before upsampling as after it, for a quarter of the work.
        return residual + F.interpolate(self.shortcut(maps), scale_factor=2.0)


def orthogonality(weight: Tensor) -> Tensor:
    """Sum of the squared dot products of all ordered pairs of different filters (N, ...), a scalar; 0: all orthogonal.

    Brock 2019, arXiv:1809.11096, equation 3, without the factor beta.
    """
    with torch.autocast(weight.device.type, enabled=False), full_float32():  # a small difference of large numbers
        filters = weight.flatten(1)
        # The Frobenius norms of A A^T and A^T A are equal, so take the smaller matrix.
        products = filters @ filters.T if len(filters) < filters.shape[1] else filters.T @ filters
        return products.square().sum() - filters.square().sum(1).square().sum()


def _normalization(num_classes: int, condition_dim: int, eps: float) -> Callable[[int], nn.Module]:
    """A function that builds the batch normalisation of some channels: conditional on vectors or classes, or plain."""
    if condition_dim:
        return partial(ConditionalBatchNorm2d, condition_dim=condition_dim, eps=eps)
    if num_classes:
        return partial(ConditionalBatchNorm2d, num_classes=num_classes, eps=eps)
    return partial(nn.BatchNorm2d, eps=eps)
