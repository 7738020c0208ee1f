"""Class numbers from whatever a data set has for labels: whole numbers or strings."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from transfergen.data.pictures import IntArray


def number_classes(
    values: Sequence[Any],
    setting: str,
    split: str,
    *,
    names: Sequence[str] | None = None,
    known: Sequence[Any] | None = None,
) -> tuple[IntArray, tuple[Any, ...]]:
    """The class number of each label of a split, (N,), and the classes. For the labels -1 and None, the number is -1.

    Args:
        values: N labels.
        setting: the setting that says where the labels are, as key=value, for messages.
        split: the name of the split, for messages.
        names: of the classes, if the labels are their numbers.
        known: the classes of the training split; None: this is the training split. Without classes, all labels are 0.

    Raises:
        ValueError: a label is neither a whole number nor a string, or of a class that the training split does not have.
    """
    odd = next((value for value in values if not (value is None or isinstance(value, int | str))), None)
    if odd is not None:
        raise ValueError(f"{setting}: holds {type(odd).__name__}; choose one of whole numbers or strings")
    present = set(values) - {None, -1}
    if known == () or (known is None and not present):
        return np.zeros(len(values), np.int64), ()
    classes = range(len(names)) if names else sorted(present) if known is None else known
    if unknown := present - set(classes):
        raise ValueError(
            f"{setting}: the split {split} has the class {min(unknown)}, which "
            f"{'has no name' if names else 'the training split does not have'}"
        )
    numbers = {value: number for number, value in enumerate(classes)}
    return np.array([numbers.get(value, -1) for value in values], np.int64), tuple(names or classes)
