"""`transfergen train`, `python train.py`: train a generator."""

from collections.abc import Sequence
from pathlib import Path

from omegaconf import DictConfig, OmegaConf

from transfergen.commands import cli
from transfergen.commands.sweep import trial
from transfergen.runs import artefacts
from transfergen.runs.resume import resume_config


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command on these arguments, by default those of the process."""
    cli.run("train", _task, arguments)


def _task(config: DictConfig) -> float:
    run_dir = cli.run_directory()
    checkpoint, choices = None, OmegaConf.create(cli.choices())
    if config.resume is not None:
        config, choices, checkpoint = _resume(config, choices, run_dir)
    composed = OmegaConf.to_yaml(OmegaConf.create({"choices": choices, "config": config}))
    config = cli.plain(config)
    if cli.is_sweep():
        # Each rank of a run would start the whole sweep again, with other settings.
        if config.trainer.devices not in (1, "auto"):
            raise ValueError("a sweep (-m) trains each run on one device; set trainer.devices=1")
        config.trainer.devices = 1
        return trial(run_dir, composed, cli.overrides(), lambda begun: _train(config, run_dir, begun, composed))
    return _train(config, run_dir, checkpoint, composed)


def _train(config: DictConfig, run_dir: Path, checkpoint: Path | None, composed: str) -> float:
    from transfergen.training.fit import (
        train,  # torch and Lightning take seconds: not for --help, nor for a mistyped key
    )

    return train(config, run_dir, checkpoint, composed=composed)


def _resume(config: DictConfig, choices: DictConfig, run_dir: Path) -> tuple[DictConfig, DictConfig, Path | None]:
    """What to go on with, and the checkpoint to go on from: none if `resume=auto` finds nothing yet."""
    from transfergen.runs.checkpoint import last_good

    checkpoint = last_good((run_dir / artefacts.LAST_CHECKPOINT).parent)
    if checkpoint is None:
        if config.resume == "auto":
            return config, choices, None
        raise ValueError(f"resume={config.resume}: no {artefacts.LAST_CHECKPOINT} in it; give the folder of a run")
    saved = OmegaConf.load(run_dir / artefacts.COMPOSED)
    its = OmegaConf.create(OmegaConf.to_container(saved.config))  # a root of its own, for its interpolations
    assert isinstance(its, DictConfig)
    return resume_config(its, saved.choices, config, cli.overrides()), saved.choices, checkpoint
