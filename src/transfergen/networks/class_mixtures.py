"""Classes and mixtures of classes: from what a user writes to what a generator takes."""

import math
from collections.abc import Iterable, Mapping, Sequence
from difflib import get_close_matches
from operator import index
from typing import SupportsIndex

import torch
from torch import Tensor
from torch.nn import functional as F

from transfergen.errors import counted

Number = int | dict[int, float]
"""A class by its number, counted from 0; or a mixture, `{3: 0.7, 5: 0.3}`, whose weights are divided by their sum."""
Label = SupportsIndex | str | Mapping[int, float] | Mapping[str, float]
"""A class by its number or name; or a mixture of classes, as in `{3: 0.7, 5: 0.3}` or `{"cat": 0.7, "dog": 0.3}`."""
_FEW = 20
"""Names that a message lists; of more it lists those that are spelt like the one that was not found."""


def numbered(
    labels: Iterable[Label], names: Sequence[str], *, owner: str = "this generator", setting: str = "classes"
) -> list[Number]:
    """Classes and mixtures, with the numbers of classes in place of their names.

    Args:
        labels: classes and mixtures.
        names: of the generator's classes, in order; none: they have no names.
        owner: names the generator in messages.
        setting: that the labels were given as, which messages begin with.

    Raises:
        ValueError: no class has this name, or several have.
    """
    given = list(labels)

    def number(label: SupportsIndex | str) -> int:
        if not isinstance(label, str):
            return index(label)
        found = [i for i, name in enumerate(names) if name == label]
        if len(found) == 1:
            return found[0]
        if found:
            what = f"the classes {' and '.join(map(str, found))} of {owner} are called {label}; give a number"
        elif not names:
            what = f"{owner} has no names of classes; give numbers, counted from 0"
        else:
            near = names if len(names) <= _FEW else get_close_matches(label, names, 5, 0.0)
            what = f"{owner} has no class {label}, but {', '.join(dict.fromkeys(near))}"
        raise ValueError(f"{setting}={_shown(given)}: {what}")

    def mixture(weights: Mapping[int, float] | Mapping[str, float]) -> dict[int, float]:
        parts: dict[int, float] = {}
        for label, weight in weights.items():  # a class may be there twice, by its number and by its name
            parts[number(label)] = parts.get(number(label), 0.0) + float(weight)
        return parts

    return [mixture(label) if isinstance(label, Mapping) else number(label) for label in given]


def to_labels(
    labels: Iterable[Label],
    num_classes: int,
    names: Sequence[str] = (),
    *,
    owner: str = "this generator",
    setting: str = "classes",
) -> Tensor:
    """N classes or mixtures -> classes (N,) int64, or if one is a mixture, weights (N, `num_classes`) float.

    Args:
        labels: classes and mixtures; none: all classes.
        num_classes: of the generator. An unconditional one, of 0, gets a label that it ignores.
        names: of its classes, in order; none: they have no names.
        owner: names the generator in messages.
        setting: that the labels were given as, which messages begin with.

    Raises:
        ValueError: the generator has no such class, or several of this name; or the weights of a mixture are negative,
            infinite or all 0.
    """
    asked = list(labels)
    if asked and not num_classes:
        raise ValueError(f"{setting}={_shown(asked)}: {owner} has no classes")
    given = numbered(asked, names, owner=owner, setting=setting) or list(range(num_classes))
    mixtures = [label if isinstance(label, dict) else {label: 1.0} for label in given]
    if any(y not in range(num_classes) for mixture in mixtures for y in mixture):
        raise ValueError(f"{setting}={given}: {owner} has {counted(num_classes, 'class', 'classes')}, counted from 0")
    if any(min(mixture.values(), default=0) < 0 or not 0 < sum(mixture.values()) < math.inf for mixture in mixtures):
        raise ValueError(f"{setting}={given}: give a mixture weights of 0 or more, of which one is not 0")
    if all(len(mixture) == 1 for mixture in mixtures):
        return torch.tensor([y for mixture in mixtures for y in mixture] or [0])
    weights = torch.zeros(len(mixtures), num_classes)
    for row, mixture in zip(weights, mixtures, strict=True):
        for y, weight in mixture.items():
            row[y] = weight / sum(mixture.values())
    return weights


def _shown(labels: Sequence[Label]) -> str:
    """Labels as the command line takes them, names without quotes."""
    return f"[{', '.join(map(str, labels))}]"


def to_weights(labels: Tensor, num_classes: int) -> Tensor:
    """The output of `to_labels` -> weights (N, `num_classes`) float, or (N, 1) of an unconditional generator."""
    return labels if labels.is_floating_point() else F.one_hot(labels, num_classes or 1).float()
