"""Configs: where they lie, how a resumed one is made, and how objects are made of them."""

import re
from pathlib import Path
from typing import Any

import hydra.errors
import hydra.utils
from omegaconf import DictConfig, ListConfig, OmegaConf

_PACKAGED = Path(__file__).parent / "conf"
CONF_DIR = _PACKAGED if _PACKAGED.is_dir() else Path(__file__).parents[2] / "conf"

_TRUSTED = ("transfergen", "torch.optim", "lightning")


def instantiate(config: Any, *args: Any, **kwargs: Any) -> Any:
    """The object that a config with `_target_` describes; its lists arrive as lists.

    A target is looked up before anything is called, and refused unless the object itself, whatever path led to it, is
    defined in transfergen, torch.optim or lightning: a config can be somebody else's file.

    Raises:
        ValueError: a target that does not exist or is not trusted, or what the object itself raises.
    """
    config = OmegaConf.create(config) if isinstance(config, dict) else config
    _check_targets(config)
    try:
        return hydra.utils.instantiate(config, *args, _convert_="all", **kwargs)
    except hydra.errors.InstantiationException as error:
        if isinstance(error.__cause__, TypeError):
            raise ValueError(_without_a_place(error) or str(error.__cause__)) from error
        nested = re.search(r"full_key: (discriminator\.backbones\.\w+)", str(error))
        if nested and isinstance(error.__cause__, ValueError):  # a trunk among several
            raise ValueError(str(error.__cause__).replace("backbone.", f"{nested[1]}.")) from error
        raise error.__cause__ or error from error


def _without_a_place(error: Exception) -> str | None:
    """One line for a setting that came along from elsewhere, such as an experiment, to a choice that has none."""
    unexpected = re.search(r"(\w+)(?:\.__init__)?\(\) got an unexpected keyword argument '(\w+)'", str(error.__cause__))
    where = re.search(r"full_key: (\S+)", str(error))
    if not (unexpected and where):
        return None
    name, setting = unexpected[1], f"{where[1]}.{unexpected[2]}"
    return f"{setting}: {name} has no such setting; take it out with ~{setting}, or choose another {where[1]}"


def _check_targets(config: Any) -> None:
    if isinstance(config, DictConfig):
        if "_target_" in config:
            _check_target(config._target_)
        for key in config:
            _check_targets(config[key])
    elif isinstance(config, ListConfig):
        for item in config:
            _check_targets(item)


def _check_target(target: Any) -> None:
    if not str(target).startswith(tuple(f"{name}." for name in _TRUSTED)):
        raise ValueError(f"_target_={target}: refused; targets are in {', '.join(_TRUSTED)}")
    try:
        found = hydra.utils.get_object(target)
    except Exception as error:  # whatever importing the module raises
        raise ValueError(f"_target_={target}: there is no such object ({error})") from error
    home = getattr(found, "__module__", None) or ""
    if not callable(found) or not f"{home}.".startswith(tuple(f"{name}." for name in _TRUSTED)):
        raise ValueError(f"_target_={target}: refused; it is {home or 'no function or class'}, from elsewhere")


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
