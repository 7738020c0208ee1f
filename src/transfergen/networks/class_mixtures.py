"""Classes and mixtures of classes: from what a user writes to what a generator takes."""

import math
from collections.abc import Iterable, Mapping
from operator import index
from typing import SupportsIndex

import torch
from torch import Tensor
from torch.nn import functional as F

from transfergen.errors import counted

Label = SupportsIndex | Mapping[int, float]
"""A class, counted from 0; or a mixture, as in `{3: 0.7, 5: 0.3}`, whose weights are divided by their sum."""


def to_labels(labels: Iterable[Label], num_classes: int, owner: str = "this generator") -> Tensor:
    """N classes or mixtures -> classes (N,) int64, or if one is a mixture, weights (N, `num_classes`) float.

    Args:
        labels: classes and mixtures; none: all classes.
        num_classes: of the generator. An unconditional one, of 0, gets a label that it ignores.
        owner: names the generator in messages.

    Raises:
        ValueError: the generator has no such class, or the weights of a mixture are negative, infinite or all 0.
    """
    given: list[int | dict[int, float]] = [
        {index(y): float(weight) for y, weight in label.items()} if isinstance(label, Mapping) else index(label)
        for label in list(labels) or range(num_classes)
    ]
    mixtures = [label if isinstance(label, dict) else {label: 1.0} for label in given]
    if any(y not in range(num_classes) for mixture in mixtures for y in mixture):
        known = f"{counted(num_classes, 'class', 'classes')}, counted from 0" if num_classes else "no classes"
        raise ValueError(f"classes={given}: {owner} has {known}")
    if any(min(mixture.values(), default=0) < 0 or not 0 < sum(mixture.values()) < math.inf for mixture in mixtures):
        raise ValueError(f"classes={given}: give a mixture weights of 0 or more, of which one is not 0")
    if all(len(mixture) == 1 for mixture in mixtures):
        return torch.tensor([y for mixture in mixtures for y in mixture] or [0])
    weights = torch.zeros(len(mixtures), num_classes)
    for row, mixture in zip(weights, mixtures, strict=True):
        for y, weight in mixture.items():
            row[y] = weight / sum(mixture.values())
    return weights


def to_weights(labels: Tensor, num_classes: int) -> Tensor:
    """The output of `to_labels` -> weights (N, `num_classes`) float, or (N, 1) of an unconditional generator."""
    return labels if labels.is_floating_point() else F.one_hot(labels, num_classes or 1).float()
