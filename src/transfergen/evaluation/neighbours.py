"""Nearest-neighbour metrics, which measure fidelity and diversity separately, and nearest neighbours themselves.

Features are (N, D), of any float dtype, on one device. Distances are Euclidean and computed in float64.
"""

from collections.abc import Iterator

import torch
from torch import Tensor

from transfergen.errors import counted
from transfergen.evaluation.blocks import rows_per_block

RESOLUTION = 1e-12  # of squared distances relative to squared norms: what float32 features cannot tell from 0


def precision_recall(real: Tensor, fake: Tensor, *, k: int = 3) -> tuple[Tensor, Tensor]:
    """Improved precision and recall of features (N, D) and (M, D), scalars in [0, 1].

    Each real sample has a ball whose radius is the distance to its k-th nearest other real sample. Precision is the
    fraction of generated samples within some ball; recall swaps the roles. Kynkäänniemi 2019, arXiv:1904.06991, eq. 1
    and 2. Both depend on the number of samples, so compare values only at equal numbers.

    Raises:
        ValueError: a set has k samples or fewer.
    """
    real_radii, fake_radii = _squared_radii(real, k, "real"), _squared_radii(fake, k, "generated")
    precise, recalled = [], torch.zeros_like(real_radii, dtype=torch.bool)
    for start, squared in _blocks(fake, real):
        precise.append((squared <= real_radii).any(dim=1))
        recalled |= (squared <= fake_radii[start : start + len(squared), None]).any(dim=0)
    return torch.cat(precise).double().mean(), recalled.double().mean()


def density_coverage(real: Tensor, fake: Tensor, *, k: int = 5) -> tuple[Tensor, Tensor]:
    """Density (>= 0; expected 1 for equal distributions) and coverage (in [0, 1]) of features (N, D) and (M, D).

    With balls around the real samples as in `precision_recall`, density is the mean number of balls that a generated
    sample lies in, divided by k; coverage is the fraction of balls that hold a generated sample. Naeem 2020,
    arXiv:2002.09797, sec. 3; the balls are open, as in the authors' code. Outliers among the real samples distort both
    less than precision and recall.

    Raises:
        ValueError: there are k real samples or fewer.
    """
    radii = _squared_radii(real, k, "real")
    held, covered = torch.zeros((), dtype=torch.double, device=real.device), torch.zeros_like(radii, dtype=torch.bool)
    for _, squared in _blocks(fake, real):
        inside = squared < radii
        held += inside.sum()
        covered |= inside.any(dim=0)
    return held / (k * len(fake)), covered.double().mean()


def authenticity(training: Tensor, fake: Tensor) -> Tensor:
    """The fraction of generated samples (M, D) that are no copies of training images (N, D), a scalar in [0, 1].

    A sample is taken for a copy if it is at most as far from the nearest training image as that is from the next one.
    Copies have 0, noise has 1. Unseen real images have a value between, which depends on the features: compare with it.
    Alaa 2022, arXiv:2102.08921; AuthPct, in percent, in Stein 2023, arXiv:2306.04675.

    Raises:
        ValueError: there are fewer than two training images.
    """
    radii = _squared_radii(training, 1, "training").sqrt()
    distances, indices = nearest(fake, training)
    return (distances > radii[indices]).double().mean()


def nearest(queries: Tensor, references: Tensor, *, k: int = 1) -> tuple[Tensor, Tensor]:
    """Distances and indices, (N, k) each, of the k references (M, D) nearest to each query (N, D), nearest first.

    Raises:
        ValueError: there are fewer than k references.
    """
    if len(references) < k:
        raise ValueError(f"{counted(len(references), 'image')}: too few for {counted(k, 'nearest neighbour')}")
    found = [squared.topk(k, largest=False) for _, squared in _blocks(queries, references)]
    return torch.cat([f.values for f in found]).sqrt(), torch.cat([f.indices for f in found])


def _squared_radii(features: Tensor, k: int, what: str) -> Tensor:
    """Squared distance of each of the features (N, D) to its k-th nearest other, (N,)."""
    if len(features) <= k:
        neighbours = counted(k, "nearest neighbour")
        raise ValueError(f"{counted(len(features), f'{what} image')}: too few for {neighbours} of each")
    radii = []
    for start, squared in _blocks(features, features):
        squared.diagonal(offset=start).fill_(torch.inf)  # no sample is its own neighbour
        radii.append(squared.kthvalue(k, dim=1).values)
    return torch.cat(radii)


def _blocks(a: Tensor, b: Tensor) -> Iterator[tuple[int, Tensor]]:
    """The squared distances between `a` (N, D) and `b` (M, D), in blocks of rows: (first row, (rows, M))."""
    a, b = a.double(), b.double()
    squared_norms = b.square().sum(dim=1)
    rows = rows_per_block(len(b))
    for start in range(0, len(a), rows):
        part = a[start : start + rows]
        sums = part.square().sum(dim=1, keepdim=True) + squared_norms
        squared = torch.addmm(sums, part, b.T, alpha=-2)
        yield start, squared.masked_fill_(squared < RESOLUTION * sums, 0)
