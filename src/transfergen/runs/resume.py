"""The config of a run that goes on."""

from typing import Any

from omegaconf import DictConfig, OmegaConf


def resumed(saved: DictConfig, choices: DictConfig, fresh: DictConfig, overrides: list[str]) -> DictConfig:
    """The config of the run that goes on: the saved one, and what this command line overrides.

    Args:
        saved: as the run directory holds it.
        choices: the saved run's model and experiment, which the command line may name again, as that of a job does
            that is queued again.
        fresh: as composed from this command line.
        overrides: this command line.

    Raises:
        ValueError: an override that would make it another run.
    """
    config = saved.copy()
    for override in overrides:
        key = override.lstrip("+~").split("=", 1)[0].split("@", 1)[0]
        if key in choices:
            if override == f"{key}={choices[key]}":
                continue
            raise ValueError(f"{override}: a resumed run keeps its {key}; start a new run, or override single keys")
        if override.startswith("~"):
            parent, _, name = key.rpartition(".")
            OmegaConf.select(config, parent).pop(name) if parent else config.pop(name)
        elif key != "resume":
            OmegaConf.update(config, key, _node(fresh, key), merge=False, force_add=True)
    return config


def _node(config: DictConfig, key: str) -> Any:
    """What stands at a dotted key, an interpolation as it is written."""
    parent, _, name = key.rpartition(".")
    node = OmegaConf.select(config, parent) if parent else config
    return node._get_node(name)
