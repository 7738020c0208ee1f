"""Convolutions of frozen weights, which a CPU lays out for its kernels once and not in each pass."""

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.grad import conv2d_input

ACTIVATIONS: dict[type[nn.Module] | None, tuple[str, list[float], Callable[..., Tensor]]] = {
    None: ("none", [], lambda maps, **_: maps),
    nn.ReLU: ("relu", [], F.relu),
    nn.ReLU6: ("hardtanh", [0.0, 6.0], F.relu6),
}
"""What a kernel can compute along with a convolution: oneDNN's name for it, its limits, and torch's function."""


class FrozenConv2d(nn.Module):
    """A convolution and the activation behind it: maps (B, C, h, w) -> maps (B, C', h', w').

    While it is `frozen`, a CPU casts its weights and lays them out for oneDNN's kernels at the first call, not in
    each, and computes the activation in the same kernel; the results are the same to the bit, and the layouts take the
    memory of the weights once again, and once more where gradients pass. While it trains, on another device, and
    compiled, it is what it replaces.

    The gradient of a depthwise convolution of stride 2, if its kernel is of even size with a first row and column of
    zeros and the maps have even sides, is taken as a convolution of stride 1 over a map with zeros in between: for that
    a CPU has fast kernels in every precision; for the strided one's, in bfloat16, it has none, and takes a hundred
    times as long.

    Args:
        convolution: its weights are taken over. Neither dilated nor padded by anything but zeros.
        activation: None, ReLU or ReLU6.
        frozen: whether its weights stay as they are. That they ask for no gradient does not say so: those that train
            ask for none in the generator's turn.
    """

    def __init__(
        self, convolution: nn.Conv2d, activation: type[nn.Module] | None = None, *, frozen: bool = True
    ) -> None:
        super().__init__()
        self.in_channels, self.out_channels = convolution.in_channels, convolution.out_channels
        self.weight, self.bias = convolution.weight, convolution.bias
        self.stride, self.padding = convolution.stride, cast(tuple[int, int], convolution.padding)
        self.groups, self.activation, self.frozen = convolution.groups, activation, frozen
        self._depthwise = self.groups == self.in_channels == self.out_channels > 1
        self.spreads = self._depthwise and self.stride == (2, 2) and _has_leading_zeros(self.weight)
        """Whether its gradient is taken over a map with zeros in between."""
        self._padding_back = self._padding_of_transposed()
        self._layouts: _Layouts | None = None

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_layouts": None}  # which cannot be copied

    def forward(self, maps: Tensor) -> Tensor:
        """Maps (B, C, h, w) -> maps (B, C', h', w')."""
        if maps.device.type != "cpu" or not self.frozen or torch.compiler.is_compiling():
            return self._plain(maps)
        if torch.is_autocast_enabled("cpu"):
            maps = maps.to(torch.get_autocast_dtype("cpu"))
        if maps.requires_grad and torch.is_grad_enabled():
            return cast(Tensor, _FrozenConv2d.apply(maps, self))
        return self.without_graph(maps)

    def without_graph(self, maps: Tensor) -> Tensor:
        """As `forward`, on a CPU."""
        if not _has_kernels(maps.dtype):
            return self._plain(maps)
        laid_out, (activation, limits, _) = self._prepacked(maps.dtype, maps.shape), ACTIVATIONS[self.activation]
        convolution = laid_out.kernel, laid_out.bias, self.padding, self.stride, self.groups
        return _convolve(maps, *convolution, activation, limits)

    def gradient(self, gradient: Tensor, output: Tensor | None, shape: torch.Size) -> Tensor:
        """From that with respect to the output, that with respect to maps of a shape. Can be differentiated again."""
        if self.activation is nn.ReLU:
            gradient = torch.ops.aten.threshold_backward(gradient, output, 0)
        elif self.activation is nn.ReLU6:
            gradient = torch.ops.aten.hardtanh_backward(gradient, output, 0, 6)
        if self._padding_back is None:
            weight = self.weight.to(gradient.dtype)
            strided: Any = conv2d_input
            return cast(Tensor, strided(shape, weight, gradient, self.stride, self.padding, 1, self.groups))
        gradient = _spread(gradient) if self.spreads else gradient
        if torch.is_grad_enabled() or not _has_kernels(gradient.dtype):
            kernel = self._transposed().to(gradient.dtype)
            return F.conv2d(gradient, kernel, None, 1, self._padding_back, groups=self.groups)
        laid_out = self._prepacked(gradient.dtype, shape)
        if laid_out.transposed is None:
            kernel = self._transposed().to(gradient.dtype)
            laid_out.transposed = prepack_weight(kernel, self._padding_back, (1, 1), self.groups, list(gradient.shape))
        return _convolve(gradient, laid_out.transposed, None, self._padding_back, (1, 1), self.groups, "none", [])

    def _plain(self, maps: Tensor) -> Tensor:
        if self.spreads and self._padding_back and maps.device.type == "cpu" and torch.compiler.is_compiling():
            kernel = self.weight[:, :, 1:, 1:]  # its gradient is that with zeros in between
            maps = F.conv2d(maps, kernel, self.bias, 1, self._padding_back, groups=self.groups)[:, :, 1::2, 1::2]
        else:
            maps = F.conv2d(maps, self.weight, self.bias, self.stride, self.padding, groups=self.groups)
        *_, activate = ACTIVATIONS[self.activation]
        return activate(maps, inplace=True)

    def _padding_of_transposed(self) -> tuple[int, int] | None:
        """Of the convolution of stride 1 that takes gradients back; None if that is no such convolution."""
        h, w = self.weight.shape[2:]
        if self.spreads:
            return (h - 1) // 2, (w - 1) // 2
        keeps_size = self.stride == (1, 1) and (h - 1, w - 1) == (2 * self.padding[0], 2 * self.padding[1])
        return self.padding if keeps_size and (self.groups == 1 or self._depthwise) else None

    def _transposed(self) -> Tensor:
        kernel = self.weight.detach()
        kernel = (kernel[:, :, 1:, 1:] if self.spreads else kernel).flip(2, 3)
        return kernel if self._depthwise else kernel.transpose(0, 1)

    def _prepacked(self, dtype: torch.dtype, shape: torch.Size) -> "_Layouts":
        """For maps of this precision, and of this shape in the first place; any others are taken, too."""
        version = dtype, *((p.data_ptr(), p._version) for p in (self.weight, self.bias) if p is not None)
        if self._layouts is None or self._layouts.version != version:
            weight, bias = self.weight.detach().to(dtype), None if self.bias is None else self.bias.detach().to(dtype)
            kernel = prepack_weight(weight, self.padding, self.stride, self.groups, list(shape))
            self._layouts = _Layouts(kernel, bias, version)
        return self._layouts


def set_frozen(network: nn.Module, frozen: bool) -> None:
    """Of all these convolutions in a network."""
    for module in network.modules():
        if isinstance(module, FrozenConv2d):
            module.frozen, module._layouts = frozen, None


def replace_convolutions(module: nn.Module) -> None:
    """Replace plain convolutions in a network, and activations next to them, by these; `set_frozen` is yet to come."""
    before: nn.Module | None = None
    for name, child in module.named_children():
        if isinstance(before, FrozenConv2d) and type(child) in ACTIVATIONS:
            before.activation = type(child)
            setattr(module, name, nn.Identity())
        elif type(child) is nn.Conv2d and _is_plain(child):
            setattr(module, name, FrozenConv2d(child, frozen=False))
        else:
            replace_convolutions(child)
        before = getattr(module, name)


@dataclass
class _Layouts:
    """Weights as oneDNN's kernels take them, in the precision of some maps."""

    kernel: Tensor
    bias: Tensor | None
    version: tuple[Any, ...]
    transposed: Tensor | None = None
    """For gradients, from the first one on."""


class _FrozenConv2d(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, maps: Tensor, layer: FrozenConv2d) -> Tensor:
        output = layer.without_graph(maps)
        ctx.layer, ctx.shape = layer, maps.shape
        ctx.save_for_backward(*([output] if layer.activation else []))
        return output

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        (output,) = ctx.saved_tensors or (None,)
        return ctx.layer.gradient(gradients[0], output, ctx.shape), None


@functools.cache
def _has_kernels(dtype: torch.dtype) -> bool:
    """Whether oneDNN is there for this CPU and precision."""
    if not torch.backends.mkldnn.is_available():  # type: ignore[no-untyped-call]
        return False
    return dtype == torch.float32 or (dtype == torch.bfloat16 and bool(torch.ops.mkldnn._is_mkldnn_bf16_supported()))


def prepack_weight(
    kernel: Tensor, padding: Sequence[int], stride: Sequence[int], groups: int, shape: list[int]
) -> Tensor:
    dense: Any = kernel.contiguous(memory_format=torch.channels_last).to_mkldnn()
    reorder: Any = torch._C._nn.mkldnn_reorder_conv2d_weight
    return cast(Tensor, reorder(dense, padding, stride, (1, 1), groups, shape))


def _convolve(
    maps: Tensor,
    kernel: Tensor | None,
    bias: Tensor | None,
    padding: Sequence[int],
    stride: Sequence[int],
    groups: int,
    activation: str,
    limits: list[float],
) -> Tensor:
    maps = maps.contiguous(memory_format=torch.channels_last)
    convolution = torch.ops.mkldnn._convolution_pointwise
    return cast(Tensor, convolution(maps, kernel, bias, padding, stride, (1, 1), groups, activation, limits, ""))


def _is_plain(convolution: nn.Conv2d) -> bool:
    padded_by_zeros = convolution.padding_mode == "zeros" and isinstance(convolution.padding, tuple)
    return padded_by_zeros and convolution.dilation == (1, 1)


def _has_leading_zeros(kernel: Tensor) -> bool:
    return not (kernel[:, :, 0].any() or kernel[:, :, :, 0].any())


def _spread(gradient: Tensor) -> Tensor:
    """Maps (B, C, h, w) -> (B, C, 2h, 2w), channels_last: theirs at odd rows and columns, zeros elsewhere."""
    b, c, h, w = gradient.shape
    spread = gradient.new_zeros(b, 2 * h, 2 * w, c).permute(0, 3, 1, 2)
    spread[:, :, 1::2, 1::2] = gradient
    return spread
