"""Convolutions with frozen weights, which are prepared for a CPU once instead of in each pass."""

from typing import Any, Literal, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.grad import conv2d_input

from transfergen.networks.acceleration import is_enabled, winograd
from transfergen.networks.acceleration.prepared_kernel import ACTIVATIONS, PreparedKernel, has_kernels


class FrozenConv2d(nn.Module):
    """A convolution and the activation after it: maps (B, C, h, w) -> maps (B, C', h', w').

    While it is `frozen` and on a CPU, its weights are cast and reordered for oneDNN's kernels once, at the first call,
    and the activation is computed in the same kernel. Otherwise it computes as `nn.Conv2d` does. Where Winograd's
    algorithm suits, in float32 on a CPU, frozen weights are transformed for that instead, and others are in each pass.

    Outputs differ by rounding at most. Reordered weights need as much memory as the weights, transformed ones four
    times as much, and both twice as much where gradients pass.

    The gradient of a depthwise convolution of stride 2 can be computed as a convolution of stride 1 over the incoming
    gradient with zeros inserted between its values, if the kernel has an even size and a first row and column of zeros
    and the maps have even sides. A CPU has fast kernels for that in every precision. For the gradient of a strided
    convolution in bfloat16 it has none, and takes a hundred times as long.

    Args:
        convolution: whose weights are used, not copied. It has no dilation and pads with zeros.
        activation: None, ReLU or ReLU6.
        frozen: whether the weights stay as they are. `requires_grad` does not tell: weights that train do not require
            gradients while the generator is updated.
    """

    def __init__(
        self, convolution: nn.Conv2d, activation: type[nn.Module] | None = None, *, frozen: bool = True
    ) -> None:
        super().__init__()
        self.in_channels, self.out_channels = convolution.in_channels, convolution.out_channels
        self.weight, self.bias = convolution.weight, convolution.bias
        self.stride = cast(tuple[int, int], convolution.stride)
        self.padding = cast(tuple[int, int], convolution.padding)
        self.groups, self.activation, self.frozen = convolution.groups, activation, frozen
        self._depthwise = self.groups == self.in_channels == self.out_channels > 1
        self.inserts_zeros = self._depthwise and self.stride == (2, 2) and _has_leading_zeros(self.weight)
        """Whether its gradient is computed with stride 1, over the incoming gradient with zeros inserted."""
        self._gradient_padding = self._padding_of_gradient()
        self._prepared: dict[str, PreparedKernel] = {}
        self._prepared_version: tuple[Any, ...] = ()

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_prepared": {}}  # which cannot be copied

    def forward(self, maps: Tensor) -> Tensor:
        """Maps (B, C, h, w) -> maps (B, C', h', w')."""
        if maps.device.type != "cpu" or not self.frozen or not is_enabled():
            return self._plain(maps)
        if torch.is_autocast_enabled("cpu"):
            maps = maps.to(torch.get_autocast_dtype("cpu"))
        if maps.requires_grad and torch.is_grad_enabled():
            return cast(Tensor, _FrozenConv2d.apply(maps, self))
        return self.without_graph(maps)

    def without_graph(self, maps: Tensor) -> Tensor:
        """Compute `forward` on a CPU, without recording what is needed for gradients."""
        if not has_kernels(maps.dtype):
            return self._plain(maps)
        return self._kernel("forward", maps.dtype).convolve(maps, self.activation)

    def input_gradient(self, gradient: Tensor, output: Tensor | None, shape: torch.Size) -> Tensor:
        """The gradient with respect to the input maps. It can be differentiated again.

        Args:
            gradient: with respect to the output, (B, C', h', w').
            output: (B, C', h', w'), needed if there is an activation.
            shape: of the input maps.
        """
        if self.activation is nn.ReLU:
            gradient = torch.ops.aten.threshold_backward(gradient, output, 0)
        elif self.activation is nn.ReLU6:
            gradient = torch.ops.aten.hardtanh_backward(gradient, output, 0, 6)
        if self._gradient_padding is None:
            weight = self.weight.to(gradient.dtype)
            strided: Any = conv2d_input
            return cast(Tensor, strided(shape, weight, gradient, self.stride, self.padding, 1, self.groups))
        gradient = _insert_zeros(gradient) if self.inserts_zeros else gradient
        if torch.is_grad_enabled() or not has_kernels(gradient.dtype):
            kernel = self._gradient_kernel().to(gradient.dtype)
            return F.conv2d(gradient, kernel, None, 1, self._gradient_padding, groups=self.groups)
        return self._kernel("gradient", gradient.dtype).convolve(gradient)

    def _plain(self, maps: Tensor) -> Tensor:
        maps = winograd.conv2d(maps, self.weight, self.bias, self.stride, self.padding, self.groups)
        *_, activate = ACTIVATIONS[self.activation]
        return activate(maps, inplace=True)

    def _padding_of_gradient(self) -> tuple[int, int] | None:
        """Padding of the convolution of stride 1 that computes the gradient; None if there is no such convolution."""
        h, w = self.weight.shape[2:]
        if self.inserts_zeros:
            return (h - 1) // 2, (w - 1) // 2
        keeps_size = self.stride == (1, 1) and (h - 1, w - 1) == (2 * self.padding[0], 2 * self.padding[1])
        return self.padding if keeps_size and (self.groups == 1 or self._depthwise) else None

    def _gradient_kernel(self) -> Tensor:
        kernel = self.weight.detach()
        kernel = (kernel[:, :, 1:, 1:] if self.inserts_zeros else kernel).flip(2, 3)
        return kernel if self._depthwise else kernel.transpose(0, 1)

    def _kernel(self, use: Literal["forward", "gradient"], dtype: torch.dtype) -> PreparedKernel:
        """The kernel of the convolution, or of the one that computes its gradient, for maps of this precision."""
        version = dtype, *((p.data_ptr(), p._version) for p in (self.weight, self.bias) if p is not None)
        if self._prepared_version != version:
            self._prepared, self._prepared_version = {}, version
        if use not in self._prepared:
            if use == "forward":
                bias = None if self.bias is None else self.bias.detach()
                kernel = PreparedKernel(self.weight.detach(), bias, self.padding, self.stride, self.groups, dtype)
            else:
                padding = cast(tuple[int, int], self._gradient_padding)
                kernel = PreparedKernel(self._gradient_kernel(), None, padding, (1, 1), self.groups, dtype)
            self._prepared[use] = kernel
        return self._prepared[use]


def set_frozen(network: nn.Module, frozen: bool) -> None:
    """Tell all FrozenConv2d in a network whether their weights stay as they are."""
    for module in network.modules():
        if isinstance(module, FrozenConv2d):
            module.frozen, module._prepared = frozen, {}


def replace_convolutions(module: nn.Module) -> None:
    """Replace the convolutions in a network, with the activations after them, by FrozenConv2d, not frozen yet."""
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
        return ctx.layer.input_gradient(gradients[0], output, ctx.shape), None


def _is_plain(convolution: nn.Conv2d) -> bool:
    padded_by_zeros = convolution.padding_mode == "zeros" and isinstance(convolution.padding, tuple)
    return padded_by_zeros and convolution.dilation == (1, 1)


def _has_leading_zeros(kernel: Tensor) -> bool:
    return not (kernel[:, :, 0].any() or kernel[:, :, :, 0].any())


def _insert_zeros(gradient: Tensor) -> Tensor:
    """Maps (B, C, h, w) -> (B, C, 2h, 2w), channels_last: the values at odd rows and columns, zeros elsewhere."""
    b, c, h, w = gradient.shape
    enlarged = gradient.new_zeros(b, 2 * h, 2 * w, c).permute(0, 3, 1, 2)
    enlarged[:, :, 1::2, 1::2] = gradient
    return enlarged
