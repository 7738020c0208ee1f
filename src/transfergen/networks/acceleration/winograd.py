"""Convolutions of 3x3 with a quarter of the multiplications, by Winograd's minimal filtering. CPU, float32.

This is F(4x4, 3x3) of Lavin and Gray 2016, arXiv:1509.09308. Maps are cut into tiles of 4x4 outputs, each of which
needs 6x6 inputs. Tiles and kernel are transformed linearly to 36 values each. Products of these are summed over the
channels, which is 36 matrix products, and the 36 sums are transformed back to the 16 outputs. So 36 multiplications do
the work of 144. Outputs differ from the plain way's by some 1e-5 of the largest.
"""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, cast

import torch
from torch import Tensor
from torch.nn import functional as F

from transfergen.networks.acceleration import is_enabled

# For the interpolation points 0, 1, -1, 2, -2 and infinity, as in the paper's section 4.2.
_TILE_TRANSFORM: list[list[float]] = [
    [4, 0, -5, 0, 1, 0],
    [0, -4, -4, 1, 1, 0],
    [0, 4, -4, -1, 1, 0],
    [0, -2, -1, 2, 1, 0],
    [0, 2, -1, -2, 1, 0],
    [0, 4, 0, -5, 0, 1],
]
_KERNEL_TRANSFORM: list[list[float]] = [
    [1 / 4, 0, 0],
    [-1 / 6, -1 / 6, -1 / 6],
    [-1 / 6, 1 / 6, -1 / 6],
    [1 / 24, 1 / 12, 1 / 6],
    [1 / 24, -1 / 12, 1 / 6],
    [0, 0, 1],
]
_OUTPUT_TRANSFORM: list[list[float]] = [
    [1, 1, 1, 1, 1, 0],
    [0, 1, -1, 2, -2, 0],
    [0, 1, 1, 4, 4, 0],
    [0, 1, -1, 8, -8, 1],
]
_ADDED_TO_ALL = 7
"""Index of the one of a tile's 36 sums that the output transform adds, unscaled, to all 16 outputs. So the bias, which
all outputs share, is added to that sum alone."""

_TILES_AT_ONCE = 128
"""Tiles that are transformed and multiplied together. With 32, 64 or 256 a step of `model=vgg_disc` is no faster."""

_ALLOWED = ContextVar("winograd", default=True)


@contextmanager
def not_used() -> Iterator[None]:
    """A context in which all convolutions are plain, so that an image's maps have the same bits in every batch.

    By Winograd's algorithm they have not on every CPU: a matrix product may round a row differently if there are fewer
    rows.
    """
    token = _ALLOWED.set(False)
    try:
        yield
    finally:
        _ALLOWED.reset(token)


def suits(
    maps: Tensor,
    kernel: Tensor,
    stride: tuple[int, int],
    padding: tuple[int, int],
    groups: int,
    *,
    least_tiles: int = 8,
) -> bool:
    """Whether maps (B, C, h, w) are convolved with a kernel (C', C, h, w) faster this way than by oneDNN's kernels.

    The transforms cost as much for few channels as for many, what a tile has beyond the edge is wasted, and matrix
    products need some rows: `least_tiles`. Measured on an Intel Xeon, with AVX-512 and restricted to AVX2.
    """
    if maps.device.type != "cpu" or maps.dtype != torch.float32 or not _ALLOWED.get():
        return False
    if kernel.shape[2:] != (3, 3) or (stride, padding, groups) != ((1, 1), (1, 1), 1):
        return False
    height, width = maps.shape[2:]
    tiles = math.prod(_tiles(height, width))
    return min(kernel.shape[:2]) >= 128 and height * width >= 8 * tiles and len(maps) * tiles >= least_tiles


def transform_kernel(kernel: Tensor) -> Tensor:
    """A kernel (C', C, 3, 3) -> its values (36, C, C') for `convolve`."""
    inner_last = kernel.stride(0) > kernel.stride(1)  # copying along what is contiguous takes a fraction of the time
    taps = kernel.permute(2, 3, 0, 1) if inner_last else kernel.permute(2, 3, 1, 0)
    values = (_transform(_KERNEL_TRANSFORM) @ taps.reshape(9, -1)).view(36, *taps.shape[2:])
    return values.transpose(1, 2) if inner_last else values


def convolve(
    maps: Tensor, kernel: Tensor, bias: Tensor | None = None, activate: Callable[[Tensor], Tensor] | None = None
) -> Tensor:
    """Convolve with stride 1 and a padding of one zero: maps (B, C, h, w) -> maps (B, C', h, w), channels_last.

    Args:
        maps: in float32.
        kernel: from `transform_kernel`.
        bias: (C',).
        activate: an activation, called on parts of the outputs while they are in the caches.
    """
    (batch, channels, height, width), out_channels = maps.shape, kernel.shape[2]
    tiles, (rows, columns) = _input_tiles(maps), _tiles(height, width)
    to_sums, to_outputs = _transform(_TILE_TRANSFORM), _transform(_OUTPUT_TRANSFORM)
    size = batch, out_channels, 4 * rows, 4 * columns
    whole = torch.empty(size, dtype=maps.dtype, memory_format=torch.channels_last)
    outputs = whole.permute(0, 2, 3, 1).view(batch, rows, 4, columns, 4, out_channels)
    for part in _parts(batch, rows * columns):
        sums = torch.bmm((to_sums @ tiles[:, :, part].reshape(36, -1)).view(36, -1, channels), kernel)
        if bias is not None:
            sums[_ADDED_TO_ALL] += bias
        values = (to_outputs @ sums.flatten(1)).view(4, 4, -1, rows, columns, out_channels)
        values = values if activate is None else activate(values)
        outputs[part] = values.permute(2, 3, 0, 4, 1, 5)
    if whole.shape[2:] == maps.shape[2:]:
        return whole
    return whole[:, :, :height, :width].clone(memory_format=torch.channels_last)


def kernel_gradient(maps: Tensor, gradient: Tensor) -> Tensor:
    """The kernel's gradient (C', C, 3, 3), from the maps (B, C, h, w) and the outputs' gradient (B, C', h, w)."""
    (batch, channels, height, width), out_channels = maps.shape, gradient.shape[1]
    tiles, (rows, columns) = _input_tiles(maps), _tiles(height, width)
    padded = F.pad(gradient.permute(0, 2, 3, 1), (0, 0, 0, 4 * columns - width, 0, 4 * rows - height))
    outputs = padded.reshape(batch, rows, 4, columns, 4, out_channels).permute(2, 4, 0, 1, 3, 5)
    to_sums, from_outputs = _transform(_TILE_TRANSFORM), _transform(_OUTPUT_TRANSFORM).t()
    total = maps.new_zeros(36, out_channels, channels)
    for part in _parts(batch, rows * columns):
        factors = (to_sums @ tiles[:, :, part].reshape(36, -1)).view(36, -1, channels)
        gradients = (from_outputs @ outputs[:, :, part].reshape(16, -1)).view(36, -1, out_channels)
        total.baddbmm_(gradients.transpose(1, 2), factors)
    return (_transform(_KERNEL_TRANSFORM).t() @ total.flatten(1)).view(3, 3, out_channels, channels).permute(2, 3, 0, 1)


def conv2d(
    maps: Tensor,
    kernel: Tensor,
    bias: Tensor | None,
    stride: tuple[int, int],
    padding: tuple[int, int],
    groups: int,
) -> Tensor:
    """`F.conv2d`, by this algorithm where it suits and gradients are wanted. They can be differentiated again."""
    wanted = is_enabled() and torch.is_grad_enabled() and not torch.is_autocast_enabled("cpu")
    if wanted and suits(maps, kernel, stride, padding, groups, least_tiles=64):
        return cast(Tensor, _Conv2d.apply(maps, kernel, bias))
    return F.conv2d(maps, kernel, bias, stride, padding, groups=groups)


class _Conv2d(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, maps: Tensor, kernel: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(maps, kernel)
        return convolve(maps, transform_kernel(kernel), bias)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        (maps, kernel), needed, gradient = ctx.saved_tensors, ctx.needs_input_grad, gradients[0]
        if torch.is_grad_enabled():  # they will be differentiated again
            operands = gradient, maps, kernel, kernel.shape[:1], (1, 1), (1, 1), (1, 1), False, (0, 0), 1
            return cast(tuple[Tensor | None, ...], torch.ops.aten.convolution_backward(*operands, needed))
        return (
            convolve(gradient, transform_kernel(kernel.flip(2, 3).transpose(0, 1))) if needed[0] else None,
            kernel_gradient(maps, gradient) if needed[1] else None,
            gradient.sum((0, 2, 3)) if needed[2] else None,
        )


def _tiles(height: int, width: int) -> tuple[int, int]:
    """Rows and columns of tiles."""
    return -(-height // 4), -(-width // 4)


def _input_tiles(maps: Tensor) -> Tensor:
    """Maps (B, C, h, w) -> a view (6, 6, B, rows, columns, C) of overlapping tiles, with zeros beyond the edges."""
    batch, channels, height, width = maps.shape
    rows, columns = _tiles(height, width)
    right, below = 4 * columns + 1 - width, 4 * rows + 1 - height
    padded = F.pad(maps.permute(0, 2, 3, 1), (0, 0, 1, right, 1, below))
    b, y, x, c = padded.stride()
    return padded.as_strided((6, 6, batch, rows, columns, channels), (y, x, b, 4 * y, 4 * x, c))


def _parts(batch: int, tiles: int) -> list[slice]:
    """Parts of a batch of images, each of which has so many tiles."""
    step = max(1, _TILES_AT_ONCE // tiles)
    return [slice(start, start + step) for start in range(0, batch, step)]


def _transform(matrix: list[list[float]]) -> Tensor:
    """The matrix of a transform of rows and columns at once: (N, M) -> (N * N, M * M)."""
    once = torch.tensor(matrix, dtype=torch.float32)
    return torch.kron(once, once)
