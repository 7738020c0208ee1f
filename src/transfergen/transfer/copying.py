"""Copies the weights of one network to another: equal tensors as they are, embeddings of classes as mixtures."""

import logging
from collections.abc import Collection, Mapping, Sequence

import torch
from torch import Tensor, nn

from transfergen.errors import counted
from transfergen.networks.class_mixtures import Label, to_labels, to_weights
from transfergen.networks.layers.reparametrization import class_tables
from transfergen.networks.public.reading import LAYOUTS

log = logging.getLogger(__name__)

Tensors = Mapping[str, Tensor]
"""Tensors by name."""


def copy_weights(
    state: Tensors,
    network: nn.Module,
    source: str,
    left_out: Collection[str] = (),
    classes: Sequence[Label] = (),
) -> list[str]:
    """Copy tensors to those of the network that have the same name and shape; the others keep their values.

    An embedding of classes starts from the chosen classes. If none are chosen, and it has another number of rows than
    the source's, each row becomes the mean of the source's.

    Args:
        state: the source's tensors by name.
        network: gets them.
        source: the source in messages, as SETTING=VALUE.
        left_out: names of tensors that the source need not hold: both networks read them from the same file.
        classes: those of the source that the network's start from, see `start_weights`.

    Returns:
        A line for each tensor that was not copied as it is. They are logged, too.

    Raises:
        ValueError: no tensor fits, one holds NaN or infinity, or the `classes` do not fit.
    """
    ours = {name: tensor for name, tensor in network.state_dict().items() if isinstance(tensor, Tensor)}
    embeddings = table_names(network)
    copied: dict[str, Tensor] = {}
    report = []
    for name, tensor in ours.items():
        theirs = state.get(name)
        if theirs is None and name in left_out:
            continue
        if theirs is None:
            report.append(f"{name} {_shape(tensor)}: not in the source, keeps its fresh values")
        elif name in embeddings and theirs.shape[1:] == tensor.shape[1:] and (classes or len(theirs) != len(tensor)):
            copied[name] = start_weights(classes, len(tensor), len(theirs)).to(theirs) @ theirs
            start = f"start from {classes}" if classes else "all start from their mean"
            there = counted(len(theirs), "class", "classes")
            report.append(f"{name}: {there} in the source, {len(tensor)} here: {start}")
        elif theirs.shape == tensor.shape:
            copied[name] = theirs
        else:
            report.append(f"{name}: {_shape(theirs)} in the source, {_shape(tensor)} here: keeps its fresh values")
    report += [f"{name} {_shape(tensor)}: in the source only" for name, tensor in state.items() if name not in ours]
    _check_copied(copied, state, ours, source)
    network.load_state_dict(copied, strict=False)
    if report:
        log.warning("\n  ".join([f"{source}: copied {len(copied)} of {len(ours)} tensors", *report]))
    return report


def start_weights(classes: Sequence[Label], ours: int, theirs: int) -> Tensor:
    """The part of each of a source's classes in each new class at first: weights (`ours`, `theirs`), rows of sum 1.

    Args:
        classes: a class of the source, or a mixture as in `{3: 0.7, 5: 0.3}`, for each new class, or one for all of
            them; empty: the mean of all.
        ours: number of new classes.
        theirs: number of the source's classes.

    Raises:
        ValueError: the source has no such class, or there is neither one nor as many as new classes.
    """
    if not classes:
        return torch.full((ours, theirs), 1 / theirs)
    weights = to_weights(to_labels(classes, theirs, owner="the source", setting="init_from.classes"), theirs)
    if len(weights) not in (1, ours):
        raise ValueError(f"init_from.classes={[*classes]}: give one, or as many as the run has classes: {ours}")
    return weights.expand(ours, -1)


def _check_copied(copied: Tensors, theirs: Tensors, ours: Tensors, source: str) -> None:
    """Refuse a source of which no tensor fits, or one that fits is not finite."""
    damaged = [name for name, tensor in copied.items() if not torch.isfinite(tensor).all()]
    if damaged:
        raise ValueError(f"{source}: damaged: {damaged[0]} holds NaN or infinity")
    if not any(tensor.ndim for tensor in copied.values()):  # scalars, such as counters of batches, always fit
        found, expected = (
            min((f"{name} {_shape(tensor)}" for name, tensor in tensors.items() if tensor.ndim > 1), default="nothing")
            for tensors in (theirs, ours)
        )
        raise ValueError(
            f"{source}: none of its tensors fits: it has {found}, expected {expected}; set the networks "
            "and data.resolution that it was trained with, or, for another project's names, init_from.keys or "
            f"init_from.layout={' or '.join(LAYOUTS)}"
        )


def table_names(network: nn.Module) -> set[str]:
    """Names of the tensors that hold embeddings of classes, with and without spectral normalisation."""
    suffixes = "weight", "parametrizations.weight.original"
    return {f"{table}.{suffix}" for table in class_tables(network) for suffix in suffixes}


def _shape(tensor: Tensor) -> str:
    return str(tuple(tensor.shape))
