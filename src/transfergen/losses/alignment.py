"""What brings two sets of features together, or keeps the distances within a set as they are in another.

Features are (N, D), one row an image, in float32 or float64, since differences of nearly equal numbers are taken.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F


def mmd(a: Tensor, b: Tensor, *, bandwidths: Sequence[float] = (0.25, 0.5, 1, 2, 4)) -> Tensor:
    """Squared maximum mean discrepancy of features (N, D) and (M, D), a scalar: the unbiased estimate.

    Its expectation is 0 for equal distributions, so that a value may be below 0. Gretton 2012, JMLR 13, eq. 3. The
    kernel is the mean of exp(-|x - y|^2 / (s d)) over the bandwidths s, where d is the mean squared distance between
    two rows of both sets together, a constant to the gradient; several Gaussians as in Long 2015, arXiv:1502.02791.

    Raises:
        ValueError: a set has fewer than two rows.
    """
    n, m = len(a), len(b)
    if min(n, m) < 2:
        raise ValueError(f"the MMD of {n} and {m} image(s) on a device: two of each are needed; set data.batch_size")
    joined = torch.cat([a, b])
    distances = torch.cdist(joined, joined).square()
    mean = distances.detach().sum() / ((n + m) * (n + m - 1))
    unit = mean.clamp(min=torch.finfo(mean.dtype).tiny)  # all rows may be equal
    kernel = torch.stack([(-distances / (s * unit)).exp() for s in bandwidths]).mean(dim=0)
    return _mean_of_pairs(kernel[:n, :n]) + _mean_of_pairs(kernel[n:, n:]) - 2 * kernel[:n, n:].mean()


def _mean_of_pairs(kernel: Tensor) -> Tensor:
    """The mean of a matrix (N, N) without its diagonal, a scalar."""
    return (kernel.sum() - kernel.trace()) / (len(kernel) * (len(kernel) - 1))


def coral(a: Tensor, b: Tensor) -> Tensor:
    """Squared distance of the covariances of features (N, D) and (M, D) by 4 D^2, a scalar >= 0.

    Sun and Saenko 2016, arXiv:1607.01719, eq. 1-3. The means play no part in it.

    Raises:
        ValueError: a set has fewer than two rows.
    """
    if min(len(a), len(b)) < 2:
        raise ValueError(
            f"CORAL of {len(a)} and {len(b)} image(s) on a device: two of each are needed; set data.batch_size"
        )
    difference = torch.cov(a.T) - torch.cov(b.T)
    return difference.square().sum() / (4 * a.shape[1] ** 2)


def cross_domain_consistency(source: Tensor, target: Tensor) -> Tensor:
    """How far the similarities within the target's features (N, D) are from those within the source's, a scalar >= 0.

    Row i of both is of the same latent. The cosine similarities of a row with each of the others become a distribution
    by softmax; the value is the Kullback-Leibler divergence of the source's from the target's, averaged over rows. Ojha
    2021, arXiv:2104.06820, eq. 1-3, which sums over rows.

    Raises:
        ValueError: fewer than three rows: with two, each has one other, whatever the features.
    """
    if len(source) < 3:
        raise ValueError(
            f"the consistency of {len(source)} image(s) on a device: it compares distances among three or more; set "
            "data.batch_size"
        )
    ours, theirs = _log_similarities(target), _log_similarities(source)
    return F.kl_div(theirs, ours, reduction="batchmean", log_target=True)


def _log_similarities(features: Tensor) -> Tensor:
    """Features (N, D) -> log-probabilities (N, N - 1) of the other rows, by their cosine similarity."""
    unit = F.normalize(features, dim=1)
    count = len(unit)
    similarities = (unit @ unit.T).flatten()[1:].view(count - 1, count + 1)  # the diagonal is now the last column
    return similarities[:, :-1].reshape(count, count - 1).log_softmax(dim=1)


class _Reversal(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, features: Tensor, scale: float) -> Tensor:
        ctx.scale = scale
        return features.view_as(features)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        return -ctx.scale * gradients[0], None


def gradient_reversal(features: Tensor, *, scale: float = 1.0) -> Tensor:
    """The features as they are, of any shape; their gradient times -`scale`. Ganin 2016, arXiv:1505.07818, eq. 14-15.

    What follows learns to tell two domains apart, and what goes before learns to make that hard.
    """
    reversed_: Tensor = _Reversal.apply(features, scale)
    return reversed_
