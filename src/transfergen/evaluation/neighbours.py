"""Measures by nearest neighbours, which tell fidelity, diversity and memorisation apart.

Features are (N, D), any float dtype, on one device; distances are Euclidean, in float64.
"""

from collections.abc import Iterator

import torch
from torch import Tensor

ENTRIES = 2**23  # of a matrix of distances held at once: 64 MiB
RESOLUTION = 1e-12  # squared distance, relative to the vectors' squared lengths, that float32 features cannot resolve


def precision_recall(real: Tensor, fake: Tensor, *, k: int = 3) -> tuple[Tensor, Tensor]:
    """Improved precision and recall of features (N, D) and (M, D), scalars in [0, 1].

    Precision is the part of the fakes that lie in the ball of some real, as large as the distance to its k-th nearest
    real; recall is the same with the roles exchanged. Kynkäänniemi 2019, arXiv:1904.06991, eq. 1 and 2. Both depend
    on the number of samples: compare at equal numbers only.

    Raises:
        ValueError: a set has k samples or fewer.
    """
    real_radii, fake_radii = _radii(real, k, "real"), _radii(fake, k, "generated")
    precise, recalled = [], torch.zeros_like(real_radii, dtype=torch.bool)
    for start, squared in _blocks(fake, real):
        precise.append((squared <= real_radii).any(dim=1))
        recalled |= (squared <= fake_radii[start : start + len(squared), None]).any(dim=0)
    return torch.cat(precise).double().mean(), recalled.double().mean()


def density_coverage(real: Tensor, fake: Tensor, *, k: int = 5) -> tuple[Tensor, Tensor]:
    """Density (>= 0; expected 1 for equal distributions) and coverage ([0, 1]) of features (N, D) and (M, D).

    Density is the number of reals' balls, as large as the distance to the k-th nearest real, that a fake lies in, over
    k; coverage is the part of the reals whose ball holds a fake. Naeem 2020, arXiv:2002.09797, sec. 3; the balls are
    open, as in its authors' code. Fakes that are outliers count for less than in precision and recall.

    Raises:
        ValueError: there are k reals or fewer.
    """
    radii = _radii(real, k, "real")
    held, covered = torch.zeros((), dtype=torch.double, device=real.device), torch.zeros_like(radii, dtype=torch.bool)
    for _, squared in _blocks(fake, real):
        inside = squared < radii
        held += inside.sum()
        covered |= inside.any(dim=0)
    return held / (k * len(fake)), covered.double().mean()


def nearest(queries: Tensor, references: Tensor, *, k: int = 1) -> tuple[Tensor, Tensor]:
    """The k nearest of references (M, D) to each query (N, D): distances and indices, (N, k) each, nearest first.

    Raises:
        ValueError: there are fewer than k references.
    """
    if len(references) < k:
        raise ValueError(f"{k} nearest neighbours of {len(references)} images cannot be had")
    found = [squared.topk(k, largest=False) for _, squared in _blocks(queries, references)]
    return torch.cat([f.values for f in found]).sqrt(), torch.cat([f.indices for f in found])


def _radii(features: Tensor, k: int, what: str) -> Tensor:
    """Squared distance of each of the features (N, D) to its k-th nearest other, (N,)."""
    if len(features) <= k:
        raise ValueError(f"{len(features)} {what} images: {k} nearest neighbours of each need more than {k}")
    radii = []
    for start, squared in _blocks(features, features):
        squared.diagonal(offset=start).fill_(torch.inf)  # itself
        radii.append(squared.kthvalue(k, dim=1).values)
    return torch.cat(radii)


def _blocks(a: Tensor, b: Tensor) -> Iterator[tuple[int, Tensor]]:
    """First row and squared distances (rows, M) of as many rows of `a` (N, D) to all of `b` (M, D) as memory allows."""
    a, b = a.double(), b.double()
    lengths = b.square().sum(dim=1)
    rows = max(1, ENTRIES // len(b))
    for start in range(0, len(a), rows):
        part = a[start : start + rows]
        sums = part.square().sum(dim=1, keepdim=True) + lengths
        squared = torch.addmm(sums, part, b.T, alpha=-2)
        yield start, squared.masked_fill_(squared < RESOLUTION * sums, 0)
