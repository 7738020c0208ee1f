"""Distances between two sets of features, and the score of one set of logits.

Features are (N, D), any float dtype, on one device; all but the sliced distance are computed in float64.
"""

import math

import torch
from torch import Tensor

ENTRIES = 2**23  # of a kernel matrix held at once: 64 MiB


def sliced_wasserstein(a: Tensor, b: Tensor, *, projections: int = 512, seed: int = 0) -> Tensor:
    """Sliced 2-Wasserstein distance between samples (N, D) and (N, D), a scalar; 0 for equal sets.

    The root of the mean, over random unit directions, of the squared distance between the sorted projections. Rabin
    2011, doi:10.1007/978-3-642-24785-9_37. No weights, so nothing that a pretrained discriminator could flatter.

    Raises:
        ValueError: the two are of different shapes.
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
    Few samples bias it upward, fewer than D of them most of all.

    With A = F'F and B = G'G, the trace of the root is the sum of the singular values of F G': no root is taken of a
    matrix, and a covariance that has none, such as that of fewer samples than D, is no special case.

    Raises:
        ValueError: a set has fewer than two samples, or the two differ in D.
    """
    a, b = _two_sets(a, b)
    shift = (a.mean(dim=0) - b.mean(dim=0)).square().sum()
    factor_a, factor_b = _covariance_factor(a), _covariance_factor(b)
    root: Tensor = torch.linalg.svdvals(factor_a @ factor_b.T).sum()
    return (shift + factor_a.square().sum() + factor_b.square().sum() - 2 * root).clamp(min=0)


def _covariance_factor(features: Tensor) -> Tensor:
    """Features (N, D) -> F (min(N, D), D), where F'F is their covariance."""
    centred: Tensor = (features - features.mean(dim=0)) / (len(features) - 1) ** 0.5
    if len(centred) <= centred.shape[1]:
        return centred
    variances, axes = torch.linalg.eigh(centred.T @ centred)
    factor: Tensor = variances.clamp(min=0).sqrt()[:, None] * axes.T
    return factor


def kernel(a: Tensor, b: Tensor) -> Tensor:
    """Kernel distance between features (N, D) and (M, D), a float64 scalar: the unbiased estimate from all pairs.

    The squared maximum mean discrepancy by the kernel (x'y / D + 1)^3. Bińkowski 2018, arXiv:1801.01401. Its
    expectation depends on neither N nor M and is 0 for equal distributions, so that a value may be below 0.

    Raises:
        ValueError: a set has fewer than two samples, or the two differ in D.
    """
    a, b = _two_sets(a, b)
    between = torch.stack([_polynomial(rows, b).sum() for rows in torch.split(a, _rows(b))]).sum() / (len(a) * len(b))
    return _mean_kernel(a) + _mean_kernel(b) - 2 * between


def _mean_kernel(features: Tensor) -> Tensor:
    """The kernel's mean over the pairs of different samples, each of which is computed once."""
    count, rows = len(features), _rows(features)
    sums = []
    for start in range(0, count, rows):
        products = _polynomial(features[start : start + rows], features[start:])
        sums.append(products.triu(diagonal=1).sum())
    return torch.stack(sums).sum() / (count * (count - 1) / 2)


def _polynomial(a: Tensor, b: Tensor) -> Tensor:
    shifted = torch.addmm(a.new_ones(()), a, b.T, alpha=1 / a.shape[1])
    return shifted * shifted * shifted  # pow(3) takes several times as long


def _rows(b: Tensor) -> int:
    return max(1, ENTRIES // len(b))


def inception_score(logits: Tensor, *, splits: int = 10) -> tuple[Tensor, Tensor]:
    """Class logits (N, K) -> mean and standard deviation of the Inception score over the splits, float64, in [1, K].

    exp of the mean of KL(p(y | x) || p(y)). Salimans 2016, arXiv:1606.03498, sec. 4. The splits are runs of neighbours,
    so samples must not come ordered by class.

    Raises:
        ValueError: fewer samples than splits.
    """
    if len(logits) < splits:
        raise ValueError(f"the Inception score over {splits} splits needs as many samples, not {len(logits)}")
    scores = []
    for part in logits.double().log_softmax(dim=1).tensor_split(splits):
        marginal = part.logsumexp(dim=0) - math.log(len(part))
        scores.append((part.exp() * (part - marginal)).sum(dim=1).mean().exp())
    values = torch.stack(scores)
    return values.mean(), values.std(correction=0)


def _two_sets(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    if a.shape[1] != b.shape[1]:
        raise ValueError(f"features of {a.shape[1]} and of {b.shape[1]} dimensions cannot be compared")
    if min(len(a), len(b)) < 2:
        raise ValueError(f"sets of {len(a)} and {len(b)} images: a distance needs two or more in each")
    return a.double(), b.double()
