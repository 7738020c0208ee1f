"""Where the configs are, and how objects are built from them."""

from collections.abc import Collection
from functools import partial
from pkgutil import resolve_name
from typing import Any

from omegaconf import DictConfig, ListConfig, OmegaConf

from transfergen.settings import TAKEN_BY, TYPES, check_value, hints
from transfergen.targets import CONF_DIR, get_target

__all__ = ["CONF_DIR", "check", "flatten", "instantiate"]


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
            with an argument; see `get_target`. All are checked before the first is called.
    """
    config = OmegaConf.create(config) if isinstance(config, dict) else config
    check(config, given)
    return _build(config, given)


def check(config: Any, given: Collection[str] = ()) -> None:
    """Check a config before anything is built from it: its targets, and the names, types and ranges of their arguments.

    Args:
        config: a node of the config.
        given: arguments of its own target that are not taken from it.

    Raises:
        ValueError: see `instantiate`.
    """
    if isinstance(config, ListConfig):
        for item in config:
            check(item)
    if not isinstance(config, DictConfig):
        return
    names: list[Any] = [key for key in config if not str(key).startswith("_") and key not in given]
    kinds = _kinds(config, names)
    for name in names:
        if name in kinds:
            check_value(_override(config, name), config[name], kinds[name])
        check(config[name])


def _build(node: Any, given: dict[str, Any]) -> Any:
    if isinstance(node, ListConfig):
        return [_build(item, {}) for item in node]
    if not isinstance(node, DictConfig):
        return node
    names = [str(key) for key in node if not str(key).startswith("_")]
    target = get_target(node._target_) if "_target_" in node else None
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


def _kinds(node: DictConfig, names: list[str]) -> dict[str, Any]:
    """The type hints of settings; of some, none is known.

    Raises:
        ValueError: a target that is not trusted, or a setting that came along from elsewhere, such as an experiment, to
            a choice that does not have it.
    """
    if "_target_" not in node:
        takers = TAKEN_BY.get(str(node._get_full_key(None)), ())
        known = {name: TYPES[key] for name in names if (key := str(node._get_full_key(name))) in TYPES}
        return {name: hint for taker in takers for name, hint in hints(resolve_name(taker)).items()} | known
    target = get_target(node._target_)
    kinds, setting = dict(hints(target)), node._get_full_key
    wrong = next((name for name in names if name not in kinds), None)
    if wrong is not None and "**" not in kinds:
        raise ValueError(
            f"{setting(wrong)}: {target.__name__} has no such setting; take it out with ~{setting(wrong)}, or choose "
            f"another {setting(None)}"
        )
    if "source" in node and "path" in node:  # of pictures, which says what paths it takes
        kinds["path"] = hints(get_target(node.source._target_)).get("path", Any)
    return kinds


def flatten(config: Any, prefix: str = "") -> dict[str, Any]:
    """A nested dictionary as a flat one with dotted keys. Lists become text; what is empty is left out."""
    if isinstance(config, dict):
        flat: dict[str, Any] = {}
        for key, value in config.items():
            flat |= flatten(value, f"{prefix}.{key}" if prefix else str(key))
        return flat
    return {prefix: config if isinstance(config, int | float | str | None) else str(config)}
