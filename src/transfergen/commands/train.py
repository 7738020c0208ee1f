"""`transfergen train`, `python train.py`: train a generator."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from hydra._internal.hydra import Hydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from transfergen.commands import cli
from transfergen.commands.imports import garbage_kept
from transfergen.commands.overrides import check_keys, check_used
from transfergen.commands.places import run_directory
from transfergen.commands.sweep import run_trial
from transfergen.config import check
from transfergen.runs import artefacts
from transfergen.runs.saved_config import confine, dump_composed, read_composed
from transfergen.settings import TYPES, check_value

SOURCES = (
    *("init_from.generator", "init_from.discriminator", "transfer.teacher", "transfer.source"),
    *("backbone.weights", "metrics.weights"),
)
"""Settings that name what networks are read from: a file, a folder, or a name. The weights of networks that join a
discriminator are such settings, too."""


def train(config: DictConfig) -> float:
    """Train from the start, resume a run, or run one trial of a sweep.

    Returns:
        The final metric; smaller is better.
    """
    run_dir = run_directory()
    checkpoint, choices = None, OmegaConf.create(cli.choices())
    resume, overwrite = config.resume, config.overwrite
    check_value("overwrite", overwrite, TYPES["overwrite"])  # before it removes a run; the config is checked later
    if cli.is_sweep() and resume not in (None, "auto"):
        raise ValueError(f"resume={resume}: a sweep (-m) starts runs of its own; leave one of the two out")
    keep_sources(config)
    if resume is not None:
        config, choices, checkpoint = _resume(config, choices, run_dir)
    check_used(config, cli.overrides())
    if checkpoint is None and not (cli.is_sweep() or overwrite):
        _refuse_other_run(run_dir, resume=resume)
    config.data.path = absolute_path(config.data)
    if shards := config.data.source.get("test_path"):
        config.data.source.test_path = str(Path(str(shards)).expanduser().absolute())
    config = cli.plain(config)

    def compose() -> str:
        if checkpoint is None:
            follow_sources(config)
        return dump_composed(config, choices)

    if not cli.is_sweep():
        return _train(config, run_dir, checkpoint, compose())
    if config.trainer.devices not in (1, "auto"):
        # Each further rank would start the whole sweep again, with settings of its own.
        raise ValueError("a sweep (-m) trains each run on one device; set trainer.devices=1")
    config.trainer.devices = 1
    return run_trial(run_dir, compose, cli.overrides(), lambda *given: _train(config, run_dir, *given))


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command on `arguments`, by default those of the process."""
    with trained_config_shown():
        cli.run("train", train, arguments)


def follow_sources(config: DictConfig) -> None:
    """Make the networks of a new training as the files say that they start from.

    Raises:
        ValueError: see `follow_source`.
    """
    if any(config.init_from.get(key) for key in ("generator", "discriminator", "layout", "keys")):
        from transfergen.runs.resume import override_key
        from transfergen.transfer.public_sources import follow_source

        follow_source(config, [override_key(each) for each in cli.overrides()])


def keep_sources(config: DictConfig, saved: DictConfig | None = None) -> None:
    """Give the files and folders of `SOURCES` their whole paths, so that the run can be resumed from any folder.

    Args:
        config: as composed; it is changed.
        saved: of the run that goes on. What that run was started from may be gone since.
    """
    joining = OmegaConf.select(config, "discriminator.backbones") or {}
    for key in (*SOURCES, *(f"discriminator.backbones.{name}.weights" for name in joining)):
        value, before = OmegaConf.select(config, key), OmegaConf.select(saved or DictConfig({}), key)
        parent, _, name = key.rpartition(".")
        if not isinstance(value, str) or OmegaConf.is_interpolation(OmegaConf.select(config, parent), name):
            continue
        layout, colon, file = value.rpartition(":")  # as in studiogan:G.pth
        for prefix, path in (("", Path(value).expanduser()), (layout + colon, Path(file).expanduser())):
            whole = f"{prefix}{path.absolute()}"
            if prefix != "builtin:" and (path.exists() or whole == before):
                OmegaConf.update(config, key, whole)
                break


def absolute_path(data: DictConfig) -> str | None:
    """`data.path` from the root, so that it means the same wherever the run is resumed; but not a name on the hub."""
    if data.path is None:
        return None
    path = Path(str(data.path)).expanduser().resolve()
    return str(data.path if data.source._target_.endswith(".huggingface") and not path.exists() else path)


def _train(config: DictConfig, run_dir: Path, checkpoint: Path | None, composed: str) -> float:
    with garbage_kept():
        from transfergen.training import fit  # torch and Lightning take seconds, which --help does not need

        check(config)
    return fit.train(config, run_dir, checkpoint, composed=composed)


def _refuse_other_run(run_dir: Path, *, resume: str | None) -> None:
    """Refuse to start anew where a run is. With `resume=auto` one may have begun, but saved nothing yet."""
    if artefacts.is_run(run_dir) if resume is None else (run_dir / artefacts.GENERATOR_WEIGHTS).exists():
        go_on = f"set resume={run_dir} to go on with it, or overwrite=true to remove it"
        raise ValueError(f"hydra.run.dir={run_dir}: holds a run; {go_on}")


@contextmanager
def trained_config_shown() -> Iterator[None]:
    """A context in which `--cfg` shows the settings that would train; Hydra has no setting for that.

    They are those of the run that goes on, or those of a new one, with the sizes that the files in `init_from` tell.
    """
    command: Any = Hydra
    theirs = command.show_cfg

    def show(hydra: Any, *arguments: Any, **options: Any) -> None:
        hydra.get_sanitized_cfg = partial(_trained, hydra.get_sanitized_cfg)  # only here, since --help calls it, too
        theirs(hydra, *arguments, **options)

    command.show_cfg = show
    try:
        yield
    finally:
        command.show_cfg = theirs


def _trained(theirs: Callable[..., DictConfig], config: DictConfig, kind: str) -> DictConfig:
    """The settings that would train. `theirs` is Hydra's function of config and kind: `hydra`, `job` or `all`."""
    if kind == "hydra":
        return theirs(config, kind)
    checkpoint: Path | None = None
    job = theirs(config.copy(), "job")
    keep_sources(job)
    if config.resume is not None:
        job, _, checkpoint = _resume(job, OmegaConf.create(cli.choices()), Path(HydraConfig.get().run.dir))
    OmegaConf.set_struct(job, False)
    if checkpoint is None:
        follow_sources(job)
    for key in ("resume", "overwrite", *(["hydra"] if kind == "all" else [])):
        job[key] = config[key]
    return job


def _resume(config: DictConfig, choices: DictConfig, run_dir: Path) -> tuple[DictConfig, DictConfig, Path | None]:
    """The resumed run's config and choices, and its checkpoint: None if `resume=auto` finds no run yet."""
    from transfergen.runs.checkpoint import last_good
    from transfergen.runs.resume import override_key, resume_config

    if config.resume != "auto" and Path(config.resume).expanduser().resolve() != run_dir.resolve():
        raise ValueError(f"hydra.run.dir={run_dir}: resume={config.resume} goes on in its own folder; leave it out")
    checkpoint = last_good(run_dir / artefacts.CHECKPOINTS)
    if checkpoint is None:
        if config.resume == "auto":
            return config, choices, None
        again = f"begin it again with hydra.run.dir={config.resume} overwrite=true"
        raise ValueError(f"resume={config.resume}: this run has saved no checkpoint yet; {again}")
    saved, choices = read_composed(run_dir, like=config)
    check_keys(saved, cli.overrides())
    keep_sources(config, saved)
    resumed = resume_config(saved, choices, config, cli.overrides())
    confine(resumed, run_dir, [override_key(each) for each in cli.overrides()])
    return resumed, choices, checkpoint
