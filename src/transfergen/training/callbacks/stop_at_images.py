"""Ends a training after a number of images."""

from lightning import LightningModule, Trainer

from transfergen.training.base_module import GenerativeModule
from transfergen.training.callbacks.interval import BatchCallback


class StopAtImages(BatchCallback):
    """Stops the training after `max_images` real images, over all ranks."""

    def __init__(self, max_images: int) -> None:
        self.max_images = max_images

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Raises ValueError if a resumed run has seen that many already."""
        assert isinstance(pl_module, GenerativeModule)
        if pl_module.images_seen >= self.max_images:
            raise ValueError(f"max_images={self.max_images}: the run has seen {pl_module.images_seen:,}; set more")

    def after_batch(self, trainer: Trainer, module: GenerativeModule) -> None:
        """Stop if enough images were seen."""
        if module.images_seen >= self.max_images:
            trainer.should_stop = True
