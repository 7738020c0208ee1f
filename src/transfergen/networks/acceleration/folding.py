"""Fusing frozen convolutions with the batch normalisation, activation and padding around them."""

import copy
from collections.abc import Callable
from typing import cast

import torch
from timm.layers.conv2d_same import Conv2dSame
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.fusion import fuse_conv_bn_weights

from transfergen.images import Size, height_and_width
from transfergen.networks.acceleration import is_enabled
from transfergen.networks.acceleration.frozen_conv import FrozenConv2d, replace_convolutions, set_frozen
from transfergen.networks.backbones.base import Backbone


def fold_batchnorm(network: nn.Module, size: Size) -> None:
    """Fuse each convolution with the batch normalisation and activation after it and the padding before it, in place.

    The network must stay frozen from now on. A change after which the features differ by more than rounding is undone,
    see `fuse_activations`.

    Args:
        network: images (B, 3, H, W) in [-1, 1] -> features, or a list of them.
        size: H and W, in pixels, of the image that the changes are tried on.

    Raises:
        ValueError: a backbone that is too deep for images of this size.
    """
    if isinstance(network, Backbone):
        network.check_depth(size, positions=1)
    if not is_enabled():
        return
    _change(network, size, _fold_normalisations, _fold_padding, replace_convolutions)
    set_frozen(network, True)
    if isinstance(network, Backbone):
        convolutions = [m for m in network.modules() if isinstance(m, (nn.Conv2d, FrozenConv2d))]
        strided = [m for m in convolutions if m.groups > 1 and m.stride != (1, 1)]
        network.float32_on_cpu = not all(isinstance(m, FrozenConv2d) and m.inserts_zeros for m in strided)


def fuse_activations(network: nn.Module, size: Size) -> None:
    """Fuse each convolution with the activation after it, in place. It takes effect on what is frozen by `set_frozen`.

    The order in which layers are registered need not be the order in which they are called. So the network is run on
    one image before and after, and the change is undone if the features differ.

    Args:
        network: images (B, 3, H, W) in [-1, 1] -> features, or a list of them.
        size: H and W, in pixels, of that image.
    """
    if is_enabled():
        _change(network, size, replace_convolutions)


@torch.no_grad()
def _change(network: nn.Module, size: Size, *changes: Callable[[nn.Module], None]) -> None:
    """Apply changes one after the other, and undo those after which the features of an image differ."""
    height, width = height_and_width(size)
    image = torch.linspace(-1, 1, 3 * height * width).view(1, 3, height, width)
    nothing_to_change = not any(isinstance(module, nn.Conv2d) for module in network.modules())
    if nothing_to_change or image.is_meta:  # there are no features to compare
        return
    was_training = network.training
    expected = network.eval()(image)
    shared = {id(t): t for t in (*network.parameters(), *network.buffers())}  # deepcopy then copies no weights
    for change in changes:
        unchanged = copy.deepcopy(network, dict(shared))
        change(network)
        if not all(_close(ours, theirs) for ours, theirs in zip(network(image), expected, strict=True)):
            for name, child in unchanged.named_children():
                setattr(network, name, child)
    network.train(was_training)


def _fold_normalisations(module: nn.Module) -> None:
    """Fold batch normalisations, which are affine maps in eval mode, into the convolutions registered before them."""
    before: nn.Module | None = None
    for name, child in module.named_children():
        if isinstance(child, nn.BatchNorm2d) and isinstance(before, nn.Conv2d):
            mean, variance = cast(Tensor, child.running_mean), cast(Tensor, child.running_var)
            before.weight, before.bias = fuse_conv_bn_weights(
                before.weight, before.bias, mean, variance, child.eps, child.weight, child.bias
            )
            setattr(module, name, getattr(child, "act", nn.Identity()))  # timm has norms with an activation
        _fold_normalisations(child)
        before = child


def _fold_padding(module: nn.Module) -> None:
    """Replace convolutions with TensorFlow's asymmetric padding, for which timm copies the maps.

    With stride 2, even sides get one row more of padding below than above. A kernel with a first row and column of
    zeros computes the same with symmetric padding, which needs no copy.
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
