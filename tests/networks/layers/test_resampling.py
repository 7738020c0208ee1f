import pytest
import torch
from torch import nn
from torch.nn import functional as F

from transfergen.networks.layers.resampling import (
    MOST_POSITIONS,
    ConvTranspose2x,
    UpsampledConv2d,
    WholeMapConv2d,
    conv_transpose_2x,
)

FORMATS = [torch.contiguous_format, torch.channels_last]


def inputs(*shapes, memory_format=torch.contiguous_format):
    return [torch.randn(s, dtype=torch.float64).to(memory_format=memory_format).requires_grad_() for s in shapes]


@pytest.mark.parametrize("memory_format", FORMATS)
@pytest.mark.parametrize("rows", [1, 4, MOST_POSITIONS + 1])
def test_conv_transpose_2x_equals_torchs_up_to_second_gradients(rows, memory_format):
    maps, kernel = inputs((2, 10, rows, 5), (10, 6, 4, 4), memory_format=memory_format)
    bias = torch.randn(6, dtype=torch.float64, requires_grad=True)
    ours, plain = conv_transpose_2x(maps, kernel, bias), F.conv_transpose2d(maps, kernel, bias, stride=2, padding=1)
    torch.testing.assert_close(ours, plain)
    first, second = [], []
    for result in (ours, plain):
        gradients = torch.autograd.grad(result.sin().sum(), [maps, kernel, bias], create_graph=True)
        first.append(gradients)
        second.append(torch.autograd.grad(sum(g.square().sum() for g in gradients), [maps, kernel, bias]))
    torch.testing.assert_close(*first)
    torch.testing.assert_close(*second)


@pytest.mark.parametrize(("needs", "shape"), [(0, (2, 8, 4, 4)), (1, (8, 6, 4, 4))])
def test_conv_transpose_2x_computes_only_the_gradient_that_is_needed(needs, shape):
    leaves = inputs((2, 8, 4, 4), (8, 6, 4, 4))
    leaves[1 - needs].requires_grad_(False)
    conv_transpose_2x(*leaves).sum().backward()
    assert leaves[needs].grad.shape == shape
    assert leaves[1 - needs].grad is None


def test_conv_transpose_2x_has_the_precision_of_autocast():
    layer = ConvTranspose2x(8, 4).to(memory_format=torch.channels_last)
    maps, outer = torch.randn(2, 8, 4, 4, requires_grad=True), torch.randn(2, 4, 8, 8)
    gradients = []
    for compute in (layer, lambda m: F.conv_transpose2d(m, layer.weight, layer.bias, stride=2, padding=1)):
        with torch.autocast("cpu", torch.bfloat16):
            result = compute(maps)
        assert result.dtype == torch.bfloat16
        gradients.append(torch.autograd.grad(result, [maps, *layer.parameters()], outer.bfloat16()))
    torch.testing.assert_close(*gradients, rtol=2**-6, atol=2**-4)


@pytest.mark.parametrize("side", [4, 6])
@pytest.mark.parametrize("memory_format", FORMATS)
def test_a_whole_map_convolution_equals_torchs_in_maps_and_gradients(side, memory_format):
    layer = WholeMapConv2d(5, 2, 4).double().to(memory_format=memory_format)
    (maps,) = inputs((3, 5, side, side), memory_format=memory_format)
    expected = F.conv2d(maps, layer.weight, layer.bias)
    result = layer(maps)
    torch.testing.assert_close(result, expected)
    outer = torch.randn_like(expected)
    leaves = [maps, *layer.parameters()]
    torch.testing.assert_close(torch.autograd.grad(result, leaves, outer), torch.autograd.grad(expected, leaves, outer))


def test_both_are_torchs_layers_so_that_published_weights_fit():
    assert isinstance(ConvTranspose2x(1, 1), nn.ConvTranspose2d)
    assert isinstance(WholeMapConv2d(1, 1, 4), nn.Conv2d)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("memory_format", FORMATS)
def test_an_upsampled_convolution_equals_upsampling_and_convolution_in_maps_and_gradients(bias, memory_format):
    layer = UpsampledConv2d(3, 5, bias=bias).double().to(memory_format=memory_format)
    maps = torch.randn(2, 3, 4, 7, dtype=torch.float64).to(memory_format=memory_format).requires_grad_()
    plain = F.conv2d(F.interpolate(maps, scale_factor=2.0), layer.weight, layer.bias, padding=1)
    fused = layer(maps)
    torch.testing.assert_close(fused, plain)
    inputs, outer = [maps, *layer.parameters()], torch.randn_like(plain)
    expected = torch.autograd.grad(plain, inputs, outer)
    torch.testing.assert_close(torch.autograd.grad(fused, inputs, outer), expected)
