"""Convolutions that change the size of maps, in cheaper forms that compute the same."""

from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

MOST_POSITIONS = 8
"""Positions in all maps of a batch per channel, up to which gathering patches is faster than torch's own gradients."""


class WholeMapConv2d(nn.Conv2d):
    """`Conv2d` without padding. Where the maps have the kernel's size, a matrix product takes a third of the time."""

    def _conv_forward(self, input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        if input.shape[2:] != weight.shape[2:]:
            return F.conv2d(input, weight, bias)
        return F.linear(_flatten(input), _flatten(weight), bias)[:, :, None, None]


class ConvTranspose2x(nn.ConvTranspose2d):
    """Maps (B, C, h, w) -> (B, C', 2h, 2w): the transposed convolution 4x4 of stride 2, by `conv_transpose_2x`."""

    def __init__(self, in_channels: int, out_channels: int, *, bias: bool = True) -> None:
        super().__init__(in_channels, out_channels, 4, stride=2, padding=1, bias=bias)

    def forward(self, maps: Tensor, output_size: list[int] | None = None) -> Tensor:
        """Maps (B, C, h, w) -> (B, C', 2h, 2w)."""
        return conv_transpose_2x(maps, self.weight, self.bias)


def conv_transpose_2x(maps: Tensor, kernel: Tensor, bias: Tensor | None = None) -> Tensor:
    """`F.conv_transpose2d(maps, kernel, bias, stride=2, padding=1)`, with faster gradients on a CPU.

    For small maps of many channels, both gradients are matrix products with patches of the incoming gradient. torch's
    own gradient of the kernel takes up to eight times as long there (`benchmarks/cpu_kernels.py`).

    Args:
        maps: (B, C, h, w).
        kernel: (C, C', 4, 4).
        bias: (C',).

    Returns:
        Maps (B, C', 2h, 2w).
    """
    b, c, h, w = maps.shape
    needs_gradients = torch.is_grad_enabled() and not torch.compiler.is_exporting()  # an export has no batch size
    if not needs_gradients or maps.device.type != "cpu" or b * h * w > MOST_POSITIONS * c:
        return F.conv_transpose2d(maps, kernel, bias, stride=2, padding=1)
    if torch.is_autocast_enabled("cpu"):
        maps, kernel = (x.to(torch.get_autocast_dtype("cpu")) for x in (maps, kernel))
    enlarged = cast(Tensor, _ConvTranspose2x.apply(maps, kernel))
    return enlarged if bias is None else enlarged + bias.to(enlarged.dtype)[:, None, None]


class _ConvTranspose2x(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, maps: Tensor, kernel: Tensor) -> Tensor:
        ctx.save_for_backward(maps, kernel)
        return F.conv_transpose2d(maps, kernel, stride=2, padding=1)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, Tensor | None]:
        """Both gradients, from differentiable operations, so that there are second derivatives."""
        (gradient,), (maps, kernel) = gradients, ctx.saved_tensors
        (b, c, h, w), c_out = maps.shape, kernel.shape[1]
        padded = F.pad(gradient.contiguous(memory_format=torch.channels_last), (1, 1, 1, 1)).permute(0, 2, 3, 1)
        patches = padded.unfold(1, 4, 2).unfold(2, 4, 2).permute(0, 1, 2, 4, 5, 3).reshape(b * h * w, 16 * c_out)
        maps_gradient = kernel_gradient = None
        if ctx.needs_input_grad[0]:
            maps_gradient = (patches @ _flatten(kernel).mT).view(b, h, w, c).permute(0, 3, 1, 2)
        if ctx.needs_input_grad[1]:
            rows = maps.permute(0, 2, 3, 1).reshape(-1, c)
            kernel_gradient = (rows.mT @ patches).view(c, 4, 4, c_out).permute(0, 3, 1, 2)
        return maps_gradient, kernel_gradient


def _flatten(x: Tensor) -> Tensor:
    """(N, C, h, w) -> (N, h w C), a view if `x` is channels_last."""
    return x.permute(0, 2, 3, 1).flatten(1)


class ProjectAndReshape(nn.ConvTranspose2d):
    """Latents (B, Z) -> maps (B, C, h, w): a transposed convolution of one pixel, computed as a matrix product."""

    def __init__(self, z_dim: int, channels: int, size: tuple[int, int] = (4, 4)) -> None:
        super().__init__(z_dim, channels, size, bias=False)

    def forward(self, z: Tensor, output_size: list[int] | None = None) -> Tensor:
        """Latents (B, Z) -> maps (B, C, h, w)."""
        return (z @ self.matrix().T).view(-1, *self.weight.shape[1:])

    def matrix(self) -> Tensor:
        """The weight as the matrix (C h w, Z) that takes the latent."""
        return self.weight.flatten(1).T


class UpsampledConv2d(nn.Conv2d):
    """Maps (B, C, h, w) -> (B, C', 2h, 2w): nearest-neighbour upsampling and `Conv2d(C, C', 3, padding=1)` in one.

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
        return conv_transpose_2x(maps, kernel.transpose(0, 1), self.bias)


class DownsampledConv2d(nn.Conv2d):
    """Maps (B, C, h, w), h and w even -> (B, C', h / 2, w / 2): `Conv2d(C, C', 3, padding=1)` and 2x2 average pooling.

    The average of four shifted kernels 3x3 is one kernel 4x4, with 4 multiplications where there were 9. The weight
    stays 3x3. It is to downsampling what UpsampledConv2d is to upsampling.
    """

    def forward(self, maps: Tensor) -> Tensor:
        """Maps (B, C, h, w) -> (B, C', h / 2, w / 2)."""
        return F.conv2d(maps, F.avg_pool2d(self.weight, 2, stride=1, padding=1), self.bias, stride=2, padding=1)
