"""Where the configs are, and how objects are built from them."""

import inspect
from functools import partial
from typing import Any

from omegaconf import DictConfig, ListConfig, OmegaConf

from transfergen.targets import CONF_DIR, get_target

__all__ = ["CONF_DIR", "flatten", "instantiate"]


def instantiate(config: Any, **given: Any) -> Any:
    """Build the object that a config with `_target_` describes, and before it those of its nested configs.

    Networks, losses and metrics do not know the command line. Their ValueErrors begin with the argument that is wrong,
    as in `cut=pool9: ...`. Here the override that sets this argument takes its place: `backbone.cut=pool9: ...`, for a
    `discriminator.backbone` too, if that is taken from `${backbone}`.

    Args:
        config: a node of the config, or a dict. A node without `_target_` gives a dict of what is in it.
        given: arguments that replace those of the config.

    Raises:
        ValueError: a target that does not exist, that is not trusted or that has no such argument, or whatever is wrong
            with an argument; see `get_target`. All targets are looked up before the first is called.
    """
    config = OmegaConf.create(config) if isinstance(config, dict) else config
    _check_targets(config)
    return _build(config, given)


def _build(node: Any, given: dict[str, Any]) -> Any:
    if isinstance(node, ListConfig):
        return [_build(item, {}) for item in node]
    if not isinstance(node, DictConfig):
        return node
    names = [str(key) for key in node if not str(key).startswith("_")]
    target = get_target(node._target_) if "_target_" in node else None
    if target is not None:
        _check_names(target, node, names)
    arguments = {name: given[name] if name in given else _build(node[name], {}) for name in names} | given
    if target is None:
        return arguments
    if node.get("_partial_"):
        return partial(target, **arguments)
    try:
        return target(**arguments)
    except TypeError as error:
        raise ValueError(f"{node._get_full_key(None) or node._target_}: {error}") from error
    except ValueError as error:
        argument = str(error).partition("=")[0].partition(":")[0]
        if argument in arguments:
            error.args = (_override(node, argument) + str(error).removeprefix(argument),)
        raise


def _override(node: DictConfig, name: str) -> str:
    """The key to override for another value of an argument: that of the value's source, if it is an interpolation."""
    value: Any = node._get_node(name)
    return str(node._get_full_key(name) if value is None else value._dereference_node()._get_full_key(None))


def _check_names(target: Any, node: DictConfig, names: list[str]) -> None:
    """Refuse a setting that came along from elsewhere, such as an experiment, to a choice that does not have it."""
    parameters = dict(inspect.signature(target).parameters)
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values()):
        if not target.__module__.startswith("transfergen."):
            return
        parameters |= inspect.signature(target.__mro__[1]).parameters  # the base class gets the rest
    for name in names:
        if name not in parameters:
            group, setting = node._get_full_key(None), node._get_full_key(name)
            raise ValueError(
                f"{setting}: {target.__name__} has no such setting; take it out with ~{setting}, or choose another "
                f"{group}"
            )


def _check_targets(config: Any) -> None:
    if isinstance(config, DictConfig):
        if "_target_" in config:
            get_target(config._target_)
        for key in config:
            _check_targets(config[key])
    elif isinstance(config, ListConfig):
        for item in config:
            _check_targets(item)


def flatten(config: Any, prefix: str = "") -> dict[str, Any]:
    """A nested dictionary as a flat one with dotted keys. Lists become text; what is None or empty is left out."""
    if isinstance(config, dict):
        flat: dict[str, Any] = {}
        for key, value in config.items():
            flat |= flatten(value, f"{prefix}.{key}" if prefix else str(key))
        return flat
    if config is None:
        return {}
    return {prefix: config if isinstance(config, int | float | str | bool) else str(config)}
