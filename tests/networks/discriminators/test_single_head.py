from itertools import pairwise

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from transfergen.networks.backbones.base import Backbone
from transfergen.networks.backbones.timm import TimmBackbone
from transfergen.networks.backbones.vgg import VGG
from transfergen.networks.discriminators.projected import ProjectedDiscriminator
from transfergen.networks.discriminators.single_head import SingleHeadDiscriminator

BOUNDARIES = range(4)


def trunk():
    """Three blocks with batch norm, tapped at the first (16x16 at 32 px) and the last (4x4)."""
    widths = (3, 4, 6, 8)
    blocks = [nn.Sequential(nn.Conv2d(a, b, 3, 2, 1), nn.BatchNorm2d(b), nn.Tanh()) for a, b in pairwise(widths)]
    return Backbone(blocks, taps=(0, 2), channels=(4, 8), strides=(2, 8))


def discriminator(**settings):
    return SingleHeadDiscriminator(trunk(), **{"resolution": 32, "hidden": 16} | settings)


@pytest.fixture
def images():
    return torch.rand(6, 3, 32, 32) * 2 - 1


def test_the_textbook_head_is_linear_8192_to_1024_to_1():
    with torch.device("meta"):
        head = SingleHeadDiscriminator(VGG(weights="random")).head
    linear = [(m.in_features, m.out_features) for m in head if isinstance(m, nn.Linear)]
    assert linear == [(8192, 1024), (1024, 1)]
    assert [type(m) for m in head] == [nn.Linear, nn.LeakyReLU, nn.Dropout, nn.Linear]
    assert (head[1].negative_slope, head[2].p) == (0.2, 0.5)


@pytest.mark.parametrize("frozen", BOUNDARIES)
def test_logits_are_those_of_the_undivided_network_at_every_boundary(frozen, images):
    d = discriminator().eval()
    shallow, deep = d.backbone(images)
    expected = d.head(d.scale * torch.cat([F.avg_pool2d(shallow, 4).flatten(1), deep.flatten(1)], dim=1))
    d.freeze(frozen)
    logits = d.score(d.features(images))
    assert logits.shape == (6, 1)
    torch.testing.assert_close(logits, expected)
    assert torch.equal(d(images), logits)


@pytest.mark.parametrize("frozen", BOUNDARIES)
def test_frozen_blocks_do_not_train_and_all_others_do(frozen, images):
    d = discriminator()
    d.freeze(frozen)
    free = {p for block in d.backbone.blocks[frozen:] for p in block.parameters()} | set(d.head.parameters())
    assert {p for p in d.parameters() if p.requires_grad} == free
    assert set(d.trainable_parameters()) == free
    d(images).sum().backward()
    assert {p for p in d.parameters() if p.grad is not None} == free


def test_features_of_a_frozen_prefix_are_already_pooled(images):
    d = discriminator()
    assert [f.shape[1:] for f in d.features(images)] == [(3, 32, 32)]
    d.freeze(2)
    assert [f.shape[1:] for f in d.features(images)] == [(4, 16, 16), (6, 8, 8)]
    d.freeze(3)
    assert [f.shape[1:] for f in d.features(images)] == [(4, 4, 4), (8, 4, 4)]


def test_images_get_gradients_through_a_frozen_trunk_whose_weights_get_none(images):
    d = discriminator()
    d.freeze(3)
    images.requires_grad_()
    d(images).sum().backward()
    assert images.grad.abs().amax((1, 2, 3)).min() > 0
    assert all(p.grad is None for p in d.backbone.parameters())


def test_train_cannot_undo_the_freezing(images):
    d = discriminator()
    d.freeze(2)
    nn.Sequential(d).train()
    before = {name: tensor.clone() for name, tensor in d.backbone.state_dict().items()}
    d(images)
    moved = {name.split(".")[1] for name, t in d.backbone.state_dict().items() if not torch.equal(t, before[name])}
    assert moved == {"2"}  # batch norm statistics of the block that trains
    assert d.head[2].training
    assert not any(p.requires_grad for p in d.backbone.blocks[:2].parameters())
    d.freeze(0)
    assert all(module.training for module in d.modules())


@pytest.mark.parametrize(("pool", "inputs"), [(1, 4 + 8), (2, 4 * 4 + 8 * 4), (8, 4 * 64 + 8 * 16)])
def test_only_maps_larger_than_pool_are_pooled(pool, inputs, images):
    d = discriminator(pool=pool)
    assert d.head[0].in_features == inputs
    assert d(images).shape == (6, 1)


@pytest.mark.parametrize("frozen", BOUNDARIES)
def test_a_calibrated_head_sees_standardised_channels_of_norm_one_together(frozen, images):
    d = discriminator().eval()
    norm = d.backbone.blocks[0][1]
    nn.init.constant_(norm.weight, 1e-3)  # a shallow tap of small features, one of its channels always 0.2
    nn.init.zeros_(norm.weight[:1])
    nn.init.constant_(norm.bias, 0.2)
    d.freeze(frozen)
    d.calibrate(images)
    seen = []
    d.head[0].register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0].detach()))
    d(images)
    channels = seen[0].view(6, 4 + 8, 16) * (12 * 16) ** 0.5
    mean, std = channels.mean((0, 2)), channels.std((0, 2))
    torch.testing.assert_close(mean, torch.zeros(12), rtol=0, atol=1e-2)
    torch.testing.assert_close(std[1:], torch.ones(11), rtol=1e-2, atol=0)
    assert std[0] == 0


def test_calibration_is_saved_with_the_weights(images):
    d, restored = discriminator().eval(), discriminator().eval()
    d.calibrate(images)
    restored.load_state_dict(d.state_dict())
    assert torch.equal(restored(images), d(images))


def test_without_calibration_features_stay_as_they_are(images):
    d = discriminator(standardize_features=False).eval()
    before = d(images)
    d.calibrate(images)
    assert torch.equal(d(images), before)


@pytest.mark.parametrize("kind", [SingleHeadDiscriminator, ProjectedDiscriminator])
def test_images_that_are_resized_to_too_few_pixels_are_refused_before_the_trunk_is_run(kind):
    backbone = TimmBackbone(weights="random", taps=(1, 2, 3), input_size=10)
    with pytest.raises(ValueError, match=r"^resolution=32: .* 2x2 of 10 px; choose for the backbone input_size=32"):
        kind(backbone, resolution=32)


def test_a_trunk_too_deep_for_the_resolution_is_refused():
    with pytest.raises(ValueError, match=r"less than 2x2 of 8 px; choose a larger resolution"):
        discriminator(resolution=8)
