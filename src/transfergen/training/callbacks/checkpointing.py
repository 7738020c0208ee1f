"""Saves a run's checkpoints, its generator, and snapshots of the generator."""

from pathlib import Path
from typing import Any

from lightning import Trainer
from lightning.pytorch.utilities import rank_zero_only

from transfergen.runs import artefacts
from transfergen.runs.generator_files import save_generator
from transfergen.runs.kept_generators import snapshot_folder
from transfergen.training.base_module import GenerativeModule
from transfergen.training.callbacks.interval import IntervalCallback


class Checkpointing(IntervalCallback):
    """Saves checkpoints/last.ckpt and the generator's files, at intervals and at the end.

    Args:
        run_dir: gets the files.
        generator_config: goes into generator.json.
        every_images: real images between two saves.
    """

    def __init__(self, run_dir: Path, generator_config: dict[str, Any], *, every_images: int) -> None:
        super().__init__(every_images)
        self.run_dir, self.generator_config = run_dir, generator_config

    def act(self, trainer: Trainer, module: GenerativeModule) -> None:
        """Write the checkpoint and the generator's files. To be called on all ranks; rank 0 writes."""
        save_files(trainer, module, self.run_dir / artefacts.LAST_CHECKPOINT, self.run_dir, self.generator_config)


class Snapshots(IntervalCallback):
    """Saves the generator's files to snapshots/IMAGES_SEEN, at intervals and at the end. Nothing replaces them.

    Args:
        run_dir: gets the folders.
        generator_config: goes into each generator.json.
        every_images: real images between two snapshots.
    """

    def __init__(self, run_dir: Path, generator_config: dict[str, Any], *, every_images: int) -> None:
        super().__init__(every_images)
        self.run_dir, self.generator_config = run_dir, generator_config

    @rank_zero_only
    def act(self, trainer: Trainer, module: GenerativeModule) -> None:
        """Write the generator's files."""
        save_snapshot(trainer, module, snapshot_folder(self.run_dir, module.images_seen), self.generator_config)


def save_files(
    trainer: Trainer, module: GenerativeModule, checkpoint: Path, folder: Path, generator_config: dict[str, Any]
) -> None:
    """Write a checkpoint, and the generator's files to a folder. To be called on all ranks; rank 0 writes."""
    trainer.save_checkpoint(checkpoint, weights_only=False)
    if trainer.is_global_zero:
        save_snapshot(trainer, module, folder, generator_config)


def save_snapshot(trainer: Trainer, module: GenerativeModule, folder: Path, generator_config: dict[str, Any]) -> None:
    """Write the files of the generator's present state to a folder. To be called on rank 0."""
    generator, names = module.ema_generator, trainer.datamodule.train_set.classes  # type: ignore[attr-defined]
    save_generator(
        folder,
        generator,
        generator_config,
        ema=module.ema is not None,
        images_seen=module.images_seen,
        classes=names if len(names) == generator.num_classes else (),
        started_from=module.started_from,
    )
