"""Checkpoints, the generator's files, and the end by images."""

from pathlib import Path
from typing import Any

from lightning import Callback, LightningModule, Trainer

from transfergen.runs import artefacts
from transfergen.runs.generator_files import save_generator
from transfergen.training.base_module import GenerativeModule


class Checkpointing(Callback):
    """Keeps checkpoints/last.ckpt and the generator's files up to date: at intervals, and at the training's end.

    Args:
        run_dir: gets the files.
        generator_config: goes into generator.json.
        every_images: between saves, over all ranks.
    """

    def __init__(self, run_dir: Path, generator_config: dict[str, Any], *, every_images: int) -> None:
        self.run_dir, self.generator_config, self.every_images = run_dir, generator_config, every_images
        self._saved_at = 0

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Where a resumed run stands."""
        assert isinstance(pl_module, GenerativeModule)
        self._saved_at = pl_module.images_seen

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Saves when it is due."""
        assert isinstance(pl_module, GenerativeModule)
        if pl_module.images_seen - self._saved_at >= self.every_images:
            self.save(trainer, pl_module)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Saves the end."""
        assert isinstance(pl_module, GenerativeModule)
        self.save(trainer, pl_module)

    def save(self, trainer: Trainer, module: GenerativeModule) -> None:
        """The checkpoint and the generator's files, as they are now, unless they are. All ranks take part."""
        if module.images_seen == self._saved_at and (self.run_dir / artefacts.LAST_CHECKPOINT).exists():
            return
        save_checkpoint(trainer, self.run_dir / artefacts.LAST_CHECKPOINT)
        if trainer.is_global_zero:
            ema, images_seen = module.ema is not None, module.images_seen
            save_generator(self.run_dir, module.ema_generator, self.generator_config, ema=ema, images_seen=images_seen)
        self._saved_at = module.images_seen


class StopAtImages(Callback):
    """Ends the training once so many real images were seen."""

    def __init__(self, max_images: int) -> None:
        self.max_images = max_images

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Raises ValueError if a resumed run is there already."""
        assert isinstance(pl_module, GenerativeModule)
        if pl_module.images_seen >= self.max_images:
            raise ValueError(f"max_images={self.max_images}: the run has seen {pl_module.images_seen:,}; set more")

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Stops."""
        assert isinstance(pl_module, GenerativeModule)
        if pl_module.images_seen >= self.max_images:
            trainer.should_stop = True


def save_checkpoint(trainer: Trainer, path: Path) -> None:
    """A checkpoint, written whole or not at all. All ranks take part, and rank 0 writes."""
    trainer.save_checkpoint(path, weights_only=False)
