"""A low-pass filter."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class LowPass(nn.Module):
    """Smooths each channel with weights of 1/4, 1/2 and 1/4 along both sides; edges are mirrored.

    A pattern that alternates from pixel to pixel vanishes, and coarse ones hardly change. Zhang 2019, arXiv:1904.11486,
    has such filters in front of each downsampling.
    """

    kernel: Tensor

    def __init__(self) -> None:
        super().__init__()
        weights = torch.tensor([0.25, 0.5, 0.25])
        self.register_buffer("kernel", torch.outer(weights, weights), persistent=False)  # made here, since a GPU waits

    def forward(self, maps: Tensor) -> Tensor:
        """Maps (B, C, h, w), h and w at least 2 -> maps (B, C, h, w)."""
        kernel = self.kernel.to(maps.dtype).expand(maps.shape[1], 1, 3, 3)
        return F.conv2d(F.pad(maps, (1, 1, 1, 1), mode="reflect"), kernel, groups=maps.shape[1])
