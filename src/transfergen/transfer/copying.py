"""Copies the weights of one network to another: equal tensors as they are, embeddings of classes as mixtures."""

import json
import logging
from collections.abc import Collection, Mapping, Sequence
from inspect import signature
from typing import Any

import torch
from torch import Tensor, nn

from transfergen.errors import counted
from transfergen.networks.class_mixtures import Label, to_labels, to_weights
from transfergen.networks.layers.reparametrization import class_tables
from transfergen.networks.public.reading import LAYOUTS
from transfergen.targets import get_target, shipped_targets

log = logging.getLogger(__name__)

Tensors = Mapping[str, Tensor]
"""Tensors by name."""


def copy_weights(
    state: Tensors,
    network: nn.Module,
    source: str,
    left_out: Collection[str] = (),
    classes: Sequence[Label] = (),
    overrides: str = "",
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
        overrides: settings of the source's network, which the message gives if no tensor fits.

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
    _check_copied(copied, state, ours, source, overrides)
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


def _check_copied(copied: Tensors, theirs: Tensors, ours: Tensors, source: str, overrides: str) -> None:
    """Refuse a source of which no tensor fits, or one that fits is not finite."""
    damaged = [name for name, tensor in copied.items() if not torch.isfinite(tensor).all()]
    if damaged:
        raise ValueError(f"{source}: damaged: {damaged[0]} holds NaN or infinity")
    if not any(tensor.ndim for tensor in copied.values()):  # scalars, such as counters of batches, always fit
        found, expected = (
            min((f"{name} {_shape(tensor)}" for name, tensor in tensors.items() if tensor.ndim > 1), default="nothing")
            for tensors in (theirs, ours)
        )
        mend = overrides or (
            "the networks and data.resolution that it was trained with, or, for another project's names, "
            f"init_from.keys or init_from.layout={' or '.join(LAYOUTS)}"
        )
        raise ValueError(f"{source}: none of its tensors fits: it has {found}, expected {expected}; set {mend}")


def network_overrides(config: Mapping[str, Any], node: str) -> str:
    """The overrides that build a network, as text: the choice of its group, and what differs from the class's defaults.

    Args:
        config: its class as `_target_`, and the arguments that build it.
        node: where it is in the config of a training, such as `discriminator.ordinary`.

    Returns:
        Nothing if the class is none of ours, or an argument is a network.
    """
    if config.get("_target_") not in shipped_targets() or any(isinstance(each, Mapping) for each in config.values()):
        return ""
    group, dot, _ = node.partition(".")
    choice = config["_target_"].split(".")[-2]  # a module has the name of its YAML
    settings = {f"{group}@{node}" if dot else node: choice}
    for name, parameter in signature(get_target(config["_target_"])).parameters.items():
        value = config.get(name, parameter.default)
        if name == "resolution":
            settings[f"data.{name}"] = value
        elif name not in config or _plain(value) == _plain(parameter.default):
            continue
        elif name in ("aspect", "image_channels"):
            settings[f"data.{name.removeprefix('image_')}"] = json.dumps(value, separators=(",", ":"))
        else:  # classes are as many as the pictures have
            settings[f"{node}.{name}"] = json.dumps(None if name == "num_classes" else value, separators=(",", ":"))
    return " ".join(f"{key}={value}" for key, value in settings.items())


def table_names(network: nn.Module) -> set[str]:
    """Names of the tensors that hold embeddings of classes, with and without spectral normalisation."""
    suffixes = "weight", "parametrizations.weight.original"
    return {f"{table}.{suffix}" for table in class_tables(network) for suffix in suffixes}


def _shape(tensor: Tensor) -> str:
    return str(tuple(tensor.shape))


def _plain(value: Any) -> Any:
    """An argument as YAML holds it, which has no tuples."""
    return list(value) if isinstance(value, tuple) else value
