"""Batch normalisation with statistics of its own for each truncation of the latents. Brock 2019, arXiv:1809.11096."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F


def batch_norm(channels: int, *, eps: float, statistics: int = 0, affine: bool = True) -> nn.BatchNorm2d:
    """An ordinary batch normalisation; with `statistics`, one that has that many rows of them for truncations."""
    if statistics:
        return TruncationBatchNorm2d(channels, eps=eps, statistics=statistics, affine=affine)
    return nn.BatchNorm2d(channels, eps=eps, affine=affine)


class TruncationBatchNorm2d(nn.BatchNorm2d):
    """Maps (B, C, h, w) -> the same shape: in eval mode, and under a truncation, by the statistics of that truncation.

    Otherwise it is an ordinary batch normalisation, and training changes its running statistics alone.

    Args:
        channels: C.
        eps: is added to the variance.
        statistics: N, rows of `means` and `variances` (N, C), for truncations at equal distances from 0 to 1.
        affine: whether it has gains and biases.

    Attributes:
        truncation: of the latents; None: not truncated.
    """

    def __init__(self, channels: int, *, eps: float, statistics: int, affine: bool = True) -> None:
        super().__init__(channels, eps=eps, affine=affine)
        self.means: Tensor
        self.variances: Tensor
        self.register_buffer("means", torch.zeros(statistics, channels))
        self.register_buffer("variances", torch.ones(statistics, channels))
        self.truncation: float | None = None

    def forward(self, maps: Tensor) -> Tensor:
        """Maps (B, C, h, w) -> (B, C, h, w)."""
        if self.training or self.truncation is None:
            return super().forward(maps)
        mean, variance = (interpolate_rows(table, self.truncation) for table in (self.means, self.variances))
        return F.batch_norm(maps, mean, variance, self.weight, self.bias, eps=self.eps)


def interpolate_rows(table: Tensor, truncation: float) -> Tensor:
    """A table (N, C) for truncations from 0 to 1 -> its row at this truncation, (C,); above 1 it is the last."""
    position = min(truncation, 1.0) * (len(table) - 1)
    below = int(position)
    above = min(below + 1, len(table) - 1)
    return torch.lerp(table[below], table[above], position - below)
