"""With `TRANSFERGEN_ACCELERATION=0`, networks stay as they were built, and compute the same."""

import copy

import pytest
import torch
from torch import nn

from transfergen.networks.acceleration.folding import fold_batchnorm, fuse_activations
from transfergen.networks.acceleration.frozen_conv import FrozenConv2d
from transfergen.networks.acceleration.prepared_kernel import PreparedKernel
from transfergen.networks.backbones.base import Backbone
from transfergen.networks.backbones.timm import TimmBackbone
from transfergen.networks.discriminators.projected import ProjectedDiscriminator
from transfergen.networks.discriminators.vgg import VGGDiscriminator


def plain_trunk():
    blocks = [nn.Sequential(nn.Conv2d(a, b, 3, 2, 1), nn.ReLU()) for a, b in ((3, 4), (4, 6))]
    return Backbone(blocks, taps=(0, 1), channels=(4, 6), strides=(2, 4))


def vgg_discriminator(trunk):
    d = VGGDiscriminator(trunk, resolution=32, width=4, hidden=8)
    d.freeze(d.blocks)
    return d


BUILD = {
    "projected": (
        lambda: TimmBackbone(taps=(1, 2), weights="random").eval(),
        lambda trunk: ProjectedDiscriminator(trunk, resolution=32, channels=4, width=4),
    ),
    "vgg": (plain_trunk, vgg_discriminator),
}


@pytest.mark.parametrize("name", BUILD)
def test_logits_and_gradients_agree_with_acceleration_on_and_off(name, monkeypatch):
    build_trunk, build = BUILD[name]
    trunk, images = build_trunk(), (torch.rand(4, 3, 32, 32) * 2 - 1).requires_grad_()
    logits, gradients, prepared, others = [], [], [], None
    for switch in ("1", "0"):
        monkeypatch.setenv("TRANSFERGEN_ACCELERATION", switch)
        d = build(copy.deepcopy(trunk)).eval()
        others = others or {k: v.clone() for k, v in d.state_dict().items() if not k.startswith("backbone.")}
        d.load_state_dict(others, strict=False)
        logits.append(d(images))
        gradients += torch.autograd.grad(logits[-1].square().sum(), images)
        prepared.append([bool(m._prepared) for m in d.modules() if isinstance(m, FrozenConv2d)])
    assert any(prepared[0])
    assert not any(prepared[1])
    torch.testing.assert_close(*logits, rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(*gradients, rtol=1e-2, atol=1e-3 * gradients[0].abs().max().item())


@pytest.mark.parametrize("change", [fold_batchnorm, fuse_activations])
def test_turned_off_it_leaves_a_trunk_as_it_is(change, monkeypatch):
    monkeypatch.setenv("TRANSFERGEN_ACCELERATION", "0")
    trunk = plain_trunk()
    before = str(trunk)
    change(trunk, 32)
    assert str(trunk) == before
    monkeypatch.setenv("TRANSFERGEN_ACCELERATION", "1")
    change(trunk, 32)
    assert str(trunk) != before


def test_it_can_be_turned_off_after_a_network_was_built(monkeypatch):
    layer, maps = FrozenConv2d(nn.Conv2d(3, 4, 3), nn.ReLU), torch.randn(2, 3, 8, 8)
    expected = layer(maps)
    monkeypatch.setenv("TRANSFERGEN_ACCELERATION", "0")
    monkeypatch.setattr(PreparedKernel, "convolve", None)  # not to be called
    torch.testing.assert_close(layer(maps), expected)
