import copy

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from transfergen.networks.acceleration import frozen_conv as frozen
from transfergen.networks.acceleration.frozen_conv import FrozenConv2d, replace_convolutions, set_frozen
from transfergen.training.turn_losses import without_weight_gradients

CONVOLUTIONS = {
    "3x3": {"kernel_size": 3, "padding": 1},
    "1x1": {"kernel_size": 1, "bias": False},
    "unpadded": {"kernel_size": 3},
    "strided": {"kernel_size": 4, "stride": 2, "padding": 1},
    "depthwise": {"kernel_size": 5, "padding": 2, "groups": 8},
    "strided depthwise": {"kernel_size": 4, "stride": 2, "padding": 1, "groups": 8},
    "of a folded padding": {"kernel_size": 4, "stride": 2, "padding": 1, "groups": 8},
    "grouped": {"kernel_size": 3, "padding": 1, "groups": 2},
}


def convolution(name):
    plain = nn.Conv2d(8, 8, **CONVOLUTIONS[name]).requires_grad_(False)
    plain.weight.mul_(4)  # some outputs beyond 6
    if name == "of a folded padding":
        plain.weight[:, :, 0] = plain.weight[:, :, :, 0] = 0
    return plain.to(memory_format=torch.channels_last)


def maps():
    return torch.randn(3, 8, 6, 10).contiguous(memory_format=torch.channels_last).requires_grad_()


@pytest.mark.parametrize("without_kernels", [False, True])
@pytest.mark.parametrize("activation", [None, nn.ReLU, nn.ReLU6])
@pytest.mark.parametrize("name", CONVOLUTIONS)
def test_maps_and_first_and_second_gradients_equal_those_of_conv2d(monkeypatch, name, activation, without_kernels):
    plain, x = convolution(name), maps()
    layer = FrozenConv2d(plain, activation)
    assert layer.inserts_zeros == (name == "of a folded padding")
    if without_kernels:
        monkeypatch.setattr(frozen, "has_kernels", lambda dtype: False)
    ours, theirs = layer(x), (activation or nn.Identity)()(plain(x))
    torch.testing.assert_close(ours, theirs)
    with torch.no_grad():
        torch.testing.assert_close(layer(x), theirs)
    torch.testing.assert_close(*(torch.autograd.grad(y.sin().sum(), x, retain_graph=True) for y in (ours, theirs)))
    second = []
    for y in (ours, theirs):
        (gradient,) = torch.autograd.grad(y.sin().sum(), x, create_graph=True)
        second.append(torch.autograd.grad(gradient.square().sum(), x))
    torch.testing.assert_close(*second, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", CONVOLUTIONS)
def test_under_autocast_it_equals_conv2d(name):
    plain, x = convolution(name), maps()
    layer = FrozenConv2d(plain, nn.ReLU6)
    with torch.autocast("cpu", torch.bfloat16):
        ours, theirs = layer(x), F.relu6(plain(x))
    assert ours.dtype == torch.bfloat16
    assert torch.equal(ours, theirs)
    torch.testing.assert_close(*(torch.autograd.grad(y.sum(), x) for y in (ours, theirs)), rtol=0.02, atol=0.02)


def test_changed_weights_are_packed_again_and_copies_have_packed_weights_of_their_own():
    layer, x = FrozenConv2d(convolution("3x3"), nn.ReLU), maps()
    before = layer(x)
    other = copy.deepcopy(layer)
    other.load_state_dict({name: value / 2 for name, value in layer.state_dict().items()})
    torch.testing.assert_close(other(x), before / 2)
    assert torch.equal(layer(x), before)
    layer.bias.zero_()
    assert not torch.equal(layer(x), before)


def test_its_weights_have_the_names_of_conv2ds():
    plain = convolution("3x3")
    assert FrozenConv2d(plain).state_dict().keys() == plain.state_dict().keys()


def test_while_it_trains_it_computes_as_conv2d_does():
    plain, x = convolution("3x3"), maps()
    layer = FrozenConv2d(plain, nn.ReLU)
    layer(x)
    set_frozen(nn.Sequential(layer), False)
    layer.requires_grad_(True)
    gradients = [torch.autograd.grad(y.sin().sum(), [plain.weight, plain.bias]) for y in (layer(x), plain(x).relu())]
    torch.testing.assert_close(*gradients)
    with without_weight_gradients(layer.parameters()):
        plain.weight.data = plain.weight * 2  # unnoticed
        assert torch.equal(layer(x), plain(x).relu())


def test_only_plain_convolutions_and_activations_after_them_are_replaced():
    network = nn.Sequential(nn.Conv2d(8, 8, 3, padding="same"), nn.ReLU(), nn.Conv2d(8, 8, 1), nn.Tanh(), nn.ReLU())
    x = maps()
    expected = network(x)
    replace_convolutions(network)
    assert [type(layer) for layer in network] == [nn.Conv2d, nn.ReLU, FrozenConv2d, nn.Tanh, nn.ReLU]
    assert torch.equal(network(x), expected)
