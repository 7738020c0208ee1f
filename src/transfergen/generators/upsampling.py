"""Upsampling as generators do it: to the nearest neighbour, then a 3x3 convolution."""

from torch import Tensor, nn
from torch.nn import functional as F

from transfergen.convolutions import doubled


class UpsampledConv2d(nn.Conv2d):
    """Maps (B, C, h, w) -> (B, C', 2h, 2w): the same as upsampling to the nearest neighbour and `Conv2d(C, C', 3)`.

    After upsampling, two of the kernel's three rows and columns fall on the same value, so their weights can be added
    first. What is left is a transposed convolution 4x4 with stride 2, with 4 multiplications where there were 9.
    Karras 2018, arXiv:1710.10196, has it in its code ("fused scale"). The weight stays 3x3.
    """

    def __init__(self, in_channels: int, out_channels: int, *, bias: bool = True) -> None:
        super().__init__(in_channels, out_channels, 3, padding=1, bias=bias)

    def forward(self, maps: Tensor) -> Tensor:
        """Maps (B, C, h, w) -> (B, C', 2h, 2w)."""
        # Sums over windows of 2x2. A transposed convolution has its kernel mirrored and its channels swapped.
        kernel = 4 * F.avg_pool2d(self.weight.flip(2, 3), 2, stride=1, padding=1)
        return doubled(maps, kernel.transpose(0, 1), self.bias)
