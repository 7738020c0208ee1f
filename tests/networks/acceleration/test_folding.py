import copy

import pytest
import torch
from timm.layers.conv2d_same import Conv2dSame
from torch import nn

from transfergen.networks.acceleration.folding import fold_batchnorm, fuse_activations
from transfergen.networks.acceleration.frozen_conv import FrozenConv2d
from transfergen.networks.backbones.base import Backbone
from transfergen.networks.backbones.timm import TimmBackbone


def normalisations(network):
    return [m for m in network.modules() if isinstance(m, nn.BatchNorm2d)]


def padded_by_copying(network):
    return [m for m in network.modules() if isinstance(m, Conv2dSame)]


def with_statistics(backbone):
    for module in normalisations(backbone):
        nn.init.normal_(module.running_mean, std=0.1)
        nn.init.uniform_(module.running_var, 0.5, 2)
        nn.init.uniform_(module.weight, 0.5, 2)
        nn.init.normal_(module.bias)
    return backbone.eval().requires_grad_(False)


@pytest.mark.parametrize("name", ["resnet18", "mobilenetv3_small_100", "regnetx_002", "tf_efficientnet_lite0"])
def test_maps_and_gradients_stay_the_same_without_normalisation_and_padding(name):
    backbone = with_statistics(TimmBackbone(name=name, taps=(1, 2), weights="random"))
    folded = copy.deepcopy(backbone)
    fold_batchnorm(folded, 64)
    assert normalisations(backbone)
    assert not normalisations(folded)
    assert not padded_by_copying(folded)
    images = (torch.rand(2, 3, 64, 64) * 2 - 1).requires_grad_()
    gradients = []
    for trunk in (backbone, folded):
        maps = trunk(images)
        gradients.append(torch.autograd.grad(sum(m.square().mean() for m in maps), images)[0])
    for ours, theirs in zip(folded(images), backbone(images), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4 * theirs.abs().max().item())
    torch.testing.assert_close(*gradients, rtol=1e-3, atol=1e-3 * gradients[0].abs().max().item())


class NormalisedFirst(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 3, 3, padding=1), nn.BatchNorm2d(3)

    def forward(self, x):
        return self.conv(self.norm(x))


def test_a_network_that_normalises_first_stays_as_it_was():
    backbone = with_statistics(Backbone([NormalisedFirst()], taps=[0], channels=[3], strides=[1]))
    images = torch.rand(2, 3, 8, 8)
    before = backbone(images)
    fold_batchnorm(backbone, 8)
    assert normalisations(backbone)
    torch.testing.assert_close(backbone(images), before)


class ActivatedFirst(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.act = nn.Conv2d(3, 3, 3, padding=1), nn.ReLU()

    def forward(self, x):
        return self.conv(self.act(x))


@pytest.mark.parametrize("order", [ActivatedFirst, lambda: nn.Sequential(nn.Conv2d(3, 3, 3), nn.ReLU())])
def test_an_activation_is_fused_only_if_it_is_called_after_the_convolution(order):
    backbone = Backbone([order()], taps=[0], channels=[3], strides=[1]).requires_grad_(False)
    before = copy.deepcopy(backbone)
    fuse_activations(backbone, 8)
    assert backbone.training
    assert any(isinstance(m, FrozenConv2d) for m in backbone.modules()) == (order is not ActivatedFirst)
    images = torch.rand(2, 3, 8, 8) * 2 - 1
    assert torch.equal(backbone(images)[0], before(images)[0])


def test_padding_of_maps_with_odd_sides_stays_as_it_was():
    backbone = with_statistics(TimmBackbone(taps=(1, 2), weights="random"))
    images = torch.rand(2, 3, 50, 50)  # 25 after the first convolution
    before = backbone(images)
    fold_batchnorm(backbone, 50)
    assert padded_by_copying(backbone)
    assert not normalisations(backbone)
    for ours, theirs in zip(backbone(images), before, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4 * theirs.abs().max().item())


def test_on_a_cpu_a_folded_trunk_computes_in_bfloat16_with_the_gradient_of_float32():
    backbone = with_statistics(TimmBackbone(taps=(1, 2), weights="random"))
    fold_batchnorm(backbone, 32)
    images = (torch.rand(8, 3, 32, 32) * 2 - 1).requires_grad_()
    gradients = []
    for enabled in (False, True):
        with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
            maps = backbone(images)
            assert {m.dtype for m in maps} == {torch.bfloat16 if enabled else torch.float32}
            gradients += torch.autograd.grad(sum(m.float().square().mean() for m in maps), images)
    assert torch.cosine_similarity(gradients[0].flatten(), gradients[1].flatten(), dim=0) > 0.95


def test_on_a_cpu_a_trunk_with_strided_depthwise_convolutions_stays_in_float32():
    backbone = with_statistics(TimmBackbone(taps=(1, 2), weights="random"))
    fold_batchnorm(backbone, 50)
    with torch.autocast("cpu", torch.bfloat16):
        assert {m.dtype for m in backbone(torch.rand(2, 3, 50, 50))} == {torch.float32}
