import pytest
import torch
from torch import tensor

from transfergen.losses.perceptual import perceptual_distance


def test_distance_by_hand():
    # One layer at one position: (3, 4) against (4, 3) is (.6, .8) against (.8, .6); the second layer is the same twice.
    a, b = tensor([3.0, 4.0]).view(1, 2, 1, 1), tensor([40.0, 30.0]).view(1, 2, 1, 1)
    same = torch.randn(1, 5, 2, 2)
    assert perceptual_distance([a, same], [b, same]).item() == pytest.approx((2 * 0.04 + 0) / 2)


def test_distance_averages_over_positions_and_images_and_is_4_at_most():
    a = torch.randn(3, 4, 5, 5)
    assert perceptual_distance([a], [-a]).item() == pytest.approx(4)
    half = torch.cat([a[:1], -a[1:2]])
    assert perceptual_distance([a[:2]], [half]).item() == pytest.approx(2)
