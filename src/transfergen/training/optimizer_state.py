"""The optimizers of a checkpoint, whose state a resumed training may keep in other groups of weights."""

from collections.abc import Sequence
from typing import Any

from torch import nn
from torch.optim import Optimizer

from transfergen.runs.resume import differing_keys

_DECISIVE = {
    "Adam": ("amsgrad",),
    "AdamW": ("amsgrad",),
    "RMSprop": ("momentum", "centered"),
    "Muon": ("fallback_output",),
}
"""Settings of each kind of optimizer that decide what state it keeps of a weight, if they are set at all."""


def optimized_names(module: nn.Module, optimizers: Sequence[Optimizer]) -> list[list[str]]:
    """The names of the weights of each optimizer, in the order of its state."""
    names = {id(parameter): name for name, parameter in module.named_parameters()}
    return [[names[id(p)] for group in optimizer.param_groups for p in group["params"]] for optimizer in optimizers]


def check_and_regroup(
    states: list[dict[str, Any]],
    own: dict[str, Any],
    optimizers: Sequence[Optimizer],
    names: list[list[str]],
    here: Any,
) -> None:
    """Check the optimizers of a checkpoint, and put their state into the groups of weights that there are now.

    Groups differ where `transfer.generator_lr_scale` does. Lightning would restore whatever there is, by position.

    Args:
        states: the optimizers' state in the checkpoint, which is changed.
        own: our own part of the checkpoint.
        optimizers: those of this training, without state.
        names: of their weights.
        here: the config of this training's networks.

    Raises:
        ValueError: other optimizers, optimizers of other weights, or another state of each weight.
    """
    kinds = [type(optimizer).__name__ for optimizer in optimizers]
    saved_kinds = own.get("optimizers", kinds)
    if saved_kinds != kinds:
        raise ValueError(
            f"resume: the checkpoint's optimizers are {' and '.join(saved_kinds)}, this run's {' and '.join(kinds)}; "
            "resume with the run's own optimizer"
        )
    if list(map(sorted, own["optimized"])) != list(map(sorted, names)):
        raise ValueError(
            "resume: the checkpoint's optimizers hold other weights than this run's; resume with the run's own "
            f"{differing_keys(own['config'], here)}"
        )
    networks = ("discriminator", "generator")[-len(kinds) :]
    for i, (kind, network, optimizer) in enumerate(zip(kinds, networks, optimizers, strict=True)):
        fresh = optimizer.state_dict()["param_groups"]
        for key in _DECISIVE.get(kind, ()):
            ours, theirs = fresh[0].get(key), states[i]["param_groups"][0].get(key)
            if bool(ours) != bool(theirs):
                raise ValueError(
                    f"optimizer.{network}.{key}={str(ours).lower()}: the checkpoint's optimizer has the state of "
                    f"{str(theirs).lower()}; leave it out, or start a new run"
                )
        position = {name: place for place, name in enumerate(own["optimized"][i])}
        old = states[i]["state"]
        state = {new: old[position[name]] for new, name in enumerate(names[i]) if position[name] in old}
        states[i] = {"state": state, "param_groups": fresh}
