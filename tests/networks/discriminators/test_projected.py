import copy
import math

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from trunks import trunk

from transfergen.networks.discriminators.base import Discriminator
from transfergen.networks.discriminators.projected import ProjectedDiscriminator


def discriminator(widths=(4, 6, 8), **settings):
    small = {"resolution": 32, "channels": 4, "width": 4, "enlarge": False, "standardize_features": True}
    return ProjectedDiscriminator(trunk(widths), **small | settings)


@pytest.fixture
def images():
    return torch.rand(6, 3, 32, 32) * 2 - 1


def test_each_scale_is_mixed_to_twice_the_channels_of_the_one_before(images):
    d = discriminator()
    assert [tuple(m.shape[1:]) for m in d.features(images)] == [(4, 16, 16), (8, 8, 8), (16, 4, 4)]


def test_cross_scale_mixing_adds_what_is_below_enlarged_and_projected(images):
    d = discriminator()
    images.requires_grad_()
    conv = lambda m, mix: F.conv2d(m, mix.weight, mix.bias)  # noqa: E731
    enlarged = lambda m: F.interpolate(m, scale_factor=2, mode="bilinear")  # noqa: E731
    shallow, middle, deep = (conv(m, mix) for m, mix in zip(d.backbone(images), d.mix_channels, strict=True))
    middle = (middle + conv(enlarged(deep), d.mix_scales[1])) / math.sqrt(2)
    shallow = (shallow + conv(enlarged(middle), d.mix_scales[0])) / math.sqrt(2)
    gradients = []
    for maps in (d.features(images), [shallow, middle, deep]):
        gradients.append(torch.autograd.grad(maps[0].square().sum(), images))
        for found, expected in zip(maps, (shallow, middle, deep), strict=True):
            torch.testing.assert_close(found, expected)
    torch.testing.assert_close(*gradients)


def test_the_heads_are_those_of_the_release():
    """A trunk of strides 2 to 16 at 112 px has the maps that EfficientNet-Lite0 has of 224 px."""
    d = ProjectedDiscriminator(trunk((24, 40, 112, 320)), resolution=112)
    assert [tuple(m.shape[1:]) for m in d.features(torch.zeros(1, 3, 112, 112))] == [
        (64, 112, 112),
        (64, 56, 56),
        (128, 28, 28),
        (256, 14, 14),
    ]
    assert [head.num_logits for head in d.heads] == [16] * 4
    assert [[m.out_channels for m in head if isinstance(m, nn.Conv2d)] for head in d.heads] == [
        [64, 128, 256, 512, 1],
        [128, 256, 512, 1],
        [256, 512, 1],
        [512, 1],
    ]
    redundant = sum(m.num_features for m in d.heads.modules() if isinstance(m, nn.BatchNorm2d))  # biases before these
    assert sum(p.numel() for p in d.trainable_parameters()) == 10_331_328 - redundant


def test_enlarged_maps_are_summed_enlarged_and_then_projected_as_in_the_release(images):
    d = discriminator(enlarge=True)
    project = lambda m, mix: F.conv2d(  # noqa: E731
        F.interpolate(m, scale_factor=2, mode="bilinear", align_corners=True), mix.weight, mix.bias
    )
    shallow, middle, deep = (F.conv2d(m, mix.weight) for m, mix in zip(d.backbone(images), d.mix_channels, strict=True))
    deep = project(deep, d.mix_scales[2])
    middle = project(middle + deep, d.mix_scales[1])
    shallow = project(shallow + middle, d.mix_scales[0])
    for found, expected in zip(d.features(images), (shallow, middle, deep), strict=True):
        torch.testing.assert_close(found, expected)
    assert d(images).shape == (6, d.num_logits)


def test_without_cross_scale_mixing_a_scale_stands_for_itself(images):
    d = discriminator(mix_scales=False)
    for found, m, mix in zip(d.features(images), d.backbone(images), d.mix_channels, strict=True):
        torch.testing.assert_close(found, F.conv2d(m, mix.weight))
    assert not len(d.mix_scales)


def test_random_projections_keep_the_variance_of_independent_channels():
    d = discriminator(widths=(512,), channels=512)
    mixed = d.mix_channels[0](torch.randn(4, 512, 8, 8))
    assert mixed.var().item() == pytest.approx(1, rel=0.05)


def test_random_projections_never_train(images):
    d = discriminator()
    heads = set(d.heads.parameters())
    assert set(d.trainable_parameters()) == heads == {p for p in d.parameters() if p.requires_grad}
    optimizer = torch.optim.SGD(d.parameters(), lr=1.0)
    before = [p.clone() for p in d.parameters()]
    d(images).square().sum().backward()
    optimizer.step()
    moved = {p for p, old in zip(d.parameters(), before, strict=True) if not torch.equal(p, old)}
    assert moved == heads


def test_a_calibrated_projection_is_that_of_standardised_channels(images):
    d = discriminator(mix_scales=False)
    weights = [mix.weight.clone() for mix in d.mix_channels]
    d.calibrate(images)
    for found, m, weight in zip(d.features(images), d.backbone(images), weights, strict=True):
        std, mean = torch.std_mean(m, dim=(0, 2, 3), keepdim=True)
        torch.testing.assert_close(found, F.conv2d((m - mean) / std, weight), rtol=1e-4, atol=1e-4)


def test_calibration_is_done_once(images):
    d = discriminator().eval()
    d.calibrate(images)
    before = d(images)
    d.calibrate(images / 2)
    assert torch.equal(d(images), before)


@pytest.mark.parametrize("standardize_features", [True, False])
def test_calibration_can_be_turned_off(standardize_features, images):
    d = discriminator(standardize_features=standardize_features).eval()
    before = d(images)
    d.calibrate(images)
    assert torch.equal(d(images), before) != standardize_features


def test_projections_and_calibration_are_saved_with_the_weights(images):
    d, restored = discriminator().eval(), discriminator().eval()
    d.calibrate(images)
    assert not torch.equal(restored(images), d(images))
    restored.load_state_dict(d.state_dict())
    assert torch.equal(restored(images), d(images))


@pytest.mark.parametrize(
    ("widths", "resolution", "logits"),
    [
        ((4,), 32, [1]),
        ((4, 6, 8), 32, [1, 1, 1]),
        ((4, 6, 8), 56, [16, 16, 16]),  # 28, 14 and 7 px all end at 7x7, which the last convolution makes 4x4
        ((4, 6, 8, 8), 32, [1, 1, 1, 1]),  # 2 px, judged as a whole
    ],
)
def test_there_is_a_head_for_each_scale_that_fits_its_size(widths, resolution, logits):
    d = discriminator(widths, resolution=resolution)
    images = torch.rand(2, 3, resolution, resolution)
    assert d(images).shape == (2, sum(logits))
    assert [head(m)[0].numel() for head, m in zip(d.heads, d.features(images), strict=True)] == logits


def test_logits_are_joined_shallow_scale_first(images):
    d = discriminator(resolution=32).eval()
    features = d.features(images)
    before = d.score(features)
    features[2] = features[2] + 1
    assert (d.score(features) != before).any(0).tolist() == [False, False, True]


def test_each_scale_is_told_of_an_images_class(images):
    d, y = discriminator(num_classes=3).eval(), torch.tensor([0, 1, 2, 0, 1, 2])
    other = torch.where(torch.arange(6) == 4, 2, y)
    changed = d(images, other) != d(images, y)
    assert changed.all(dim=1).tolist() == changed.any(dim=1).tolist() == [image == 4 for image in range(6)]


@pytest.mark.parametrize("num_classes", [0, 3])
def test_scored_jointly_for_the_generator_reals_get_no_gradient_and_fakes_the_same_one(images, num_classes):
    d, y = discriminator(num_classes=num_classes), torch.tensor([0, 1, 2, 2, 1, 0])
    real, fake = d.features(images), d.features(images.flip(-1).clone().requires_grad_())
    assert [m.requires_grad for m in (*real, *fake)] == [False] * 3 + [True] * 3
    found, expected = [], []
    for listed, cls in ((found, ProjectedDiscriminator), (expected, Discriminator)):
        scoring = copy.deepcopy(d)  # spectral norm and batch statistics move with each pass
        logits = cls.score_jointly(scoring, real, fake, y)
        gradients = torch.autograd.grad((logits[0] * logits[1]).sum(), fake, retain_graph=True)
        listed.extend((*logits, *gradients, *scoring.state_dict().values()))
    assert len(found) == len(expected)
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a, b)


def test_a_trunk_too_deep_for_the_resolution_is_refused():
    with pytest.raises(ValueError, match=r"^resolution=8: .* 8 px; .* shallower cut"):
        discriminator(resolution=8)
