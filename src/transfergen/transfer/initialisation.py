"""Where a training starts from: another run, a file of weights, or a model on the hub."""

import logging
import re
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from transfergen.networks.backbones.base import Backbone
from transfergen.networks.discriminators.base import Discriminator
from transfergen.networks.generators.base import Generator
from transfergen.networks.weights import read_state_dict
from transfergen.runs import artefacts
from transfergen.runs.checkpoint import SafeCheckpointIO, tensors_digest
from transfergen.runs.generator_files import load_generator

log = logging.getLogger(__name__)

Rule = Mapping[str, str]
"""`theirs`, a regular expression for a whole name, and `ours`, what it becomes, with \\1 for its first group."""

_HUB_NAME = re.compile(r"[\w.-]+/[\w.-]+")
_FILES = (".safetensors", ".pth", ".pt", ".ckpt")


def initialise(
    generator: Generator, discriminator: Discriminator | None, start: Mapping[str, str | list[Rule] | None]
) -> None:
    """Copy into the networks what the config node `init_from` names: its `generator`, its `discriminator`, by `keys`.

    Raises:
        ValueError: a source that cannot be read, or of which nothing fits; see `copy_weights`.
    """
    for name, network in (("generator", generator), ("discriminator", discriminator)):
        where = start[name]
        if where is None:
            continue
        if network is None:
            raise ValueError(f"init_from.{name}={where}: this model has no {name}; set init_from.{name}=null")
        setting = f"init_from.{name}"
        state, left_out = _read(str(where), name, setting)
        state = renamed(state, start["keys"], setting)  # type: ignore[arg-type]
        trunks = [(trunk, _digest(trunk)) for trunk in getattr(network, "backbones", ())]
        copy_weights(state, network, f"{setting}={where}", left_out)
        for trunk, as_in_the_file in trunks:  # a tuned one is in no file that could be read again
            trunk.pretrained &= _digest(trunk) == as_in_the_file


def copy_weights(
    state: Mapping[str, Tensor], network: nn.Module, source: str, left_out: Collection[str] = ()
) -> list[str]:
    """Copy tensors to those of the network that have the same name and shape; the others stay as they are.

    Of a table with one row for each class, with other classes than the network's, each row becomes the mean of all: a
    start that is between them.

    Args:
        state: tensors by name.
        network: gets them.
        source: what to call it in messages: SETTING=VALUE.
        left_out: tensors that the source need not hold, since both read them from the same file.

    Returns:
        A line for each tensor that was not simply copied, as logged.

    Raises:
        ValueError: nothing fits, or a tensor holds NaN or infinity.
    """
    ours = {name: tensor for name, tensor in network.state_dict().items() if isinstance(tensor, Tensor)}
    tables = {
        f"{module}.{suffix}"
        for module, part in network.named_modules()
        if isinstance(part, nn.Embedding)
        for suffix in ("weight", "parametrizations.weight.original")
    }
    copied: dict[str, Tensor] = {}
    report = []
    for name, mine in ours.items():
        its = state.get(name)
        if its is None and name in left_out:
            continue
        if its is None:
            report.append(f"{name} {_shape(mine)}: not there, starts fresh")
        elif its.shape == mine.shape:
            copied[name] = its
        elif name in tables and its.shape[1:] == mine.shape[1:]:
            copied[name] = its.mean(dim=0, keepdim=True).expand_as(mine)
            report.append(f"{name}: {len(its)} classes there, {len(mine)} here: each starts from the mean of those")
        else:
            report.append(f"{name}: {_shape(its)} there, {_shape(mine)} here: starts fresh")
    report += [f"{name} {_shape(tensor)}: not used" for name, tensor in state.items() if name not in ours]
    damaged = [name for name, tensor in copied.items() if not torch.isfinite(tensor).all()]
    if damaged:
        raise ValueError(f"{source}: damaged: {damaged[0]} holds NaN or infinity")
    if not any(tensor.ndim for tensor in copied.values()):  # counters of batches fit anywhere
        theirs, first = (
            min((f"{name} {_shape(tensor)}" for name, tensor in tensors.items() if tensor.ndim > 1), default="nothing")
            for tensors in (state, ours)
        )
        raise ValueError(
            f"{source}: none of its {len(state)} tensors fits: it has {theirs}, expected {first}; set the "
            "networks and data.resolution that it was trained with, or init_from.keys for another project's names"
        )
    network.load_state_dict(copied, strict=False)
    if report:
        head = f"{source}: {len(copied)} of {len(ours)} tensors taken over"
        log.warning("\n  ".join([head, *report]))
    return report


def renamed(state: Mapping[str, Tensor], rules: Sequence[Rule], setting: str) -> dict[str, Tensor]:
    """Another project's tensors by our names: the first rule whose `theirs` matches the whole name is applied.

    Raises:
        ValueError: a rule that is no regular expression, or lacks a part.
    """
    ours: dict[str, Tensor] = {}
    for name, tensor in state.items():
        for rule in rules:
            try:
                match = re.fullmatch(rule["theirs"], name)
                new = match.expand(rule["ours"]) if match else None
            except (re.error, KeyError, IndexError) as error:
                raise ValueError(f"init_from.keys, for {setting}: {dict(rule)}: {error!r}") from error
            if new is not None:
                ours[new] = tensor
                break
        else:
            ours[name] = tensor
    return ours


def load_source_generator(where: str, setting: str) -> Generator:
    """The generator of a run directory or of a model on the hub, frozen and in eval mode, on the CPU.

    Raises:
        ValueError: it cannot be read; names the `setting`.
    """
    folder = Path(where).expanduser()
    if not folder.is_dir() and _HUB_NAME.fullmatch(where):
        for file in (artefacts.GENERATOR_METADATA, artefacts.GENERATOR_WEIGHTS):
            folder = _download(where, file, setting).parent
    return load_generator(folder, setting)


def _read(where: str, network: str, setting: str) -> tuple[dict[str, Tensor], Collection[str]]:
    """Tensors by name, and the names of those that a checkpoint leaves out because they come from files."""
    path = Path(where).expanduser()
    if path.is_dir():
        if network == "generator":
            return read_state_dict(path / artefacts.GENERATOR_WEIGHTS, setting), ()
        return _of_discriminator(path / artefacts.LAST_CHECKPOINT, setting)
    if path.exists() or path.suffix in _FILES:
        return read_state_dict(path, setting), ()
    if _HUB_NAME.fullmatch(where):
        return read_state_dict(_download(where, f"{network}.safetensors", setting), setting), ()
    raise ValueError(f"{setting}={where}: there is no such folder or file, and no model of the hub has such a name")


def _of_discriminator(checkpoint: Path, setting: str) -> tuple[dict[str, Tensor], Collection[str]]:
    prefix = "discriminator."
    try:
        content = SafeCheckpointIO().load_checkpoint(checkpoint)
        state, left_out = content["state_dict"], content["transfergen"]["left_out"]["names"]
    except (ValueError, KeyError) as error:
        raise ValueError(f"{setting}={checkpoint.parents[1]}: {str(error).removeprefix('resume: ')}") from error
    its = {
        name.removeprefix(prefix): value
        for name, value in state.items()
        if name.startswith(prefix) and isinstance(value, Tensor)  # others have a state of their own kind, too
    }
    if not its:
        raise ValueError(f"{setting}={checkpoint}: the run has no discriminator; set {setting}=null")
    return its, {name.removeprefix(prefix) for name in left_out}


def _digest(trunk: Backbone) -> str:
    return tensors_digest(iter(trunk.blocks.state_dict().items()))


def _download(name: str, file: str, setting: str) -> Path:
    from huggingface_hub import hf_hub_download

    try:
        return Path(hf_hub_download(name, file))
    except Exception as error:  # the hub's errors have no common class
        reason = str(error).strip().splitlines()[0][:200]
        raise ValueError(
            f"{setting}={name}: no such folder, and {file} is not to be had from the hub ({reason}); give a run "
            "directory or a file of weights"
        ) from error


def _shape(tensor: Tensor) -> str:
    return str(tuple(tensor.shape))
