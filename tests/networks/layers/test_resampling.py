import pytest
import torch
from torch.nn import functional as F

from transfergen.networks.layers.resampling import UpsampledConv2d


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_it_is_upsampling_and_a_convolution_to_the_border_and_in_its_gradients(bias, memory_format):
    layer = UpsampledConv2d(3, 5, bias=bias).double().to(memory_format=memory_format)
    maps = torch.randn(2, 3, 4, 7, dtype=torch.float64).to(memory_format=memory_format).requires_grad_()
    plain = F.conv2d(F.interpolate(maps, scale_factor=2.0), layer.weight, layer.bias, padding=1)
    fused = layer(maps)
    torch.testing.assert_close(fused, plain)
    inputs, outer = [maps, *layer.parameters()], torch.randn_like(plain)
    expected = torch.autograd.grad(plain, inputs, outer)
    torch.testing.assert_close(torch.autograd.grad(fused, inputs, outer), expected)
