"""Convolutions that are computed as the matrix products that they are, where that is faster."""

from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

MOST_POSITIONS = 8
"""Of a batch's maps, for each of their channels: gathering patches of more takes longer than torch's gradients."""


class WholeMapConv2d(nn.Conv2d):
    """`Conv2d` without padding: over maps of its kernel's size in a third of the time, over others as usual."""

    def _conv_forward(self, input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        if input.shape[2:] != weight.shape[2:]:
            return F.conv2d(input, weight, bias)
        return F.linear(_flat(input), _flat(weight), bias)[:, :, None, None]


class DoublingConv2d(nn.ConvTranspose2d):
    """Maps (B, C, h, w) -> (B, C', 2h, 2w): a transposed convolution 4x4 of stride 2, see `doubled`."""

    def __init__(self, in_channels: int, out_channels: int, *, bias: bool = True) -> None:
        super().__init__(in_channels, out_channels, 4, stride=2, padding=1, bias=bias)

    def forward(self, maps: Tensor, output_size: list[int] | None = None) -> Tensor:
        """Maps (B, C, h, w) -> (B, C', 2h, 2w)."""
        return doubled(maps, self.weight, self.bias)


def doubled(maps: Tensor, kernel: Tensor, bias: Tensor | None = None) -> Tensor:
    """`conv_transpose2d(maps, kernel, bias, stride=2, padding=1)` with a kernel (C, C', 4, 4).

    On a CPU the gradients of small maps with many channels are two products with patches of the incoming gradient:
    torch's own, with respect to the kernel, takes up to eight times as long there (`benchmarks/cpu_kernels.py`).
    """
    b, c, h, w = maps.shape
    learns = torch.is_grad_enabled() and not torch.compiler.is_exporting()  # whose batches may have any size
    if not learns or maps.device.type != "cpu" or b * h * w > MOST_POSITIONS * c:
        return F.conv_transpose2d(maps, kernel, bias, stride=2, padding=1)
    if torch.is_autocast_enabled("cpu"):
        maps, kernel = (x.to(torch.get_autocast_dtype("cpu")) for x in (maps, kernel))
    images = cast(Tensor, _Doubling.apply(maps, kernel))
    return images if bias is None else images + bias.to(images.dtype)[:, None, None]


class _Doubling(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, maps: Tensor, kernel: Tensor) -> Tensor:
        ctx.save_for_backward(maps, kernel)
        return F.conv_transpose2d(maps, kernel, stride=2, padding=1)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, Tensor | None]:
        """Its steps can be differentiated once more."""
        (gradient,), (maps, kernel) = gradients, ctx.saved_tensors
        (b, c, h, w), c_out = maps.shape, kernel.shape[1]
        padded = F.pad(gradient.contiguous(memory_format=torch.channels_last), (1, 1, 1, 1)).permute(0, 2, 3, 1)
        patches = padded.unfold(1, 4, 2).unfold(2, 4, 2).permute(0, 1, 2, 4, 5, 3).reshape(b * h * w, 16 * c_out)
        of_maps = of_kernel = None
        if ctx.needs_input_grad[0]:
            of_maps = (patches @ _flat(kernel).mT).view(b, h, w, c).permute(0, 3, 1, 2)
        if ctx.needs_input_grad[1]:
            rows = maps.permute(0, 2, 3, 1).reshape(-1, c)
            of_kernel = (rows.mT @ patches).view(c, 4, 4, c_out).permute(0, 3, 1, 2)
        return of_maps, of_kernel


def _flat(x: Tensor) -> Tensor:
    """(N, C, h, w) -> (N, h w C), which is a view of what is channels_last."""
    return x.permute(0, 2, 3, 1).flatten(1)


class ProjectAndReshape(nn.ConvTranspose2d):
    """Latents (B, Z) -> maps (B, C, 4, 4): the transposed convolution 4x4 of one pixel, without a bias.

    It is computed as the matrix product that it is. Compiled for a GPU, the backward pass of the convolution fails on
    weights that are channels_last (torch 2.11).
    """

    def __init__(self, z_dim: int, channels: int) -> None:
        super().__init__(z_dim, channels, 4, bias=False)

    def forward(self, z: Tensor, output_size: list[int] | None = None) -> Tensor:
        """Latents (B, Z) -> maps (B, C, 4, 4)."""
        return (z @ self.weight.flatten(1)).view(-1, self.out_channels, 4, 4)


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


class DownsampledConv2d(nn.Conv2d):
    """Maps (B, C, h, w), h and w even -> (B, C', h / 2, w / 2): the same as `Conv2d(C, C', 3)`, then average pooling.

    The average of four shifted kernels 3x3 is one kernel 4x4, with 4 multiplications where there were 9. What
    UpsampledConv2d is to upsampling; the weight stays 3x3.
    """

    def forward(self, maps: Tensor) -> Tensor:
        """Maps (B, C, h, w) -> (B, C', h / 2, w / 2)."""
        return F.conv2d(maps, F.avg_pool2d(self.weight, 2, stride=1, padding=1), self.bias, stride=2, padding=1)
