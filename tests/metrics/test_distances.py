from itertools import permutations

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from transfergen.data.shapes import shapes
from transfergen.metrics.distances import sliced_wasserstein


def test_a_set_and_itself_in_another_order_are_at_no_distance():
    a = torch.randn(50, 8)
    assert sliced_wasserstein(a, a[torch.randperm(50)]).item() == 0


def test_on_a_line_it_is_the_best_pairing_found_by_trying_all():
    a, b = torch.randn(6, 1), torch.randn(6, 1)
    best = min((a - b[list(order)]).square().mean().sqrt().item() for order in permutations(range(6)))
    assert sliced_wasserstein(a, b).item() == pytest.approx(best, rel=1e-5)


def test_a_shift_along_one_axis_costs_its_length_over_the_root_of_the_dimension():
    a = torch.randn(100, 16, dtype=torch.double)
    shift = torch.zeros(16, dtype=torch.double)
    shift[3] = 5.0
    # Sorting keeps a constant shift, so the squared distance is the mean of (5 d_3)^2 over unit vectors d: 25 / 16.
    assert sliced_wasserstein(a, a + shift, projections=20_000).item() == pytest.approx(5 / 4, rel=0.03)


def test_scaling_by_two_costs_the_root_of_the_mean_square_over_the_dimension():
    a = torch.randn(200, 4, dtype=torch.double)
    expected = (a.square().sum(1).mean() / 4).sqrt().item()
    assert sliced_wasserstein(a, 2 * a, projections=20_000).item() == pytest.approx(expected, rel=0.03)


def test_same_seed_same_number_other_seed_other_directions():
    a, b = torch.randn(20, 8), torch.randn(20, 8)
    assert sliced_wasserstein(a, b) == sliced_wasserstein(a, b)
    assert sliced_wasserstein(a, b, seed=1) != sliced_wasserstein(a, b)


def test_noise_is_further_from_pictures_than_their_blur():
    source = shapes(None, "train", size=32, train=100)
    pictures = np.stack([np.asarray(source.open(i)) for i in range(100)])
    real: Tensor = torch.from_numpy(pictures).permute(0, 3, 1, 2) / 127.5 - 1
    blurred = F.interpolate(F.avg_pool2d(real, 8), size=32, mode="bilinear")
    noise = torch.rand_like(real) * 2 - 1
    to_blur, to_noise = (sliced_wasserstein(real.flatten(1), other.flatten(1)) for other in (blurred, noise))
    assert 0 < to_blur < to_noise


def test_sets_of_different_size_are_refused():
    with pytest.raises(ValueError, match=r"\(3, 2\) and \(4, 2\)"):
        sliced_wasserstein(torch.zeros(3, 2), torch.zeros(4, 2))
