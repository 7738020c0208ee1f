"""A convolution on a CPU whose kernel is put into the form that is fastest there once, and not in each pass."""

import functools
from collections.abc import Callable
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from transfergen.networks.acceleration import winograd

ACTIVATIONS: dict[type[nn.Module] | None, tuple[str, list[float], Callable[..., Tensor]]] = {
    None: ("none", [], lambda maps, **_: maps),
    nn.ReLU: ("relu", [], F.relu),
    nn.ReLU6: ("hardtanh", [0.0, 6.0], F.relu6),
}
"""Activations that oneDNN fuses with a convolution: its name for each, its parameters, and torch's function."""


class PreparedKernel:
    """A kernel for maps of one precision, and its reordered and its transformed form, each made at its first use.

    oneDNN's kernels read weights in an order of their own. Winograd's algorithm, where it suits, needs transformed
    ones. Nothing here is recorded for gradients.

    Args:
        kernel: (C', C / groups, h, w). Later changes of its values go unnoticed.
        bias: (C',), or None.
        padding: in pixels, of zeros.
        stride: in pixels.
        groups: of channels.
        dtype: of the maps.
    """

    def __init__(
        self,
        kernel: Tensor,
        bias: Tensor | None,
        padding: tuple[int, int],
        stride: tuple[int, int],
        groups: int,
        dtype: torch.dtype,
    ) -> None:
        self.kernel, self.bias = kernel, None if bias is None else bias.to(dtype)
        self.padding, self.stride, self.groups, self.dtype = padding, stride, groups, dtype
        self._reordered: Tensor | None = None
        self._transformed: Tensor | None = None

    def convolve(self, maps: Tensor, activation: type[nn.Module] | None = None) -> Tensor:
        """Maps (B, C, h, w) -> maps (B, C', h', w'), channels_last, after the activation."""
        name, limits, activate = ACTIVATIONS[activation]
        if winograd.suits(maps, self.kernel, self.stride, self.padding, self.groups):
            if self._transformed is None:
                self._transformed = winograd.transform_kernel(self.kernel)
            return winograd.convolve(maps, self._transformed, self.bias, functools.partial(activate, inplace=True))
        if self._reordered is None:
            self._reordered = self._reorder(maps.shape)
        maps = maps.contiguous(memory_format=torch.channels_last)
        operands = maps, self._reordered, self.bias, self.padding, self.stride, (1, 1), self.groups
        return cast(Tensor, torch.ops.mkldnn._convolution_pointwise(*operands, name, limits, ""))

    def _reorder(self, maps: torch.Size) -> Tensor:
        """The kernel as an opaque tensor. oneDNN orders it for maps of this shape, but it serves any other."""
        dense: Any = self.kernel.to(self.dtype).contiguous(memory_format=torch.channels_last).to_mkldnn()
        reorder: Any = torch._C._nn.mkldnn_reorder_conv2d_weight
        return cast(Tensor, reorder(dense, self.padding, self.stride, (1, 1), self.groups, list(maps)))


@functools.cache
def has_kernels(dtype: torch.dtype) -> bool:
    """Whether oneDNN has kernels for this precision on this CPU."""
    if not torch.backends.mkldnn.is_available():  # type: ignore[no-untyped-call]
        return False
    return dtype == torch.float32 or (dtype == torch.bfloat16 and bool(torch.ops.mkldnn._is_mkldnn_bf16_supported()))
