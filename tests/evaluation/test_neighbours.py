import numpy as np
import pytest
import torch
from torchvision.transforms.functional import gaussian_blur

from transfergen.data.shapes import shapes
from transfergen.evaluation import blocks
from transfergen.evaluation.extractors import PixelFeatures
from transfergen.evaluation.neighbours import authenticity, density_coverage, nearest, precision_recall


@pytest.fixture(scope="module")
def pictures():
    """1,200 drawn shapes, images in [-1, 1], the ten classes in turn."""
    source = shapes(None, "train", size=32, train=1200)
    pixels = np.stack([np.asarray(source.open(i)) for i in range(1200)])
    return torch.from_numpy(pixels).permute(0, 3, 1, 2) / 127.5 - 1


def values(pair):
    return tuple(value.item() for value in pair)


def distances(a, b):
    return (a.double()[:, None] - b.double()[None]).norm(dim=2)


def radii(features, k):
    return distances(features, features).sort(dim=1).values[:, k]  # the 0th is itself


@pytest.mark.parametrize("entries", [2**23, 100, 1])  # one block; blocks of a few rows; row by row
@pytest.mark.parametrize("k", [1, 3, 5])
def test_all_metrics_agree_with_their_formulas_for_any_block_size(monkeypatch, entries, k):
    monkeypatch.setattr(blocks, "BLOCK_ENTRIES", entries)
    real, fake = torch.randn(40, 3), 0.8 * torch.randn(33, 3) + 0.3
    d = distances(real, fake)
    real_radii, fake_radii = radii(real, k)[:, None], radii(fake, k)[None]
    expected = ((d <= real_radii).any(0).double().mean().item(), (d <= fake_radii).any(1).double().mean().item())
    assert 0.2 < min(expected) < max(expected)
    assert values(precision_recall(real, fake, k=k)) == pytest.approx(expected)
    inside = d < real_radii
    expected = (inside.sum(0).double().mean().item() / k, inside.any(1).double().mean().item())
    assert values(density_coverage(real, fake, k=k)) == pytest.approx(expected)
    found, indices = nearest(fake, real, k=k)
    ordered = d.T.sort(dim=1)
    assert torch.equal(indices, ordered.indices[:, :k])
    torch.testing.assert_close(found, ordered.values[:, :k])


def test_unseen_pictures_of_the_same_source_score_high_in_all_metrics(pictures):
    extract = PixelFeatures()
    real, fake = extract(pictures[:600]), extract(pictures[600:])
    assert min(values(precision_recall(real, fake))) > 0.85
    density, coverage = values(density_coverage(real, fake))
    assert density == pytest.approx(1, abs=0.1)
    assert coverage > 0.9


def test_each_defect_lowers_the_metric_that_is_meant_for_it(pictures):
    extract = PixelFeatures()
    real, fresh = extract(pictures[:600]), pictures[600:]

    def measured(images):
        features = extract(images)
        return np.array([*values(precision_recall(real, features)), *values(density_coverage(real, features))])

    half = torch.arange(600) % 10 < 5
    precision, recall, density, coverage = measured(fresh[:300])
    dropped = measured(fresh[half])  # as many, but of the first five classes
    assert dropped[0] > precision - 0.05
    assert dropped[1] < recall - 0.1
    assert dropped[3] < coverage - 0.05
    collapsed = measured(fresh[:5].repeat(60, 1, 1, 1) + 0.02 * torch.randn(300, 3, 32, 32))
    assert collapsed[0] > 0.95
    assert collapsed[1] < 0.05
    assert collapsed[3] < 0.15
    blurred = measured(gaussian_blur(fresh[:300], 13, 1.75))
    assert blurred[0] > precision
    assert blurred[1] < recall - 0.3
    noisy = measured(fresh[:300] + 0.5 * torch.randn(300, 3, 32, 32))
    assert noisy[0] < precision - 0.15
    assert noisy[2] < density - 0.3
    assert noisy[3] < coverage - 0.1


def test_two_outliers_raise_precision_to_one_but_hardly_density():
    real = torch.cat([torch.randn(200, 2), torch.tensor([[100.0, 0.0], [-100.0, 0.0]])])  # two balls that hold all
    fake = 10 + torch.rand(100, 2)
    assert values(precision_recall(real, fake, k=5)) == (1, 0)
    assert values(density_coverage(real, fake, k=5))[0] == pytest.approx(1 / 5)  # those right of 0 are in one of them


def test_authentic_is_what_lies_further_from_a_training_image_than_that_from_the_next():
    training = torch.tensor([[0.0], [1.0], [10.0]])  # 1, 1 and 9 from the next one
    for value, authentic in ((0.5, 0), (2.0, 0), (2.1, 1), (-2.0, 1), (10.0, 0), (18.0, 0), (20.0, 1)):
        assert authenticity(training, torch.tensor([[value]])) == authentic
    assert authenticity(training, torch.tensor([[0.5], [-2.0], [20.0], [1.0]])) == 0.5
    with pytest.raises(ValueError, match="1 training image: too few for 1 nearest neighbour of each"):
        authenticity(training[:1], training)


@pytest.mark.parametrize("k", [1, 3, 5])
def test_reals_against_themselves_have_density_one(k):
    line = 2.0 ** torch.arange(12).view(12, 1)  # no two distances are equal, and all are exact
    assert values(density_coverage(line, line, k=k)) == (1, 1)


def test_a_copy_is_at_distance_zero_even_far_from_the_origin():
    references = 1000 + torch.randn(50, 64)
    copies = references[[7, 3]] + 1e-4 * torch.tensor([[0.0], [1.0]])  # the second is off by float32's rounding or so
    found, indices = nearest(copies, references)
    assert indices.tolist() == [[7], [3]]
    assert found.tolist() == [[0.0], [0.0]]
    assert nearest(references[:1] + 1, references)[0].item() == pytest.approx(8, rel=1e-3)


def test_reals_that_are_all_one_picture_are_matched_by_that_picture_alone():
    real = torch.full((10, 64), 0.3)
    assert values(precision_recall(real, real.clone())) == (1, 1)
    assert values(precision_recall(real, real + 0.1)) == (0, 0)


@pytest.mark.parametrize(
    ("measure", "message"),
    [
        (lambda a, b: precision_recall(a, b, k=3), "3 real images"),
        (lambda a, b: precision_recall(b, a, k=3), "3 generated images"),
        (lambda a, b: density_coverage(a, b, k=3), "3 real images"),
        (lambda a, b: nearest(b, a, k=4), "3 images: too few for 4"),
    ],
)
def test_too_few_images_for_k_neighbours_are_refused(measure, message):
    with pytest.raises(ValueError, match=message):
        measure(torch.randn(3, 2), torch.randn(9, 2))
