"""What surrounds the convolutions of a frozen trunk as a part of them: normalisation, activation, lopsided padding."""

import copy
from collections.abc import Callable
from typing import cast

import torch
from timm.layers.conv2d_same import Conv2dSame
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.fusion import fuse_conv_bn_weights

from transfergen.networks.acceleration.frozen_conv import FrozenConv2d, replace_convolutions, set_frozen
from transfergen.networks.backbones.base import Backbone


def fold_batchnorm(network: nn.Module, resolution: int) -> None:
    """Let each convolution do what surrounds it, too: normalisation and activation behind it, padding before it.

    Changes the network, which must stay frozen from now on.

    Args:
        network: a trunk, or any other from images in [-1, 1] to features or a list of them.
        resolution: of the images that it is tried on, in pixels: see `fuse_activations`.
    """
    _change(network, resolution, _fold_batch_norm, _fold_padding, replace_convolutions)
    set_frozen(network, True)
    if isinstance(network, Backbone):
        convolutions = [m for m in network.modules() if isinstance(m, (nn.Conv2d, FrozenConv2d))]
        strided = [m for m in convolutions if m.groups > 1 and m.stride != (1, 1)]
        network.float32_on_cpu = not all(isinstance(m, FrozenConv2d) and m.spreads for m in strided)


def fuse_activations(network: nn.Module, resolution: int) -> None:
    """Let each convolution do the activation behind it, too, as long as it is `set_frozen`.

    The network is run on an image of `resolution` pixels before and after, and stays as it was where the features
    differ: what is behind a convolution in a list of layers may be called before it.
    """
    _change(network, resolution, replace_convolutions)


@torch.no_grad()
def _change(network: nn.Module, resolution: int, *changes: Callable[[nn.Module], None]) -> None:
    """One after the other, but for those after which features differ, which are taken back.

    Networks may normalise before they convolve, and maps may have odd sides.
    """
    image = torch.linspace(-1, 1, 3 * resolution**2).view(1, 3, resolution, resolution)
    nothing_to_change = not any(isinstance(module, nn.Conv2d) for module in network.modules())
    if nothing_to_change or image.is_meta:  # of which there are no features to compare
        return
    was_training = network.training
    expected = network.eval()(image)
    shared = {id(t): t for t in (*network.parameters(), *network.buffers())}  # new ones replace them, if any
    for change in changes:
        unchanged = copy.deepcopy(network, dict(shared))
        change(network)
        if not all(_close(ours, theirs) for ours, theirs in zip(network(image), expected, strict=True)):
            for name, child in unchanged.named_children():
                setattr(network, name, child)
    network.train(was_training)


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
