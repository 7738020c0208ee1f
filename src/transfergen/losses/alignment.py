"""Losses that align two sets of features, for adapting a generator to another domain.

Features are (N, D), one row for each image, in float32 or float64: differences of nearly equal numbers need them.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

BANDWIDTHS = (0.25, 0.5, 1, 2, 4)
"""Bandwidths of the Gaussian kernels that `mmd` averages, as multiples of the mean squared distance between rows."""


def mmd(a: Tensor, b: Tensor) -> Tensor:
    """Unbiased estimate of the squared maximum mean discrepancy between features (N, D) and (M, D), a scalar.

    Its expectation is 0 if the distributions are equal, so a value may be negative. Gretton 2012, JMLR 13, eq. 3. The
    kernel is the mean over the `BANDWIDTHS` s of exp(-|x - y|^2 / (s d)), several Gaussians as in Long 2015,
    arXiv:1502.02791. Here d is the mean squared distance between two rows of both sets together, and is detached.

    Raises:
        ValueError: a set has fewer than two rows.
    """
    n, m = len(a), len(b)
    if min(n, m) < 2:
        raise ValueError(f"mmd needs two rows or more in each set, not {n} and {m}")
    joined = torch.cat([a, b])
    distances = torch.cdist(joined, joined).square()
    mean = distances.detach().sum() / ((n + m) * (n + m - 1))
    unit = mean.clamp(min=torch.finfo(mean.dtype).tiny)  # not 0 if all rows are equal
    kernel = torch.stack([(-distances / (s * unit)).exp() for s in BANDWIDTHS]).mean(dim=0)
    return _mean_of_pairs(kernel[:n, :n]) + _mean_of_pairs(kernel[n:, n:]) - 2 * kernel[:n, n:].mean()


def _mean_of_pairs(kernel: Tensor) -> Tensor:
    """The mean of the entries of a matrix (N, N) that are not on its diagonal, a scalar."""
    return (kernel.sum() - kernel.trace()) / (len(kernel) * (len(kernel) - 1))


def coral(a: Tensor, b: Tensor) -> Tensor:
    """Squared Frobenius distance between the covariances of features (N, D) and (M, D), over 4 D^2, a scalar >= 0.

    Sun and Saenko 2016, arXiv:1607.01719, eq. 1-3. It does not depend on the means.

    Raises:
        ValueError: a set has fewer than two rows.
    """
    if min(len(a), len(b)) < 2:
        raise ValueError(f"coral needs two rows or more in each set, not {len(a)} and {len(b)}")
    difference = _covariance(a) - _covariance(b)
    return difference.square().sum() / (4 * a.shape[1] ** 2)


def _covariance(features: Tensor) -> Tensor:
    """The covariance (D, D) of features (N, D). `torch.cov` would wait for a GPU, to read N - 1 from it."""
    centred = features - features.mean(dim=0)
    return centred.T @ centred / (len(features) - 1)


def cross_domain_consistency(source: Tensor, target: Tensor) -> Tensor:
    """How much the similarities between images differ between two generators, a scalar >= 0.

    Features (N, D) are of the source's and the target's images, row i of both from the same latent. The cosine
    similarities of a row to all others become a distribution by softmax. The loss is the Kullback-Leibler divergence
    KL(target || source), averaged over rows. Ojha 2021, arXiv:2104.06820, eq. 1-3, which sums over rows.

    Raises:
        ValueError: there are fewer than three rows. With two, each has one other, and the loss is always 0.
    """
    if len(source) < 3:
        raise ValueError(f"cross_domain_consistency needs three rows or more, not {len(source)}")
    adapted, original = _log_similarities(target), _log_similarities(source)
    return F.kl_div(original, adapted, reduction="batchmean", log_target=True)


def _log_similarities(features: Tensor) -> Tensor:
    """Features (N, D) -> for each row, log-softmax (N, N - 1) of its cosine similarities to the other rows."""
    unit = F.normalize(features, dim=1)
    count = len(unit)
    similarities = (unit @ unit.T).flatten()[1:].view(count - 1, count + 1)  # the diagonal is now the last column
    return similarities[:, :-1].reshape(count, count - 1).log_softmax(dim=1)


def gradient_reversal(features: Tensor, *, scale: float = 1.0) -> Tensor:
    """The features, of any shape, unchanged; in the backward pass, their gradient times -`scale`.

    Layers after it learn to tell two domains apart, and layers before it learn to make that hard. Ganin 2016,
    arXiv:1505.07818, eq. 14-15.
    """
    unchanged = features.view_as(features)
    if unchanged.requires_grad:
        unchanged.register_hook(lambda gradient: -scale * gradient)  # type: ignore[no-untyped-call]
    return unchanged
