"""Distances between features of real and generated images, and the Inception score.

Features are (N, D), of any float dtype, on one device. All but the sliced Wasserstein distances compute in float64.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from transfergen.errors import counted
from transfergen.evaluation.blocks import rows_per_block

SIZES = 15
"""Number of sizes of subsets, from which `frechet_infinity` extrapolates."""


def sliced_wasserstein(a: Tensor, b: Tensor, *, projections: int = 512, seed: int = 0) -> Tensor:
    """Sliced 2-Wasserstein distance between samples (N, D) and (N, D), a scalar >= 0; 0 for equal sets.

    The root mean square, over random unit directions, of the differences between the sorted projections. Rabin 2011,
    doi:10.1007/978-3-642-24785-9_37. On pixels it involves no network, so no pretrained discriminator can bias it.

    Raises:
        ValueError: the shapes differ.
    """
    if a.shape != b.shape:
        raise ValueError(f"two sets of one shape are needed, not {tuple(a.shape)} and {tuple(b.shape)}")
    generator = torch.Generator().manual_seed(seed)
    directions = torch.randn(a.shape[1], projections, generator=generator).to(a)
    directions /= directions.norm(dim=0)
    difference = (a @ directions).sort(dim=0).values - (b @ directions).sort(dim=0).values
    return difference.square().mean().sqrt()


def mind(real: Tensor, fake: Tensor, *, projections: int = 1000, seed: int = 0) -> Tensor:
    """Monge Inception Distance between features (N, D) and (M, D), a scalar >= 0; 0 for equal sets.

    3 D times the square of `sliced_wasserstein`. Where the sets differ by a shift, that is three times the Fréchet
    distance. Berthet 2026, arXiv:2605.06797, on Inception's features. Few samples bias it upwards, so compare values
    only at equal numbers.

    Args:
        real: features of real images. The larger set is cut to the size of the smaller one, so its order should be
            random.
        fake: features of samples.
        projections: number of random directions; the paper recommends 100 to 1,000.
        seed: of the directions.

    Raises:
        ValueError: the two differ in D.
    """
    count = min(len(real), len(fake))
    distance = sliced_wasserstein(real[:count], fake[:count], projections=projections, seed=seed)
    return 3 * real.shape[1] * distance.square()


class Gaussian(NamedTuple):
    """A Gaussian distribution in D dimensions, all that a Fréchet distance needs to know of a set of features."""

    mean: Tensor
    """(D,), float64."""
    factor: Tensor
    """F (K, D), float64, such that F'F is the covariance."""


def fit_gaussian(features: Tensor) -> Gaussian:
    """The mean and covariance of features (N, D), N >= 2; of the covariance, the unbiased estimate."""
    features = features.double()
    mean = features.mean(dim=0)
    centred = (features - mean) / (len(features) - 1) ** 0.5
    if len(centred) <= centred.shape[1]:
        return Gaussian(mean, centred)
    return gaussian_of_moments(mean, centred.T @ centred)


def gaussian_of_moments(mean: Tensor, covariance: Tensor) -> Gaussian:
    """The Gaussian of a mean (D,) and a covariance (D, D), whose negative eigenvalues are taken for 0."""
    variances, axes = torch.linalg.eigh(covariance.double())
    return Gaussian(mean.double(), variances.clamp(min=0).sqrt()[:, None] * axes.T)


def frechet(a: Tensor | Gaussian, b: Tensor | Gaussian) -> Tensor:
    """Fréchet distance between the Gaussians fitted to features (N, D) and (M, D), a float64 scalar >= 0.

    |mean_a - mean_b|^2 + tr(A + B - 2 (A B)^(1/2)), A and B the covariances. Heusel 2017, arXiv:1706.08500, eq. 6.
    Few samples bias it upwards, most of all fewer than D. Instead of features, either may be the Gaussian itself.

    With A = F'F and B = G'G, the trace of the root is the sum of the singular values of F G'. So no root of a matrix is
    needed, and singular covariances, as of fewer samples than D, are no special case.

    Raises:
        ValueError: a set has fewer than two samples, or the two differ in D.
    """
    _check_sets(a, b)
    (mean_a, factor_a), (mean_b, factor_b) = (x if isinstance(x, Gaussian) else fit_gaussian(x) for x in (a, b))
    root: Tensor = torch.linalg.svdvals(factor_a @ factor_b.T).sum()
    shift = (mean_a - mean_b).square().sum()
    return (shift + factor_a.square().sum() + factor_b.square().sum() - 2 * root).clamp(min=0)


def frechet_infinity(real: Tensor | Gaussian, fake: Tensor, *, seed: int = 0) -> Tensor:
    """The Fréchet distance extrapolated to infinitely many generated samples, from M of them (M, D), a float64 scalar.

    The distances of random subsets, of `SIZES` sizes from M / 10 to M, lie near a line over 1 / size, and its value at
    0 has no bias from the number of samples. That of the number of real images stays, so two generators compare at
    equal real images. Chong and Forsyth 2020, arXiv:1911.07023, with M = 50,000 and 15 sizes. The line is straight for
    sizes well above D; it may end a little below 0.

    Args:
        real: features (N, D) of real images, or their Gaussian.
        fake: features of the samples.
        seed: of the subsets.

    Raises:
        ValueError: there are fewer than 20 samples, fewer than two real images, or the two differ in D.
    """
    if len(fake) < 20:
        raise ValueError(f"{counted(len(fake), 'sample')}: an extrapolation from a tenth of them needs 20 or more")
    _check_sets(real, fake)
    known = real if isinstance(real, Gaussian) else fit_gaussian(real)
    generator = torch.Generator().manual_seed(seed)
    sizes = torch.linspace(len(fake) / 10, len(fake), SIZES, dtype=torch.double).round()
    subsets = (torch.randperm(len(fake), generator=generator)[: int(size)] for size in sizes)
    values = torch.stack([frechet(known, fake[subset.to(fake.device)]) for subset in subsets])
    line = torch.stack([torch.ones_like(sizes), 1 / sizes], dim=1).to(values.device)
    at_zero: Tensor = torch.linalg.lstsq(line, values[:, None]).solution[0, 0]
    return at_zero


def class_frechet(real: Tensor, real_labels: Tensor, fake: Tensor, fake_labels: Tensor) -> Tensor:
    """Mean over the classes of the Fréchet distance between real and generated images of one class, a float64 scalar.

    It sees what `frechet` does not: images of a class that belong to another. Miyato and Koyama 2018, arXiv:1802.05637
    (intra FID).

    Args:
        real: features (N, D) of real images.
        real_labels: their classes (N,).
        fake: features (M, D) of samples.
        fake_labels: the classes (M,) that they were to be.

    Raises:
        ValueError: a class of real images has fewer than two of them, or of samples.
    """
    classes = sorted(set(real_labels.tolist()))
    sets = [(real[real_labels == label], fake[fake_labels == label]) for label in classes]
    few = [label for label, pair in zip(classes, sets, strict=True) if min(map(len, pair)) < 2]
    if few:
        raise ValueError(f"class {few[0]}: a distance within it needs two or more real images and samples of it")
    return torch.stack([frechet(*pair) for pair in sets]).mean()


def kernel(a: Tensor, b: Tensor) -> Tensor:
    """Kernel distance between features (N, D) and (M, D), a float64 scalar: the unbiased estimate from all pairs.

    The squared maximum mean discrepancy for the kernel (x'y / D + 1)^3. Bińkowski 2018, arXiv:1801.01401. Its
    expectation depends on neither N nor M and is 0 for equal distributions, so estimates may be negative.

    Raises:
        ValueError: a set has fewer than two samples, or the two differ in D.
    """
    _check_sets(a, b)
    a, b = a.double(), b.double()

    def cubic(products: Tensor) -> Tensor:
        return (products / a.shape[1] + 1) ** 3

    def within(x: Tensor) -> Tensor:
        """The mean over pairs of different samples."""
        n = len(x)
        return (n * _mean_kernel(x, x, cubic) - cubic(x.square().sum(dim=1)).mean()) / (n - 1)

    return within(a) + within(b) - 2 * _mean_kernel(a, b, cubic)


def cmmd(real: Tensor, fake: Tensor, *, sigma: float = 10.0) -> Tensor:
    """CMMD between features (N, D) and (M, D) of any length, a float64 scalar >= 0; 0 for equal sets.

    1000 times the squared maximum mean discrepancy of the features, scaled to length 1, for the kernel
    exp(-|x - y|^2 / (2 sigma^2)). Jayasumana 2024, arXiv:2401.09603, on CLIP's features. As in the authors' code, the
    means within a set include the pairs of an image with itself. These bias it upwards, by less than 20 / N + 20 / M
    for a sigma of 10.

    Raises:
        ValueError: a set has fewer than two samples, or the two differ in D.
    """
    _check_sets(real, fake)
    a, b = (F.normalize(x.double(), dim=1) for x in (real, fake))

    def gaussian(cosines: Tensor) -> Tensor:
        return ((cosines - 1) / sigma**2).exp()

    within = _mean_kernel(a, a, gaussian) + _mean_kernel(b, b, gaussian)
    return 1000 * (within - 2 * _mean_kernel(a, b, gaussian))


def _mean_kernel(a: Tensor, b: Tensor, kernel: Callable[[Tensor], Tensor]) -> Tensor:
    """The mean of a kernel, a function of dot products, over all pairs of one row of `a` and one of `b`."""
    blocks = torch.split(a, rows_per_block(len(b)))
    return torch.stack([kernel(rows @ b.T).sum() for rows in blocks]).sum() / (len(a) * len(b))


def diversity(real: Tensor, fake: Tensor) -> Tensor:
    """Spread of generated features (M, D) relative to real ones (N, D), a float64 scalar >= 0.

    The root of the ratio of total variances, which is also that of the mean squared pairwise distances: 1 for equal
    distributions, 0 for a generator that makes one image.
    """
    return (fake.double().var(0).sum() / real.double().var(0).sum()).sqrt()


def inception_score(logits: Tensor, *, splits: int = 10) -> tuple[Tensor, Tensor]:
    """Class logits (N, K) -> mean and standard deviation of the Inception score over the splits, float64, in [1, K].

    exp of the mean of KL(p(y | x) || p(y)). Salimans 2016, arXiv:1606.03498, sec. 4. Each split is a run of consecutive
    samples, so samples must not be ordered by class.

    Raises:
        ValueError: there are fewer samples than splits.
    """
    if len(logits) < splits:
        raise ValueError(f"the Inception score over {splits} splits needs as many samples, not {len(logits)}")
    scores = []
    for part in logits.double().log_softmax(dim=1).tensor_split(splits):
        marginal = part.logsumexp(dim=0) - math.log(len(part))
        scores.append((part.exp() * (part - marginal)).sum(dim=1).mean().exp())
    values = torch.stack(scores)
    return values.mean(), values.std(correction=0)


def _check_sets(a: Tensor | Gaussian, b: Tensor | Gaussian) -> None:
    """Check that a distance between two sets is defined."""
    dimensions = [len(x.mean) if isinstance(x, Gaussian) else x.shape[1] for x in (a, b)]
    counts = [len(x) for x in (a, b) if isinstance(x, Tensor)]
    if dimensions[0] != dimensions[1]:
        raise ValueError("features of {} and of {} dimensions cannot be compared".format(*dimensions))
    if min(counts, default=2) < 2:
        raise ValueError(f"sets of {' and '.join(map(str, counts))} images: a distance needs two or more in each")
