from unittest.mock import patch

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from transfergen.networks.acceleration import winograd
from transfergen.networks.acceleration.frozen_conv import FrozenConv2d

VGG_CONV3_2, VGG_CONV4_2 = (256, 256, 3, 3), (512, 512, 3, 3)


def assert_close(ours, theirs, part=3e-5):
    """Equal to a part of the largest value."""
    assert (ours - theirs).abs().max() <= part * theirs.abs().max()


@pytest.mark.parametrize("relu", [False, True])
@pytest.mark.parametrize("size", [(4, 4), (7, 9), (8, 5), (3, 16), (1, 1), (48, 52)])  # the last has 156 tiles an image
def test_it_equals_the_plain_convolution(size, relu):
    maps, kernel, bias = torch.randn(3, 16, *size), torch.randn(24, 16, 3, 3), torch.randn(24)
    expected = F.conv2d(maps.double(), kernel.double(), bias.double(), padding=1)
    ours = winograd.convolve(maps, winograd.transform_kernel(kernel), bias, torch.relu_ if relu else None)
    assert ours.is_contiguous(memory_format=torch.channels_last)
    assert ours._base is None  # so that it may be changed in place
    assert_close(ours, expected.relu() if relu else expected)
    if not relu:
        assert_close(winograd.convolve(maps, winograd.transform_kernel(kernel)), expected - bias[:, None, None])


def test_batches_of_many_parts_equal_their_images():
    maps, kernel = torch.randn(75, 8, 8, 8), winograd.transform_kernel(torch.randn(8, 8, 3, 3))
    whole = winograd.convolve(maps, kernel)
    assert_close(whole, torch.cat([winograd.convolve(image, kernel) for image in maps.split(1)]))


@pytest.mark.parametrize(
    ("kernel", "maps", "suits"),
    [
        (VGG_CONV3_2, (32, 256, 8, 8), True),
        (VGG_CONV4_2, (32, 512, 4, 4), True),
        (VGG_CONV4_2, (1, 512, 28, 28), True),
        (VGG_CONV4_2, (4, 512, 4, 4), False),  # four rows for the matrix products
        (VGG_CONV4_2, (32, 512, 2, 2), False),  # a quarter of each tile
        ((64, 64, 3, 3), (32, 64, 32, 32), False),
        ((256, 256, 1, 1), (32, 256, 8, 8), False),
    ],
)
def test_it_suits_3x3_between_many_channels_and_maps_of_several_tiles(kernel, maps, suits):
    maps, kernel = torch.empty(maps), torch.empty(kernel)
    assert winograd.suits(maps, kernel, (1, 1), (1, 1), 1) == suits
    assert not winograd.suits(maps.bfloat16(), kernel, (1, 1), (1, 1), 1)
    assert not winograd.suits(maps.to("meta"), kernel, (1, 1), (1, 1), 1)


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_maps_and_first_and_second_gradients_while_it_trains_equal_those_of_conv2d(memory_format):
    shapes = (16, 128, 7, 8), (136, 128, 3, 3)
    leaves = [torch.randn(shape).to(memory_format=memory_format).requires_grad_() for shape in shapes]
    leaves.append(torch.randn(136, requires_grad=True))
    with patch.object(winograd, "convolve", wraps=winograd.convolve) as convolve:
        ours = winograd.conv2d(*leaves, (1, 1), (1, 1), 1)
        first = [torch.autograd.grad((ours / 40).sin().sum(), leaves, retain_graph=True)]
    assert convolve.call_count == 2  # the maps, and their gradient
    theirs = F.conv2d(*leaves, padding=1)
    assert_close(ours, theirs)
    first.append(torch.autograd.grad((theirs / 40).sin().sum(), leaves, retain_graph=True))
    second = []
    for result in (ours, theirs):
        gradients = torch.autograd.grad((result / 40).sin().sum(), leaves, create_graph=True)
        second.append(torch.autograd.grad(sum(g.square().sum() for g in gradients), leaves))
    for derivatives in (first, second):
        for mine, its in zip(*derivatives, strict=True):
            assert_close(mine, its, 1e-4)


@pytest.mark.parametrize("needs", range(3))
def test_only_the_gradient_that_is_needed_is_computed(needs):
    leaves = [torch.randn(16, 128, 8, 8), torch.randn(128, 128, 3, 3), torch.randn(128)]
    leaves[needs].requires_grad_()
    ours, theirs = winograd.conv2d(*leaves, (1, 1), (1, 1), 1), F.conv2d(*leaves, padding=1)
    with (
        patch.object(winograd, "convolve", wraps=winograd.convolve) as convolve,
        patch.object(winograd, "kernel_gradient", wraps=winograd.kernel_gradient) as kernel_gradient,
    ):
        assert_close(*(torch.autograd.grad(y.square().sum(), leaves[needs])[0] for y in (ours, theirs)))
    assert (convolve.call_count, kernel_gradient.call_count) == [(1, 0), (0, 1), (0, 0)][needs]


@pytest.mark.parametrize("activation", [None, nn.ReLU, nn.ReLU6])
def test_a_frozen_convolution_uses_it_for_maps_and_gradients(activation):
    plain = nn.Conv2d(128, 160, 3, padding=1).requires_grad_(False)
    plain.weight.mul_(4)  # some outputs beyond 6
    layer, maps = FrozenConv2d(plain, activation), torch.randn(2, 128, 8, 10, requires_grad=True)
    with patch.object(winograd, "convolve", wraps=winograd.convolve) as convolve:
        ours = layer(maps)
        (gradient,) = torch.autograd.grad(ours.square().sum(), maps)
    assert convolve.call_count == 2
    theirs = (activation or nn.Identity)()(plain(maps))
    assert_close(ours, theirs)
    assert_close(gradient, torch.autograd.grad(theirs.square().sum(), maps)[0], 1e-4)


@pytest.mark.parametrize(
    "plain",
    [
        nn.Conv2d(128, 128, 3, stride=2, padding=1),
        nn.Conv2d(128, 128, 3),
        nn.Conv2d(256, 256, 3, padding=1, groups=2),
        nn.Conv2d(128, 128, 1),
    ],
)
def test_other_frozen_convolutions_do_not_use_it(plain):
    maps = torch.randn(2, plain.in_channels, 8, 8)
    with torch.no_grad(), patch.object(winograd, "convolve", wraps=winograd.convolve) as convolve:
        assert_close(FrozenConv2d(plain)(maps), plain(maps))
        with torch.autocast("cpu", torch.bfloat16):
            FrozenConv2d(nn.Conv2d(128, 128, 3, padding=1))(torch.randn(2, 128, 8, 8))
    assert not convolve.called


def test_a_convolution_that_trains_uses_it_where_gradients_are_wanted(monkeypatch):
    layer = FrozenConv2d(nn.Conv2d(128, 128, 3, padding=1), nn.ReLU, frozen=False)
    maps = torch.randn(16, 128, 8, 8)
    with patch.object(winograd, "convolve", wraps=winograd.convolve) as convolve:
        maps_of = layer(maps)
        assert convolve.call_count == 1
        with torch.no_grad():
            assert_close(layer(maps), maps_of)
        with torch.autocast("cpu", torch.bfloat16):
            layer(maps)
        monkeypatch.setenv("TRANSFERGEN_ACCELERATION", "0")
        layer(maps)
    assert convolve.call_count == 1
