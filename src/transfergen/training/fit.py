"""The program: seed, data, networks, module, training, and at the end samples and metrics."""

from contextlib import nullcontext
from functools import cache
from pathlib import Path
from typing import Any

from lightning import Trainer, seed_everything
from lightning.pytorch.callbacks import LambdaCallback
from omegaconf import DictConfig, OmegaConf
from rich.console import Console

from transfergen.config import flatten, instantiate
from transfergen.evaluation.measure import to_table
from transfergen.runs import artefacts
from transfergen.runs.splits import record_splits, warn_of_other_splits
from transfergen.training.base_module import GenerativeModule
from transfergen.training.build import build_callbacks, build_module, set_num_classes
from transfergen.training.callbacks import Checkpointing, Evaluation, Signals
from transfergen.training.loggers import check_installed, log_settings, log_text
from transfergen.training.trainer import build_trainer

NETWORKS = ("generator", "encoder", "discriminator", "backbone", "transfer", "augment", "ema")
COMPARED = ("data", *NETWORKS, "objective", "optimizer", "init_from")


def train(config: DictConfig, run_dir: Path, checkpoint: Path | None = None, *, composed: str = "") -> float:
    """One training, from the composed config to the files of its run directory.

    Args:
        config: as composed, with or without its interpolations.
        run_dir: an existing folder.
        checkpoint: the file to go on from; None starts a new run.
        composed: the config with its interpolations, as YAML. A resumed run applies its overrides to it.

    Returns:
        The metric that `evaluation.best` names, the smaller the better.

    Raises:
        ValueError: settings that do not go together, or a run that has reached its end.
        FloatingPointError: the training diverged.
    """
    check_installed(config.logger)
    for_trainer: dict[str, Any] = OmegaConf.to_container(config.trainer, resolve=True)  # type: ignore[assignment]
    build_trainer(run_dir=run_dir, callbacks=[], **for_trainer)  # refuses before anything is downloaded
    seed_everything(config.seed, verbose=False)
    data = instantiate(config.data)
    data.prepare_data()  # first, since a wrong path is found sooner than weights are downloaded
    set_num_classes(config, data.class_count)
    plain: dict[str, Any] = OmegaConf.to_container(config, resolve=True)  # type: ignore[assignment]
    module = build_module(config, fresh=checkpoint is None)
    module.config = {group: plain[group] for group in NETWORKS}

    evaluation = Evaluation(run_dir, config.metrics, plain["generator"], plain, **plain["evaluation"])
    files = Checkpointing(run_dir, plain["generator"], every_images=config.checkpoint_every_images)
    signals = Signals(files)

    @cache  # so that only the first batch does anything
    def write_config(trainer: Trainer) -> None:
        """Write the config, since nothing can refuse it any more. A run that is refused keeps its earlier one."""
        if trainer.is_global_zero:
            resolved = OmegaConf.to_yaml(config, resolve=True)
            artefacts.write(run_dir / artefacts.CONFIG, resolved.encode())
            artefacts.write(run_dir / artefacts.COMPOSED, composed.encode())
            (record_splits if checkpoint is None else warn_of_other_splits)(run_dir, data)
            for logger in trainer.loggers:
                log_text(logger, "config", f"```yaml\n{resolved}```", module.images_seen)
                log_settings(logger, _settings(plain), module.images_seen)

    callbacks = build_callbacks(plain, run_dir, module, files, evaluation, signals)
    callbacks.append(LambdaCallback(on_train_batch_start=lambda trainer, *_: write_config(trainer)))
    trainer = build_trainer(run_dir=run_dir, callbacks=callbacks, **plain["trainer"])

    with artefacts.claim(run_dir, "hydra.run.dir") if trainer.is_global_zero else nullcontext():
        if checkpoint is None and trainer.is_global_zero:
            artefacts.remove_run(run_dir)
        if trainer.is_global_zero:
            trainer.loggers = [instantiate(logger, save_dir=run_dir) for logger in config.logger.values()]
        trainer.fit(module, datamodule=data, ckpt_path=checkpoint, weights_only=True)

        if not evaluation.records:
            end = f"resume: the run has reached its end, {module.images_seen:,} images"
            raise ValueError(f"{end}; set a larger trainer.max_epochs or trainer.max_time")
        with signals.finishing(module.images_seen):
            _report(trainer, module, evaluation, plain, run_dir)
    return evaluation.objective


def _report(
    trainer: Trainer, module: GenerativeModule, evaluation: Evaluation, config: dict[str, Any], run_dir: Path
) -> None:
    """On rank 0, write the final metrics as JSON, to TensorBoard beside the settings, and to the screen."""
    if not trainer.is_global_zero:
        return
    summary = {"images_seen": module.images_seen, "seconds": module.seconds, "training": module.last_scalars}
    metrics = evaluation.records
    artefacts.write_json(run_dir / artefacts.METRICS, summary | {"metrics": metrics})
    values = {f"metrics/{record['name']}": record["value"] for record in metrics}
    for logger in trainer.loggers:
        log_settings(logger, _settings(config), module.images_seen, values)
        logger.save()
    Console().print(to_table(metrics, warnings=evaluation.every_images is None))  # or else told at the start
    print(f"grid of samples: {run_dir / artefacts.GRID}")


def _settings(config: dict[str, Any]) -> dict[str, Any]:
    settings = flatten({group: config[group] for group in COMPARED})
    repeated = "discriminator.backbone."
    return {key: value for key, value in settings.items() if value is not None and not key.startswith(repeated)}
