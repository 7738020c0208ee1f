"""Batch normalisation of a frozen trunk as a part of its convolutions."""

import copy
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_weights

from transfergen.backbones.base import Backbone


@torch.no_grad()
def fold_batch_norm(backbone: Backbone, resolution: int) -> None:
    """Let each convolution do the batch normalisation behind it, too: in eval mode, both are one affine map.

    Changes the trunk, which must stay frozen from now on; EfficientNet-Lite0 then takes a quarter less time on a CPU.
    Both ways are run once on an image of `resolution` pixels. Where they differ, as in networks that normalise before
    they convolve, the trunk stays as it was.
    """
    image = torch.linspace(-1, 1, 3 * resolution**2).view(1, 3, resolution, resolution)
    unfolded, expected = copy.deepcopy(backbone.blocks), backbone(image)
    _fold(backbone.blocks)
    if not all(_close(ours, theirs) for ours, theirs in zip(backbone(image), expected, strict=True)):
        backbone.blocks = unfolded


def _fold(module: nn.Module) -> None:
    before: nn.Module | None = None
    for name, child in module.named_children():
        if isinstance(child, nn.BatchNorm2d) and isinstance(before, nn.Conv2d):
            mean, variance = cast(Tensor, child.running_mean), cast(Tensor, child.running_var)
            before.weight, before.bias = fuse_conv_bn_weights(
                before.weight, before.bias, mean, variance, child.eps, child.weight, child.bias
            )
            setattr(module, name, getattr(child, "act", nn.Identity()))  # timm's also activates
        _fold(child)
        before = child


def _close(a: Tensor, b: Tensor) -> bool:
    return bool((a - b).abs().max() <= 1e-3 * b.abs().max())
