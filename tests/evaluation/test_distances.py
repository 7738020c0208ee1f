from itertools import permutations

import numpy as np
import pytest
import scipy.linalg
import torch
from scipy.spatial.distance import cdist
from torch import Tensor, nn
from torch.nn import functional as F
from torchmetrics.image.fid import FrechetInceptionDistance
from torchmetrics.image.inception import InceptionScore
from torchmetrics.image.kid import poly_mmd

from transfergen.data.shapes import shapes
from transfergen.evaluation import blocks, distances
from transfergen.evaluation.distances import (
    Gaussian,
    class_frechet,
    cmmd,
    diversity,
    fit_gaussian,
    frechet,
    frechet_infinity,
    inception_score,
    kernel,
    mind,
    sliced_wasserstein,
)


class Given(nn.Module):
    """Takes the place of torchmetrics' network: passes features on."""

    num_features = 24

    def forward(self, features):
        return features


def correlated(count, dimensions=24, seed=0):
    """Features (N, D) like those of a network: not negative, correlated, some channels always 0."""
    mixing = torch.randn(dimensions, dimensions, generator=torch.Generator().manual_seed(seed))
    features = (torch.randn(count, dimensions) @ mixing + 1).relu()
    features[:, :3] = 0
    return features


@pytest.fixture
def small_blocks(monkeypatch):
    """Blocks so small that the matrices of these tests need several, the last one smaller."""
    monkeypatch.setattr(blocks, "BLOCK_ENTRIES", 400)


def test_sliced_wasserstein_of_a_set_in_another_order_is_zero():
    a = torch.randn(50, 8)
    assert sliced_wasserstein(a, a[torch.randperm(50)]).item() == 0


def test_sliced_wasserstein_in_one_dimension_is_that_of_the_best_pairing():
    a, b = torch.randn(6, 1), torch.randn(6, 1)
    best = min((a - b[list(order)]).square().mean().sqrt().item() for order in permutations(range(6)))
    assert sliced_wasserstein(a, b).item() == pytest.approx(best, rel=1e-5)


def test_sliced_wasserstein_of_a_shift_is_its_length_over_the_root_of_the_dimension():
    a = torch.randn(100, 16, dtype=torch.double)
    shift = torch.zeros(16, dtype=torch.double)
    shift[3] = 5.0
    # Sorting keeps a constant shift, so the squared distance is the mean of (5 d_3)^2 over unit vectors d: 25 / 16.
    assert sliced_wasserstein(a, a + shift, projections=20_000).item() == pytest.approx(5 / 4, rel=0.03)


def test_sliced_wasserstein_of_a_doubled_set_is_the_root_of_its_mean_square():
    a = torch.randn(200, 4, dtype=torch.double)
    expected = (a.square().sum(1).mean() / 4).sqrt().item()
    assert sliced_wasserstein(a, 2 * a, projections=20_000).item() == pytest.approx(expected, rel=0.03)


def test_the_seed_decides_the_directions():
    a, b = torch.randn(20, 8), torch.randn(20, 8)
    assert sliced_wasserstein(a, b) == sliced_wasserstein(a, b)
    assert sliced_wasserstein(a, b, seed=1) != sliced_wasserstein(a, b)


def test_mind_in_one_dimension_is_three_times_the_mean_square_of_the_best_pairing():
    a, b = torch.randn(6, 1), torch.randn(6, 1)
    best = min((a - b[list(order)]).square().mean().item() for order in permutations(range(6)))
    assert mind(a, b).item() == pytest.approx(3 * best, rel=1e-5)


def test_mind_of_a_shift_is_three_times_its_square_whatever_the_dimensions():
    for dimensions in (8, 64):
        a, shift = torch.randn(40, dimensions).double(), torch.zeros(dimensions).double()
        shift[3] = 5.0
        found = mind(a, a + shift, projections=20_000).item()
        assert found == pytest.approx(3 * frechet(a, a + shift).item(), rel=0.05) == pytest.approx(75, rel=0.05)


def test_mind_cuts_the_larger_set_and_refuses_other_dimensions():
    a, b = torch.randn(30, 4), torch.randn(20, 4)
    assert mind(a, b) == mind(a[:20], b) == mind(b, a)
    assert mind(a, a[torch.randperm(30)]) == 0
    assert mind(a, b, seed=1) != mind(a, b) != mind(a, b, projections=100)
    with pytest.raises(ValueError, match=r"\(30, 4\) and \(30, 5\)"):
        mind(a, torch.zeros(30, 5))


@pytest.mark.parametrize("distance", [sliced_wasserstein, frechet, kernel, mind, cmmd])
def test_noise_is_further_from_pictures_than_their_blur(distance):
    source = shapes(None, "train", size=32, train=100)
    pictures = np.stack([np.asarray(source.open(i)) for i in range(100)])
    real: Tensor = torch.from_numpy(pictures).permute(0, 3, 1, 2) / 127.5 - 1
    blurred = F.interpolate(F.avg_pool2d(real, 8), size=32, mode="bilinear")
    noise = torch.rand_like(real) * 2 - 1
    to_blur, to_noise = (distance(real.flatten(1), other.flatten(1)) for other in (blurred, noise))
    assert to_blur != 0  # the unbiased estimate may be negative
    assert max(to_blur, 0) < to_noise


def test_sets_of_different_size_are_refused():
    with pytest.raises(ValueError, match=r"\(3, 2\) and \(4, 2\)"):
        sliced_wasserstein(torch.zeros(3, 2), torch.zeros(4, 2))


@pytest.mark.filterwarnings("ignore:Matrix is singular")
@pytest.mark.parametrize(("real", "fake"), [(200, 170), (40, 300), (15, 20)])  # the last: fewer than dimensions
def test_frechet_agrees_with_torchmetrics_and_scipy(real, fake):
    a, b = correlated(real), correlated(fake, seed=1)
    found = frechet(a, b).item()
    metric = FrechetInceptionDistance(feature=Given(), input_img_size=(24,)).set_dtype(torch.double)
    metric.update(a, real=True)
    metric.update(b, real=False)
    assert found == pytest.approx(metric.compute().item(), rel=1e-6)
    x, y = a.double().numpy(), b.double().numpy()
    cov_x, cov_y = np.cov(x, rowvar=False), np.cov(y, rowvar=False)
    root = scipy.linalg.sqrtm(cov_x @ cov_y).real.trace()
    shift = np.square(x.mean(0) - y.mean(0)).sum()
    assert found == pytest.approx(shift + cov_x.trace() + cov_y.trace() - 2 * root, rel=1e-6)


@pytest.mark.parametrize("count", [20, 100])
def test_frechet_ignores_dimensions_without_variance(count):
    """Features of 8 dimensions, rotated into 64: the covariance is singular, with more samples than 64 or fewer."""
    a, b = torch.randn(count, 8).double(), (2 * torch.randn(count + 10, 8) + 1).double()
    turned = torch.linalg.qr(torch.randn(64, 8).double()).Q
    assert frechet(a @ turned.T, b @ turned.T).item() == pytest.approx(frechet(a, b).item(), rel=1e-9)


def test_frechet_of_equal_sets_is_zero_and_of_a_shift_its_square():
    a = correlated(100).double()
    assert 0 <= frechet(a, a[torch.randperm(100)]).item() < 1e-9
    assert frechet(a, a + 2).item() == pytest.approx(24 * 4)
    assert frechet(a, 3 * a - 2 * a.mean(0)).item() == pytest.approx(4 * a.var(0).sum().item())


@pytest.mark.usefixtures("small_blocks")
def test_frechet_of_gaussians_is_that_of_their_features():
    real, fake = correlated(60), correlated(20, seed=1)
    expected = frechet(real, fake).item()
    for pair in ((fit_gaussian(real), fake), (real, fit_gaussian(fake)), (fit_gaussian(real), fit_gaussian(fake))):
        assert frechet(*pair).item() == pytest.approx(expected, rel=1e-9)
    with pytest.raises(ValueError, match="24 and of 25 dimensions"):
        frechet(fit_gaussian(real), correlated(20, dimensions=25))
    with pytest.raises(ValueError, match="sets of 1 images"):
        frechet(fit_gaussian(real), fake[:1])


def test_frechet_infinity_is_free_of_the_bias_of_few_samples():
    exact = Gaussian(torch.zeros(16, dtype=torch.double), torch.eye(16, dtype=torch.double))
    samples = torch.randn(10, 400, 16, generator=torch.Generator().manual_seed(0))
    biased = torch.stack([frechet(exact, fake) for fake in samples]).mean()
    found = torch.stack([frechet_infinity(exact, fake) for fake in samples]).mean()
    assert biased > 0.1
    assert abs(found) < biased / 5  # the samples are of that Gaussian


def test_frechet_infinity_is_the_end_of_the_line_through_the_distances(monkeypatch):
    monkeypatch.setattr(distances, "frechet", lambda real, fake: torch.tensor(3 + 70 / len(fake), dtype=torch.double))
    assert frechet_infinity(correlated(30), correlated(500)).item() == pytest.approx(3, abs=1e-9)
    with pytest.raises(ValueError, match="19 samples"):
        frechet_infinity(correlated(30), correlated(19))


def test_class_frechet_is_the_mean_over_classes_and_sees_classes_that_are_exchanged():
    real = torch.tensor([[0.0], [2.0], [10.0], [12.0]])
    labels = torch.tensor([0, 0, 3, 3])
    fake, order = torch.tensor([[13.0], [3.0], [11.0], [5.0]]), torch.tensor([3, 0, 3, 0])
    assert class_frechet(real, labels, fake, order).item() == pytest.approx((3**2 + 1**2) / 2)
    assert frechet(real, real).item() == pytest.approx(0)
    assert class_frechet(real, labels, real, 3 - labels).item() == pytest.approx(10**2)
    with pytest.raises(ValueError, match=r"class 3: .*two or more"):
        class_frechet(real, labels, fake[1:], torch.tensor([0, 3, 0]))


def test_kernel_agrees_with_torchmetrics():
    a, b = correlated(110), correlated(110, seed=1)
    assert kernel(a, b).item() == pytest.approx(poly_mmd(a.double(), b.double()).item(), rel=1e-6)


@pytest.mark.usefixtures("small_blocks")
def test_kernel_of_sets_of_different_size_is_the_mean_over_pairs():
    a, b = correlated(30).double(), correlated(47, seed=1).double()

    def mean(x, y):
        pairs = [(u @ v / 24 + 1) ** 3 for i, u in enumerate(x) for j, v in enumerate(y) if x is not y or i != j]
        return torch.stack(pairs).mean().item()

    assert kernel(a, b).item() == pytest.approx(mean(a, a) + mean(b, b) - 2 * mean(a, b), rel=1e-9)


def test_kernel_is_unbiased_where_frechet_is_biased():
    population = correlated(4000)
    draws = [population[torch.randperm(4000)[:60]].split(30) for _ in range(100)]
    kernels = torch.stack([kernel(*draw) for draw in draws])
    assert kernels.mean().abs() < 3 * kernels.std() / 10
    assert kernels.min() < 0
    large = frechet(*population.split(2000))
    assert all(frechet(*draw) > 5 * large for draw in draws)


@pytest.mark.usefixtures("small_blocks")
def test_cmmd_is_the_mean_of_the_gaussian_kernel_over_all_pairs_of_scaled_features():
    a, b = correlated(30), correlated(47, seed=1)
    x, y = (side.double().numpy() / np.linalg.norm(side.double().numpy(), axis=1, keepdims=True) for side in (a, b))

    def mean(u, v):
        return np.exp(-cdist(u, v, "sqeuclidean") / (2 * 10**2)).mean()

    assert cmmd(a, b).item() == pytest.approx(1000 * (mean(x, x) + mean(y, y) - 2 * mean(x, y)), rel=1e-9)
    assert cmmd(3 * a, b).item() == pytest.approx(cmmd(a, b).item(), rel=1e-5)
    assert cmmd(a, a[torch.randperm(30)]).item() == pytest.approx(0, abs=1e-9)


def test_cmmd_of_two_points_at_right_angles():
    a, b = torch.tensor([[2.0, 0.0]]).expand(5, 2), torch.tensor([[0.0, 7.0]]).expand(3, 2)
    assert cmmd(a, b).item() == pytest.approx(1000 * 2 * (1 - np.exp(-2 / 200)))


def test_cmmd_of_equal_distributions_is_positive_below_its_bound():
    draws = torch.randn(20, 2, 30, 16)
    values = torch.stack([cmmd(*draw) for draw in draws])
    assert values.min() > 0
    assert values.max() < 20 / 30 + 20 / 30


def test_diversity_is_the_root_of_the_ratio_of_mean_squared_pairwise_distances():
    real, fake = torch.randn(30, 5), 0.5 * torch.randn(20, 5) + 3
    spreads = [torch.pdist(side.double()).square().mean() for side in (fake, real)]
    assert diversity(real, fake).item() == pytest.approx((spreads[0] / spreads[1]).sqrt().item())
    assert diversity(real, real[:1].expand(30, 5)) == 0


def test_inception_score_is_the_number_of_classes_told_apart():
    sure = 100 * torch.eye(10).repeat(12, 1)
    assert inception_score(sure, splits=3)[0].item() == pytest.approx(10)
    assert inception_score(sure[:, torch.randperm(10)], splits=1)[0].item() == pytest.approx(10)
    assert inception_score(torch.zeros(120, 10))[0].item() == pytest.approx(1)
    assert inception_score(sure[::10])[0].item() == pytest.approx(1)  # always the same class
    one_a_split = sure[torch.arange(120).view(12, 10).T.flatten()]
    assert inception_score(one_a_split, splits=10)[0].item() == pytest.approx(1)


@pytest.mark.filterwarnings("ignore:Metric `InceptionScore`", "ignore:std")
def test_inception_score_agrees_with_torchmetrics():
    logits = 3 * torch.randn(150, 24)
    metric = InceptionScore(feature=Given(), splits=1)
    metric.update(logits)
    assert inception_score(logits, splits=1)[0].item() == pytest.approx(metric.compute()[0].item(), rel=1e-5)
    assert inception_score(logits) == inception_score(logits.double())
    scores = [inception_score(part, splits=1)[0].item() for part in logits.split(50)]
    found = [value.item() for value in inception_score(logits, splits=3)]
    assert found == pytest.approx([np.mean(scores), np.std(scores)])


@pytest.mark.parametrize("distance", [frechet, kernel, cmmd])
@pytest.mark.parametrize(
    ("a", "b", "message"), [((1, 4), (9, 4), "1 and 9"), ((9, 4), (1, 4), "9 and 1"), ((9, 4), (9, 5), "4 and of 5")]
)
def test_sets_that_are_too_small_or_differ_in_dimensions_are_refused(distance, a, b, message):
    with pytest.raises(ValueError, match=message):
        distance(torch.zeros(a), torch.zeros(b))


def test_inception_score_of_fewer_samples_than_splits_is_refused():
    with pytest.raises(ValueError, match=r"10 splits .* not 9"):
        inception_score(torch.zeros(9, 4))
