from itertools import pairwise

import pytest
import torch
from torch import nn

from transfergen.networks.backbones.base import Backbone
from transfergen.networks.backbones.vgg import VGG
from transfergen.networks.discriminators.vgg import VGGDiscriminator

BOUNDARIES = range(4)


def trunk():
    """Three blocks, tapped at the first (16x16 at 32 px) and the last (4x4)."""
    widths = (3, 4, 6, 8)
    blocks = [nn.Sequential(nn.Conv2d(a, b, 3, 2, 1), nn.Tanh()) for a, b in pairwise(widths)]
    return Backbone(blocks, taps=(0, 2), channels=(4, 8), strides=(2, 8))


def discriminator(**settings):
    return VGGDiscriminator(trunk(), **{"resolution": 32, "width": 4, "hidden": 6} | settings)


@pytest.fixture
def images():
    return torch.rand(6, 3, 32, 32) * 2 - 1


def test_at_64_px_every_depth_of_vgg19_and_the_pixels_have_a_fully_connected_head():
    with torch.device("meta"):
        trunk = VGG(cut="relu4_4", taps=("relu1_2", "relu2_2", "relu3_4"), weights="random")
        d = VGGDiscriminator(trunk)
    assert [head[0].in_channels for head in d.heads] == [3, 64, 128, 256, 512]
    for head in d.heads:
        linear = [(m.in_features, m.out_features) for m in head if isinstance(m, nn.Linear)]
        assert linear == [(64 * 4 * 4, 256), (256, 1)]


@pytest.mark.parametrize("pixels", [True, False])
@pytest.mark.parametrize("frozen", BOUNDARIES)
def test_logits_are_the_same_wherever_the_network_is_divided(frozen, pixels, images):
    d = discriminator(pixels=pixels).eval()
    d.calibrate(images)
    whole = d(images)
    d.freeze(frozen)
    logits = d.score(d.features(images))
    assert logits.shape == (6, 2 + pixels)
    torch.testing.assert_close(logits, whole)


@pytest.mark.parametrize("frozen", BOUNDARIES)
def test_heads_and_blocks_that_are_not_frozen_train(frozen, images):
    d = discriminator()
    d.freeze(frozen)
    free = {p for block in d.backbone.blocks[frozen:] for p in block.parameters()} | set(d.heads.parameters())
    assert set(d.trainable_parameters()) == free
    d(images).sum().backward()
    assert {p for p in d.parameters() if p.grad is not None} == free


@pytest.mark.parametrize("frozen", BOUNDARIES)
def test_joint_logits_are_those_of_one_batch_and_so_are_their_gradients(frozen, images):
    d, fakes = discriminator(), images.flip(0).clone().requires_grad_()
    d.freeze(frozen)
    d.eval()
    together = d(torch.cat([images, fakes])).chunk(2)
    apart = d.score_jointly(d.features(images), d.features(fakes))
    for ours, expected in zip(apart, together, strict=True):
        torch.testing.assert_close(ours, expected)
    (one,), (other,) = (torch.autograd.grad(pair[1].sum(), fakes, retain_graph=True) for pair in (apart, together))
    torch.testing.assert_close(one, other)


def test_joint_batches_show_how_the_means_of_reals_and_fakes_differ(images):
    d = discriminator()
    d.freeze(3)
    d.train()
    brighter = 0.5 * images + 0.5
    apart = [d.score(d.features(each)) for each in (images, brighter)]
    together = d.score_jointly(d.features(images), d.features(brighter))
    one, other = ((real - fake).mean(0)[0].abs() for real, fake in (together, apart))
    assert one > 2 * other  # the head on the pixels: its batch normalisation hides a brightness that all share


def test_the_head_on_the_pixels_sees_what_the_trunk_does_not(images):
    d = discriminator()
    d.freeze(3)
    for p in d.backbone.parameters():
        p.zero_()
    images.requires_grad_()
    d(images)[:, 1:].sum().backward()
    assert not images.grad.any()
    d(images)[:, 0].sum().backward()
    assert images.grad.abs().amax((1, 2, 3)).min() > 0


def test_without_standardisation_features_stay_as_they_are(images):
    d = discriminator(standardize_features=False).eval()
    before = d(images)
    d.calibrate(images)
    assert torch.equal(d(images), before)
