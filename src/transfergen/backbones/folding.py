"""What surrounds the convolutions of a frozen trunk as a part of them: batch normalisation and lopsided padding."""

import copy
from typing import Any, cast

import torch
from timm.layers.conv2d_same import Conv2dSame
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.fusion import fuse_conv_bn_weights

from transfergen.backbones.base import Backbone


@torch.no_grad()
def fold(backbone: Backbone, resolution: int) -> None:
    """Let each convolution do the batch normalisation behind it, too, and the padding of TensorFlow before it.

    Changes the trunk, which must stay frozen from now on. Both ways are run on an image of `resolution` pixels before
    and after each change, which is taken back where the features differ: networks may normalise before they convolve,
    and maps may have odd sides.
    """
    image = torch.linspace(-1, 1, 3 * resolution**2).view(1, 3, resolution, resolution)
    expected = backbone(image)
    for change in (_fold_batch_norm, _fold_padding):
        unchanged = copy.deepcopy(backbone.blocks)
        change(backbone.blocks)
        if not all(_close(ours, theirs) for ours, theirs in zip(backbone(image), expected, strict=True)):
            backbone.blocks = unchanged
    backbone.float32_on_cpu = any(
        isinstance(m, nn.Conv2d) and m.groups > 1 and m.stride != (1, 1) for m in backbone.blocks.modules()
    )


def _fold_batch_norm(module: nn.Module) -> None:
    """In eval mode, a normalisation is an affine map, and so are both together."""
    before: nn.Module | None = None
    for name, child in module.named_children():
        if isinstance(child, nn.BatchNorm2d) and isinstance(before, nn.Conv2d):
            mean, variance = cast(Tensor, child.running_mean), cast(Tensor, child.running_var)
            before.weight, before.bias = fuse_conv_bn_weights(
                before.weight, before.bias, mean, variance, child.eps, child.weight, child.bias
            )
            setattr(module, name, getattr(child, "act", nn.Identity()))  # timm's also activates
        _fold_batch_norm(child)
        before = child


def _fold_padding(module: nn.Module) -> None:
    """Of stride 2, TensorFlow pads even sides with one more row below than above, which timm does in a copy of the map.

    A kernel with a row and a column of zeros before the others has the same number on both sides, which needs no copy.
    """
    for name, child in module.named_children():
        if isinstance(child, Conv2dSame) and child.stride == (2, 2) and child.kernel_size[0] in (3, 5, 7):
            size = child.kernel_size[0]
            larger = nn.Conv2d(child.in_channels, child.out_channels, size + 1, 2, size // 2, groups=child.groups)
            larger.weight, larger.bias = nn.Parameter(F.pad(child.weight, (1, 0, 1, 0)), False), child.bias
            depthwise = child.groups == child.in_channels == child.out_channels > 1
            setattr(module, name, StridedDepthwise(larger) if depthwise else larger)
        _fold_padding(child)


class StridedDepthwise(nn.Module):
    """A frozen depthwise convolution of stride 2: maps (B, C, h, w) of even sides -> (B, C, h / 2, w / 2).

    On a CPU its gradient is a convolution of stride 1 over a map with zeros in between, for which there are fast
    kernels in every precision; for the strided one's, in bfloat16, there is none, and it takes a hundred times as long.

    Args:
        convolution: with a kernel of even size, whose first row and column are zeros.
    """

    def __init__(self, convolution: nn.Conv2d) -> None:
        super().__init__()
        self.weight, self.bias = convolution.weight, convolution.bias
        flipped = self.weight.detach()[:, :, 1:, 1:].flip(2, 3).contiguous()
        self.register_buffer("flipped", flipped, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """Maps (B, C, h, w) -> (B, C, h / 2, w / 2)."""
        if x.device.type != "cpu":
            return F.conv2d(x, self.weight, self.bias, 2, (self.weight.shape[-1] - 1) // 2, groups=x.shape[1])
        if torch.is_autocast_enabled("cpu"):
            x = x.to(torch.get_autocast_dtype("cpu"))
        return cast(Tensor, _StridedDepthwise.apply(x, self.weight, self.bias, self.flipped))


class _StridedDepthwise(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, flipped: Tensor) -> Tensor:
        ctx.save_for_backward(flipped)
        bias = None if bias is None else bias.to(x.dtype)
        return F.conv2d(x, weight.to(x.dtype), bias, 2, (weight.shape[-1] - 1) // 2, groups=x.shape[1])

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        (gradient,), (flipped,) = gradients, ctx.saved_tensors
        channels, (h, w) = gradient.shape[1], gradient.shape[2:]
        spread = gradient.new_zeros(len(gradient), 2 * h, 2 * w, channels).permute(0, 3, 1, 2)
        spread[:, :, 1::2, 1::2] = gradient
        padding = flipped.shape[-1] // 2
        return F.conv2d(spread, flipped.to(gradient.dtype), padding=padding, groups=channels), None, None, None


def _close(a: Tensor, b: Tensor) -> bool:
    return a.shape == b.shape and bool((a - b).abs().max() <= 1e-3 * b.abs().max())
