"""Linear decay of the learning rates."""

from typing import Any

from lightning import Callback, LightningModule, Trainer

from transfergen.training.base_module import GenerativeModule


class LinearLRDecay(Callback):
    """Lets all learning rates fall linearly with the number of real images seen.

    Args:
        start_images: the rates are as configured until then.
        end_images: the rates are `final_factor` times as high from then on.
        final_factor: in [0, 1].

    Raises:
        ValueError: `end_images` is not after `start_images`.
    """

    def __init__(self, *, start_images: int, end_images: int | None, final_factor: float = 0.0) -> None:
        if end_images is None or not 0 <= start_images < end_images:
            raise ValueError(
                f"lr_decay.start_images={start_images}: the learning rates fall from there to {end_images} images; set "
                "max_images, or lr_decay.end_images, to more than that"
            )
        self.start_images, self.end_images, self.final_factor = start_images, end_images, final_factor
        self._configured: list[float] = []

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """Set the learning rates of this batch."""
        assert isinstance(pl_module, GenerativeModule)
        groups = [group for optimizer in trainer.optimizers for group in optimizer.param_groups]
        # Before a run's first batch they are the configured ones, even if the run was resumed.
        self._configured = self._configured or [group["lr"] for group in groups]
        left = (self.end_images - pl_module.images_seen) / (self.end_images - self.start_images)
        factor = self.final_factor + (1 - self.final_factor) * min(1.0, max(0.0, left))
        for group, lr in zip(groups, self._configured, strict=True):
            group["lr"] = lr * factor
