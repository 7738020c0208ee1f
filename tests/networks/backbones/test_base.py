from itertools import pairwise

import pytest
import torch
from torch import nn

from transfergen.networks.backbones.base import Backbone


def trunk(**settings):
    """Four blocks that halve the image, tapped at the second and the last."""
    widths = (3, 4, 6, 8, 10)
    blocks = [nn.Sequential(nn.Conv2d(a, b, 3, 2, 1), nn.BatchNorm2d(b)) for a, b in pairwise(widths)]
    return Backbone(blocks, taps=(1, 3), channels=(6, 10), strides=(4, 16), **settings)


@pytest.mark.parametrize("cut", range(5))
@pytest.mark.parametrize("input_size", [None, 48])
def test_prefix_and_suffix_together_are_forward_wherever_it_is_cut(cut, input_size):
    backbone, images = trunk(input_size=input_size).eval(), torch.rand(2, 3, 64, 64) * 2 - 1
    whole = backbone(images)
    halves = backbone.suffix(backbone.prefix(images, cut), cut)
    assert [m.shape[1] for m in whole] == [6, 10]
    assert len(halves) == 2
    assert all(torch.equal(a, b) for a, b in zip(whole, halves, strict=True))


def test_an_empty_prefix_hands_the_images_on_and_a_full_one_gives_the_taps():
    backbone, images = trunk(), torch.rand(1, 3, 64, 64)
    assert backbone.prefix(images, 0)[0] is images
    assert [m.shape for m in backbone.prefix(images, 4)] == [(1, 6, 16, 16), (1, 10, 4, 4)]
    assert [m.shape for m in backbone.prefix(images, 3)] == [(1, 6, 16, 16), (1, 8, 8, 8)]


def test_the_output_of_a_prefix_can_be_used_twice():
    backbone = trunk().eval()
    state = backbone.prefix(torch.rand(1, 3, 64, 64), 3)
    before = [m.clone() for m in state]
    first, second = backbone.suffix(state, 3), backbone.suffix(state, 3)
    assert all(torch.equal(a, b) for a, b in zip(before + first, state + second, strict=True))


def test_the_first_block_sees_images_normalised_and_resized():
    mean, std = (0.4, 0.5, 0.6), (0.1, 0.2, 0.4)
    backbone = Backbone([nn.Identity()], taps=(0,), channels=(3,), strides=(1,), mean=mean, std=std, input_size=8)
    unit = torch.tensor([0.0, 0.5, 1.0])
    (seen,) = backbone((unit * 2 - 1).view(1, 3, 1, 1).expand(1, 3, 4, 4))
    expected = torch.tensor([(0.0 - 0.4) / 0.1, 0.0, (1.0 - 0.6) / 0.4])
    torch.testing.assert_close(seen, expected.view(1, 3, 1, 1).expand(1, 3, 8, 8))


def identity(**settings):
    """A trunk that shows what its first block gets: the images in [0, 1]."""
    plain = {"mean": (0, 0, 0), "std": (1, 1, 1)}
    return Backbone([nn.Identity()], taps=(0,), channels=(3,), strides=(1,), **plain, **settings)


def test_grey_is_seen_as_three_equal_channels_and_alpha_on_a_random_colour_for_each_image_and_pass():
    grey, rgb = torch.rand(3, 1, 4, 4) * 2 - 1, torch.rand(3, 3, 4, 4) * 2 - 1
    assert torch.equal(identity()(grey)[0], identity()(grey.repeat(1, 3, 1, 1))[0])
    alpha = torch.full_like(grey, -1)
    alpha[:, :, :2] = 1
    first, second = (identity()(torch.cat([rgb, alpha], dim=1))[0] for _ in range(2))
    expected = (rgb[:, :, :2] + 1) / 2
    torch.testing.assert_close(first[:, :, :2], expected)  # opaque
    torch.testing.assert_close(second[:, :, :2], expected)
    colours = torch.cat([first, second])[:, :, 2:].flatten(2)  # transparent: one colour an image, whatever lies there
    torch.testing.assert_close(colours, colours[:, :, :1].expand_as(colours))
    assert len(colours[:, :, 0].unique(dim=0)) == 6
    assert 0 <= colours.min() <= colours.max() <= 1


def test_an_input_size_is_that_of_the_shorter_side_unless_the_trunk_takes_squares():
    images, backbone = torch.rand(1, 3, 12, 18), identity(input_size=8)
    assert backbone(images)[0].shape == (1, 3, 8, 12) == (1, *backbone.shapes((12, 18))[0])
    backbone.takes_squares = True
    assert backbone(images)[0].shape == (1, 3, 8, 8)


def test_asking_for_shapes_changes_neither_the_mode_nor_batch_norms_statistics():
    backbone = trunk().train()
    before = {name: tensor.clone() for name, tensor in backbone.state_dict().items()}
    assert backbone.shapes(64) == [(6, 16, 16), (10, 4, 4)]
    assert all(module.training for module in backbone.modules())
    assert all(torch.equal(tensor, before[name]) for name, tensor in backbone.state_dict().items())


@pytest.mark.parametrize("settings", [{}, {"input_size": 16}])
def test_a_trunk_too_deep_for_the_images_is_refused(settings):
    resolution = 64 if settings else 16
    with pytest.raises(ValueError, match=rf"^resolution={resolution}: .* stride 16 .* 16 px; .* shallower cut"):
        trunk(**settings).shapes(resolution)


def test_images_that_are_resized_to_too_few_pixels_need_a_larger_input_size_and_not_a_larger_resolution():
    with pytest.raises(ValueError, match=r"px; choose for the backbone input_size=32 or more, or a shallower cut"):
        trunk(input_size=16).check_depth(64)
    trunk(input_size=16).check_depth(64, positions=1)


@pytest.mark.parametrize(("groups", "dtype"), [(6, torch.float32), (1, torch.bfloat16)])
def test_depthwise_convolutions_stay_in_float32_where_a_cpu_would_use_bfloat16(groups, dtype):
    blocks = [nn.Conv2d(3, 6, 3, 2, 1), nn.Conv2d(6, 6, 3, 2, 1, groups=groups)]
    backbone, images = Backbone(blocks, taps=(0, 1), channels=(6, 6), strides=(2, 4)), torch.rand(2, 3, 16, 16)
    full = backbone(images)
    with torch.autocast("cpu", torch.bfloat16):
        state = backbone.prefix(images.bfloat16(), 1)
        mixed = backbone.suffix(state, 1)
    assert [m.dtype for m in mixed] == [dtype, dtype]
    for a, b in zip(mixed, full, strict=True):
        torch.testing.assert_close(a.float(), b, rtol=0.05, atol=0.05)
