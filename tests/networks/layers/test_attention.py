import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from transfergen.networks.layers.attention import SelfAttention, check_attention


@pytest.fixture
def attention():
    layer = SelfAttention(16).double()
    nn.init.constant_(layer.gain, 0.7)
    return layer


def by_hand(layer, maps):
    """The paper's equations 1 to 3, with the pooling of its code: a softmax over all positions i for each j."""
    query = layer.query(maps).flatten(2)
    key, value = (F.max_pool2d(convolution(maps), 2).flatten(2) for convolution in (layer.key, layer.value))
    scores = torch.einsum("bci,bcj->bij", key, query)
    weights = scores.exp() / scores.exp().sum(dim=1, keepdim=True)
    gathered = torch.einsum("bci,bij->bcj", value, weights).unflatten(2, maps.shape[2:])
    return maps + layer.gain * layer.out(gathered)


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_it_is_the_papers_softmax_written_out_in_its_gradients_too(attention, memory_format):
    maps = (2 * torch.randn(3, 16, 6, 4, dtype=torch.float64)).to(memory_format=memory_format).requires_grad_()
    expected = by_hand(attention, maps)
    result = attention(maps)
    assert (expected - maps).abs().mean() > 0.1
    torch.testing.assert_close(result, expected)
    inputs, outer = [maps, *attention.parameters()], torch.randn_like(expected)
    torch.testing.assert_close(torch.autograd.grad(result, inputs, outer), torch.autograd.grad(expected, inputs, outer))


class LargestTensor(TorchDispatchMode):
    """The number of elements of the largest tensor that any operation returns."""

    def __init__(self):
        super().__init__()
        self.numel = 0

    def __torch_dispatch__(self, operation, types, args=(), kwargs=None):
        result = operation(*args, **kwargs or {})
        tensors = [each for each in torch.utils._pytree.tree_leaves(result) if isinstance(each, torch.Tensor)]
        self.numel = max(self.numel, *(tensor.numel() for tensor in tensors), 0)
        return result


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_without_gradients_no_matrix_of_all_weights_is_made_and_the_result_is_the_same(dtype, memory_format):
    layer = SelfAttention(16).to(dtype)
    nn.init.constant_(layer.gain, 0.7)
    maps = torch.randn(1, 16, 32, 64, dtype=dtype).to(memory_format=memory_format)
    with torch.no_grad(), LargestTensor() as largest:
        result = layer(maps)
    assert largest.numel == maps.numel()
    rounding = {torch.float32: 1e-5, torch.bfloat16: 1e-2}[dtype]
    torch.testing.assert_close(result, layer(maps), atol=rounding, rtol=rounding)


def test_it_starts_as_the_identity_and_its_gain_learns():
    layer = SelfAttention(16)
    maps = torch.randn(2, 16, 4, 4)
    assert torch.equal(layer(maps), maps)
    layer(maps).square().sum().backward()
    assert layer.gain.grad != 0


def test_channels_are_the_papers():
    layer = SelfAttention(64)
    shapes = [tuple(p.shape[:2]) for p in layer.parameters() if p.ndim > 1]
    assert shapes == [(8, 64), (8, 64), (32, 64), (64, 32)]


def test_each_position_sees_all_others_and_images_do_not_mix(attention):
    maps = torch.randn(2, 16, 4, 4, dtype=torch.float64, requires_grad=True)
    (gradient,) = torch.autograd.grad(attention(maps)[0, :, 0, 0].sum(), maps)
    # Of each 2x2, what the maximum is taken from in one of the channels: all but certainly each of the four.
    assert (gradient[0].abs().sum(dim=0) > 0).sum() > 8
    assert not gradient[1].any()


def test_a_size_that_no_maps_have_is_refused():
    check_attention(None, [8, 16, 32])
    check_attention(32, [8, 16, 32])
    with pytest.raises(ValueError, match=r"^attention=64: the maps are 8, 16, 32 px"):
        check_attention(64, [8, 16, 32])
