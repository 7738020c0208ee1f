"""The program: seed -> data -> networks -> module -> fit -> last samples and metrics."""

import logging
from pathlib import Path
from typing import Any

from lightning import Callback, seed_everything
from lightning.pytorch.loggers import Logger, TensorBoardLogger
from omegaconf import DictConfig, OmegaConf
from rich.console import Console

from transfergen.config import instantiate
from transfergen.evaluation.measure import to_table
from transfergen.runs import artefacts
from transfergen.training.base_module import GenerativeModule
from transfergen.training.build import build_module, set_num_classes
from transfergen.training.callbacks import (
    Checkpointing,
    CollapseWarning,
    DistillationReport,
    Evaluation,
    LinearLRDecay,
    Reconstructions,
    SampleGrid,
    Signals,
    StopAtImages,
)
from transfergen.training.gan_module import GAN
from transfergen.training.trainer import build_trainer
from transfergen.training.vae_module import Autoencoding
from transfergen.transfer.distillation import Distillation

log = logging.getLogger(__name__)


def train(config: DictConfig, run_dir: Path, checkpoint: Path | None = None, *, composed: str = "") -> float:
    """One training, from the resolved config to the files of its run directory.

    Args:
        config: without interpolations.
        run_dir: exists.
        checkpoint: go on from here.
        composed: the config with its interpolations, as YAML, which a resumed run needs for its overrides.

    Returns:
        The final metric, the smaller the better.
    """
    seed_everything(config.seed, verbose=False)
    data = instantiate(config.data)
    data.prepare_data()  # Lightning does it too, but only once the networks are built and their weights downloaded
    set_num_classes(config, data.class_count)
    plain: dict[str, Any] = OmegaConf.to_container(config)  # type: ignore[assignment]
    module = build_module(config, fresh=checkpoint is None)
    parts = ("generator", "encoder", "discriminator", "backbone", "transfer", "augment", "ema")
    module.config = {group: plain[group] for group in parts}
    loggers = [instantiate(logger, save_dir=run_dir) for logger in config.logger.values()]
    evaluation = Evaluation(run_dir, plain["metrics"], plain["generator"], plain, **plain["evaluation"])
    files = Checkpointing(run_dir, plain["generator"], every_images=config.checkpoint_every_images)
    callbacks: list[Callback] = [
        SampleGrid(run_dir, **plain["samples"]),
        files,
        evaluation,  # after the run's files, so that these are there whatever becomes of it
        CollapseWarning(),
    ]
    if config.max_images is not None:
        callbacks.append(StopAtImages(config.max_images))
    if config.lr_decay.start_images is not None:
        callbacks.append(
            LinearLRDecay(**plain["lr_decay"] | {"end_images": config.lr_decay.end_images or config.max_images})
        )
    if isinstance(module, Autoencoding):
        callbacks.append(Reconstructions(run_dir, every_images=config.samples.every_images))
    if isinstance(module, GAN) and isinstance(module.transfer, Distillation):
        callbacks.append(DistillationReport(run_dir, evaluation))
    callbacks.append(Signals(files))  # the last, so that all that was due at a step is done
    trainer = build_trainer(run_dir=run_dir, callbacks=callbacks, loggers=loggers, **plain["trainer"])
    if trainer.is_global_zero:
        artefacts.write(run_dir / artefacts.CONFIG, OmegaConf.to_yaml(config).encode())
        artefacts.write(run_dir / artefacts.COMPOSED, composed.encode())
        _log_config(loggers, config)

    trainer.fit(module, datamodule=data, ckpt_path=checkpoint, weights_only=True)
    if not evaluation.entries:
        raise ValueError(
            f"resume: the run has reached its end, {module.images_seen:,} images; set a larger trainer.max_epochs or "
            "trainer.max_time"
        )
    if trainer.is_global_zero:
        _finish(module, evaluation, loggers, config, run_dir)
    return evaluation.objective


def _log_config(loggers: list[Logger], config: DictConfig) -> None:
    for logger in loggers:
        if isinstance(logger, TensorBoardLogger):
            logger.experiment.add_text("config", f"```yaml\n{OmegaConf.to_yaml(config)}```")


def _finish(
    module: GenerativeModule, evaluation: Evaluation, loggers: list[Logger], config: DictConfig, run_dir: Path
) -> None:
    summary = {"images_seen": module.images_seen, "seconds": module.seconds, "training": module.last_scalars}
    artefacts.write_json(run_dir / artefacts.METRICS, summary | {"metrics": evaluation.entries})
    values = {f"metrics/{entry['name']}": entry["value"] for entry in evaluation.entries}
    for logger in loggers:
        if isinstance(logger, TensorBoardLogger):
            logger.log_hyperparams(_flat(config), values, step=module.images_seen)
        logger.save()
    Console().print(to_table(evaluation.entries))
    print(f"grid of samples: {run_dir / artefacts.GRID}")


def _flat(config: DictConfig) -> dict[str, Any]:
    """The settings that one compares between runs, with dotted names."""
    flat: dict[str, Any] = {}

    def visit(prefix: str, value: Any) -> None:
        if isinstance(value, dict):
            for key, item in value.items():
                visit(f"{prefix}.{key}" if prefix else str(key), item)
        elif isinstance(value, int | float | str | bool):
            flat[prefix] = value
        elif value is not None:
            flat[prefix] = str(value)

    groups = ["data", "generator", "backbone", "encoder", "discriminator", "objective", "optimizer", "transfer"]
    groups += ["init_from", "augment", "ema"]
    visit("", {group: OmegaConf.to_container(config[group]) for group in groups})
    return {key: value for key, value in flat.items() if not key.startswith("discriminator.backbone.")}
