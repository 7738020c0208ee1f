"""Distances between features of real and generated images, and the Inception score.

Features are (N, D), of any float dtype, on one device. All but the sliced Wasserstein distance compute in float64.
"""

import math

import torch
from torch import Tensor

BLOCK_ENTRIES = 2**23  # of a kernel matrix held at once: 64 MiB


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


def frechet(a: Tensor, b: Tensor) -> Tensor:
    """Fréchet distance between the Gaussians fitted to features (N, D) and (M, D), a float64 scalar >= 0.

    |mean_a - mean_b|^2 + tr(A + B - 2 (A B)^(1/2)), A and B the covariances. Heusel 2017, arXiv:1706.08500, eq. 6.
    Few samples bias it upwards, most of all fewer than D.

    With A = F'F and B = G'G, the trace of the root is the sum of the singular values of F G'. So no root of a matrix is
    needed, and singular covariances, as of fewer samples than D, are no special case.

    Raises:
        ValueError: a set has fewer than two samples, or the two differ in D.
    """
    a, b = _check_sets(a, b)
    shift = (a.mean(dim=0) - b.mean(dim=0)).square().sum()
    factor_a, factor_b = _covariance_factor(a), _covariance_factor(b)
    root: Tensor = torch.linalg.svdvals(factor_a @ factor_b.T).sum()
    return (shift + factor_a.square().sum() + factor_b.square().sum() - 2 * root).clamp(min=0)


def _covariance_factor(features: Tensor) -> Tensor:
    """Features (N, D) -> F (min(N, D), D) such that F'F is their covariance."""
    centred: Tensor = (features - features.mean(dim=0)) / (len(features) - 1) ** 0.5
    if len(centred) <= centred.shape[1]:
        return centred
    variances, axes = torch.linalg.eigh(centred.T @ centred)
    factor: Tensor = variances.clamp(min=0).sqrt()[:, None] * axes.T
    return factor


def kernel(a: Tensor, b: Tensor) -> Tensor:
    """Kernel distance between features (N, D) and (M, D), a float64 scalar: the unbiased estimate from all pairs.

    The squared maximum mean discrepancy for the kernel (x'y / D + 1)^3. Bińkowski 2018, arXiv:1801.01401. Its
    expectation depends on neither N nor M and is 0 for equal distributions, so estimates may be negative.

    Raises:
        ValueError: a set has fewer than two samples, or the two differ in D.
    """
    a, b = _check_sets(a, b)
    sums = [_polynomial(rows, b).sum() for rows in torch.split(a, _block_rows(b))]
    between = torch.stack(sums).sum() / (len(a) * len(b))
    return _mean_kernel(a) + _mean_kernel(b) - 2 * between


def _mean_kernel(features: Tensor) -> Tensor:
    """Mean of the kernel over all pairs of different samples; each pair is computed once."""
    count, rows = len(features), _block_rows(features)
    sums = []
    for start in range(0, count, rows):
        products = _polynomial(features[start : start + rows], features[start:])
        sums.append(products.triu(diagonal=1).sum())
    return torch.stack(sums).sum() / (count * (count - 1) / 2)


def _polynomial(a: Tensor, b: Tensor) -> Tensor:
    shifted = torch.addmm(a.new_ones(()), a, b.T, alpha=1 / a.shape[1])
    return shifted * shifted * shifted  # pow(3) takes several times as long


def _block_rows(b: Tensor) -> int:
    """Rows of a kernel matrix against `b` that are held at once."""
    return max(1, BLOCK_ENTRIES // len(b))


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


def _check_sets(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """Both sets in float64, if a distance between them is defined."""
    if a.shape[1] != b.shape[1]:
        raise ValueError(f"features of {a.shape[1]} and of {b.shape[1]} dimensions cannot be compared")
    if min(len(a), len(b)) < 2:
        raise ValueError(f"sets of {len(a)} and {len(b)} images: a distance needs two or more in each")
    return a.double(), b.double()
