"""Going on with a run: its config, its place in the data, and what a checkpoint must hold.

A training's position is the number of real images that it has seen. Epoch, place in the order of the data, schedules
and intervals follow from it.
"""

from collections.abc import Iterable
from typing import Any

import torch
from omegaconf import DictConfig, OmegaConf
from torch import Tensor

from transfergen.config import flatten
from transfergen.runs.checkpoint import FORMAT, tensors_digest

KEY = "transfergen"
"""Where in a checkpoint our own state is."""


def resume_config(saved: DictConfig, choices: DictConfig, fresh: DictConfig, overrides: list[str]) -> DictConfig:
    """The saved config, changed by what this command line overrides.

    Args:
        saved: as the run directory holds it.
        choices: the model and the experiment of the saved run. The command line may repeat them, as that of a job does
            that is queued again.
        fresh: as composed from this command line.
        overrides: this command line.

    Raises:
        ValueError: an override that would make it another run.
    """
    config = saved.copy()
    for override in overrides:
        key = override_key(override)
        if key in choices:
            if override == f"{key}={choices[key]}":
                continue
            raise ValueError(f"{override}: a resumed run keeps its {key}; start a new run, or override single keys")
        parent, _, name = key.rpartition(".")
        if key.partition(".")[0] == "init_from" and OmegaConf.select(saved, key) != OmegaConf.select(fresh, key):
            line = "a resumed run goes on with the weights of its checkpoint; leave it out, or start a new run"
            raise ValueError(f"{override.lstrip('+')}: {line}")
        if override.startswith("~"):
            holder = OmegaConf.select(config, parent) if parent else config
            if name not in (holder or ()):
                raise ValueError(f"{override}: the run has no such key; leave it out")
            holder.pop(name)
        elif key not in ("resume", "overwrite"):
            node = (OmegaConf.select(fresh, parent) if parent else fresh)._get_node(name)  # interpolations as written
            OmegaConf.update(config, key, node, merge=False, force_add=True)
    return config


def override_key(override: str) -> str:
    """The dotted key, or the group, that an override of the command line sets."""
    return override.lstrip("+~").split("=", 1)[0].split("@", 1)[0]


def set_loop_progress(checkpoint: dict[str, Any], images_seen: int, *, batch_size: int, batches_per_epoch: int) -> None:
    """Tell Lightning's loops, in their part of a checkpoint, where a training stands after `images_seen` images."""
    epoch, batch = divmod(images_seen // batch_size, batches_per_epoch)
    begun = epoch + (1 if batch else 0)
    epochs = {"ready": begun, "started": begun, "processed": epoch, "completed": epoch}
    loops = checkpoint["loops"]["fit_loop"]
    loops["epoch_progress"] |= {"total": dict(epochs), "current": dict(epochs)}
    for name, batches in (("total", epoch * batches_per_epoch + batch), ("current", batch)):
        progress = dict.fromkeys(("ready", "started", "processed", "completed"), batches)
        loops["epoch_loop.batch_progress"][name] = progress
    loops["epoch_loop.batch_progress"]["is_last_batch"] = False
    checkpoint["epoch"] = epoch


def leave_out(checkpoint: dict[str, Any], names: Iterable[str]) -> None:
    """Take tensors that are read from files again out of a checkpoint, and keep their SHA-256 instead."""
    state: dict[str, Tensor] = checkpoint["state_dict"]
    left_out = [name for name in names if name in state]
    digest = tensors_digest((name, state[name]) for name in left_out)
    checkpoint["state_dict"] = {name: tensor for name, tensor in state.items() if name not in set(left_out)}
    checkpoint[KEY] |= {"left_out": {"names": left_out, "sha256": digest}}


def check_and_complete(checkpoint: dict[str, Any], state: dict[str, Any], config: dict[str, Any]) -> dict[str, Any]:
    """Check a checkpoint against the networks here, and put back the tensors that it left out.

    Args:
        checkpoint: as read; its `state_dict` is completed.
        state: the `state_dict` of the module that is to go on.
        config: what that module was built from, for the message.

    Returns:
        Our own part of the checkpoint.

    Raises:
        ValueError: it is of another program, of a newer version, of other networks, or of another frozen trunk.
    """
    own: dict[str, Any] = checkpoint.get(KEY) or {}
    if "format" not in own:
        raise ValueError("resume: the checkpoint was not written by transfergen")
    if own["format"] > FORMAT:
        raise ValueError(f"resume: the checkpoint's format is {own['format']}, newer than {FORMAT}; update transfergen")
    left_out = [name for name in own["left_out"]["names"] if name in state]
    if tensors_digest((name, state[name]) for name in left_out) != own["left_out"]["sha256"]:
        raise ValueError(
            "resume: the frozen trunk's weights are not those that the run was trained with; resume with the run's own "
            "backbone.weights"
        )
    theirs = checkpoint["state_dict"]
    theirs |= {name: state[name] for name in left_out}
    ours, saved = _shapes(state), _shapes(theirs)
    if ours != saved:
        names = [name for name in (ours | saved) if ours.get(name) != saved.get(name)]
        raise ValueError(
            f"resume: the checkpoint is of other networks: {len(names)} of {len(saved)} tensors differ, {names[0]} "
            f"first; resume with the run's own {differing_keys(own['config'], config)}"
        )
    return own


def differing_keys(saved: Any, here: Any) -> str:
    """Dotted keys that do not have the same value in two configs, as one line."""
    ours, theirs = flatten(here), flatten(saved)
    keys = [key for key in ours | theirs if ours.get(key) != theirs.get(key)]
    return ", ".join(keys) or "generator, discriminator and backbone"


def _shapes(state: dict[str, Any]) -> dict[str, torch.Size]:
    return {name: tensor.shape for name, tensor in state.items() if isinstance(tensor, Tensor)}
