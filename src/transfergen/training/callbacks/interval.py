"""The bases of callbacks that do something after batches, or at intervals of real images."""

from typing import Any

from lightning import Callback, LightningModule, Trainer

from transfergen.training.base_module import GenerativeModule


class BatchCallback(Callback):
    """Does something after each batch."""

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Call `after_batch`."""
        assert isinstance(pl_module, GenerativeModule)
        self.after_batch(trainer, pl_module)

    def after_batch(self, trainer: Trainer, module: GenerativeModule) -> None:
        """Act after a batch, as the subclass says. Called on all ranks, when the batch has been counted."""
        raise NotImplementedError


class IntervalCallback(BatchCallback):
    """Acts each `every_images` real images, and at the end of the training.

    An interval ends with the batch within which `images_seen // every_images` grows. `images_seen` alone decides, so
    a resumed training acts where an uninterrupted one does, and there is no state to restore.

    Args:
        every_images: length of an interval in real images, over all ranks; None: act at the end only.
    """

    def __init__(self, every_images: int | None) -> None:
        self.every_images = every_images

    def is_due(self, trainer: Trainer, module: GenerativeModule) -> bool:
        """Whether the latest batch ended an interval."""
        if self.every_images is None:
            return False
        images_before = module.images_seen - trainer.datamodule.batch_size  # type: ignore[attr-defined]
        return bool(module.images_seen // self.every_images > images_before // self.every_images)

    def after_batch(self, trainer: Trainer, module: GenerativeModule) -> None:
        """Act if an interval has ended."""
        if self.is_due(trainer, module):
            self.act(trainer, module)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Act, unless the last batch has ended an interval."""
        assert isinstance(pl_module, GenerativeModule)
        if not self.is_due(trainer, pl_module):
            self.act(trainer, pl_module)

    def act(self, trainer: Trainer, module: GenerativeModule) -> None:
        """Act at the end of an interval, as the subclass says. Called on all ranks."""
        raise NotImplementedError
