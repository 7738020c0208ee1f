"""Convolutions of 3x3 with a quarter of the multiplications, by Winograd's minimal filtering. CPU, float32.

This is F(4x4, 3x3) of Lavin and Gray 2016, arXiv:1509.09308. Maps are cut into tiles of 4x4 outputs, each of which
needs 6x6 inputs. Tiles and kernel are transformed linearly to 36 values each. Products of these are summed over the
channels, which is 36 matrix products, and the 36 sums are transformed back to the 16 outputs. So 36 multiplications do
the work of 144. Outputs differ from the plain way's by some 1e-5 of the largest.
"""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

# For the interpolation points 0, 1, -1, 2, -2 and infinity, as in the paper's section 4.2.
_TILE_TRANSFORM = [
    [4, 0, -5, 0, 1, 0],
    [0, -4, -4, 1, 1, 0],
    [0, 4, -4, -1, 1, 0],
    [0, -2, -1, 2, 1, 0],
    [0, 2, -1, -2, 1, 0],
    [0, 4, 0, -5, 0, 1],
]
_KERNEL_TRANSFORM = [
    [1 / 4, 0, 0],
    [-1 / 6, -1 / 6, -1 / 6],
    [-1 / 6, 1 / 6, -1 / 6],
    [1 / 24, 1 / 12, 1 / 6],
    [1 / 24, -1 / 12, 1 / 6],
    [0, 0, 1],
]
_OUTPUT_TRANSFORM = [[1, 1, 1, 1, 1, 0], [0, 1, -1, 2, -2, 0], [0, 1, 1, 4, 4, 0], [0, 1, -1, 8, -8, 1]]
_AT_1_1 = 7
"""Of the 36 sums, the one that the transform adds to each of the 16 outputs: that at the points 1 and 1."""

_TILES_AT_ONCE = 128
"""So many tiles stay in a core's second cache, and are enough rows for a matrix product."""


def suits(kernel: torch.Size, maps: torch.Size) -> bool:
    """Whether a kernel (C', C, h, w) and maps (B, C, h, w) are convolved faster this way than by oneDNN's kernels.

    The transforms cost as much for few channels as for many, what a tile has beyond the edge is wasted, and matrix
    products need some rows. Measured on an Intel Xeon, with AVX-512 and restricted to AVX2.
    """
    batch, _, height, width = maps
    tiles = -(-height // 4) * -(-width // 4)
    is_3x3_of_many_channels = kernel[2:] == (3, 3) and min(kernel[:2]) >= 128
    return is_3x3_of_many_channels and height * width >= 8 * tiles and batch * tiles >= 8


def transform_kernel(kernel: Tensor) -> Tensor:
    """A kernel (C', C, 3, 3) -> its values (36, C, C') for `convolve`, in float32."""
    transform = torch.tensor(_KERNEL_TRANSFORM, dtype=torch.float64)
    values = torch.einsum("ai, bj, ocij -> abco", transform, transform, kernel.double())
    return values.flatten(0, 1).float().contiguous()


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
    rows, columns = -(-height // 4), -(-width // 4)
    right, below = 4 * columns + 1 - width, 4 * rows + 1 - height
    padded = F.pad(maps.permute(0, 2, 3, 1), (0, 0, 1, right, 1, below))
    b, y, x, c = padded.stride()
    tiles = padded.as_strided((6, 6, batch, rows, columns, channels), (y, x, b, 4 * y, 4 * x, c))
    to_sums, to_outputs = _transform(_TILE_TRANSFORM), _transform(_OUTPUT_TRANSFORM)
    size = batch, out_channels, 4 * rows, 4 * columns
    whole = torch.empty(size, dtype=maps.dtype, memory_format=torch.channels_last)
    outputs = whole.permute(0, 2, 3, 1).view(batch, rows, 4, columns, 4, out_channels)
    step = max(1, _TILES_AT_ONCE // (rows * columns))
    for start in range(0, batch, step):
        part = tiles[:, :, start : start + step].reshape(36, -1)
        sums = torch.bmm((to_sums @ part).view(36, -1, channels), kernel)
        if bias is not None:
            sums[_AT_1_1] += bias
        values = (to_outputs @ sums.flatten(1)).view(4, 4, -1, rows, columns, out_channels)
        values = values if activate is None else activate(values)
        outputs[start : start + step] = values.permute(2, 3, 0, 4, 1, 5)
    if whole.shape[2:] == maps.shape[2:]:
        return whole
    return whole[:, :, :height, :width].clone(memory_format=torch.channels_last)


def _transform(matrix: list[list[int]]) -> Tensor:
    """The matrix of a transform of rows and columns at once: (N, M) -> (N * N, M * M)."""
    once = torch.tensor(matrix, dtype=torch.float32)
    return torch.kron(once, once)
