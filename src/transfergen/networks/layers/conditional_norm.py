"""Batch normalisation whose gain and bias depend on a class or on a vector. Dumoulin 2017, arXiv:1610.07629."""

import torch
from torch import Tensor, nn

from transfergen.networks.layers.class_embedding import ClassEmbedding
from transfergen.networks.layers.initialization import glorot_init
from transfergen.networks.layers.truncation_norm import batch_norm


class ConditionalBatchNorm2d(nn.Module):
    """Maps (B, C, h, w), and a class or a vector for each image -> the same shape.

    With classes (B,), a table holds a gain and a bias for each class, 1 and 0 at the start (SNGAN and SAGAN). With
    vectors (B, D), linear maps without bias give the gain minus 1, and the bias (BigGAN, arXiv:1809.11096, figure 15).

    Args:
        channels: C.
        num_classes: rows of the table; 0: the condition is a vector.
        condition_dim: D, size of the vector; 0: the condition is a class.
        eps: is added to the variance.
        statistics: see `batch_norm`.
    """

    def __init__(
        self,
        channels: int,
        *,
        num_classes: int = 0,
        condition_dim: int = 0,
        eps: float = 1e-5,
        statistics: int = 0,
    ) -> None:
        super().__init__()
        assert (num_classes == 0) != (condition_dim == 0)
        self.norm = batch_norm(channels, eps=eps, statistics=statistics, affine=False)
        self.gain, self.bias = (
            nn.Linear(condition_dim, channels, bias=False) if condition_dim else ClassEmbedding(num_classes, channels)
            for _ in range(2)
        )
        for layer in (self.gain, self.bias):
            if condition_dim:
                glorot_init(layer)
            else:
                nn.init.zeros_(layer.weight)

    def forward(self, maps: Tensor, condition: Tensor) -> Tensor:
        """Maps (B, C, h, w) and classes (B,) or vectors (B, D) -> (B, C, h, w)."""
        normed = self.norm(maps)
        gain, bias = (layer(condition).to(normed.dtype)[:, :, None, None] for layer in (self.gain, self.bias))
        return torch.addcmul(bias, normed, 1 + gain)


class ConditionalSequential(nn.Sequential):
    """Layers in a row, of which the conditional batch normalisations get the condition, too."""

    def forward(self, maps: Tensor, condition: Tensor | None = None) -> Tensor:
        """Maps (B, C, h, w) and, if there is a conditional layer, its condition -> maps."""
        for layer in self:
            maps = layer(maps, condition) if isinstance(layer, ConditionalBatchNorm2d) else layer(maps)
        return maps
