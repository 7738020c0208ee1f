"""Saves a run's checkpoints and generator, and stops it after a number of images."""

from pathlib import Path
from typing import Any

from lightning import Callback, LightningModule, Trainer

from transfergen.runs import artefacts
from transfergen.runs.generator_files import save_generator
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
        """Save; see `save`."""
        self.save(trainer, module)

    def save(self, trainer: Trainer, module: GenerativeModule) -> None:
        """Write the checkpoint and the generator's files. To be called on all ranks; rank 0 writes."""
        save_checkpoint(trainer, self.run_dir / artefacts.LAST_CHECKPOINT)
        if trainer.is_global_zero:
            ema, images_seen = module.ema is not None, module.images_seen
            save_generator(self.run_dir, module.ema_generator, self.generator_config, ema=ema, images_seen=images_seen)


class StopAtImages(Callback):
    """Stops the training after `max_images` real images, over all ranks."""

    def __init__(self, max_images: int) -> None:
        self.max_images = max_images

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Raises ValueError if a resumed run has seen that many already."""
        assert isinstance(pl_module, GenerativeModule)
        if pl_module.images_seen >= self.max_images:
            raise ValueError(f"max_images={self.max_images}: the run has seen {pl_module.images_seen:,}; set more")

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Stop if enough images were seen."""
        assert isinstance(pl_module, GenerativeModule)
        if pl_module.images_seen >= self.max_images:
            trainer.should_stop = True


def save_checkpoint(trainer: Trainer, path: Path) -> None:
    """Write a checkpoint, whole or not at all. To be called on all ranks; rank 0 writes."""
    trainer.save_checkpoint(path, weights_only=False)
