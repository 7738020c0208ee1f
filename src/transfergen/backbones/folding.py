"""What surrounds the convolutions of a frozen trunk as a part of them: batch normalisation and lopsided padding."""

import copy
from typing import cast

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
            setattr(module, name, larger)
        _fold_padding(child)


def _close(a: Tensor, b: Tensor) -> bool:
    return a.shape == b.shape and bool((a - b).abs().max() <= 1e-3 * b.abs().max())
