"""Linear decay of the learning rates."""

import math
from dataclasses import dataclass
from typing import Any

from lightning import Callback, LightningModule, Trainer

from transfergen.training.base_module import GenerativeModule


@dataclass(eq=False, kw_only=True)
class LinearLRDecay(Callback):
    """Lets all learning rates fall linearly with the number of real images seen.

    Args:
        start_images: the rates are as configured until then.
        end_images: the rates are `final_factor` times as high from then on. None: they are when the run ends, by
            `max_images` or `max_epochs`; a run that ends before `start_images` keeps its rates.
        final_factor: in [0, 1].
        max_images: the run ends after so many images; None: not by their number.
        max_epochs: the run ends after so many epochs; None or -1: not by their number.

    Raises:
        ValueError: `end_images` is not after `start_images`, or nothing tells when the run ends.
    """

    start_images: int
    end_images: int | None = None
    final_factor: float = 0.0
    max_images: int | None = None
    max_epochs: int | None = None

    def __post_init__(self) -> None:
        if self.end_images is not None and not 0 <= self.start_images < self.end_images:
            raise ValueError(
                f"lr_decay.start_images={self.start_images}: the learning rates fall from there to {self.end_images} "
                "images; set lr_decay.end_images to more than that"
            )
        if self.end_images is None and self.max_images is None and self.max_epochs in (None, -1):
            raise ValueError(
                "lr_decay.end_images=null: the learning rates fall until the run ends, and nothing tells when; set "
                "max_images, trainer.max_epochs or lr_decay.end_images"
            )
        self._end = 0.0
        self._configured: list[float] = []

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Find out when the rates have fallen."""
        data = trainer.datamodule  # type: ignore[attr-defined]
        epochs = math.inf if self.max_epochs is None or self.max_epochs < 0 else self.max_epochs
        all_epochs = epochs * data.batches_per_epoch * data.batch_size
        self._end = self.end_images or min(self.max_images or math.inf, all_epochs)

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """Set the learning rates of this batch."""
        assert isinstance(pl_module, GenerativeModule)
        if self._end <= self.start_images:
            return
        groups = [group for optimizer in trainer.optimizers for group in optimizer.param_groups]
        # Before a run's first batch they are the configured ones, even if the run was resumed.
        self._configured = self._configured or [group["lr"] for group in groups]
        left = (self._end - pl_module.images_seen) / (self._end - self.start_images)
        factor = self.final_factor + (1 - self.final_factor) * min(1.0, max(0.0, left))
        for group, lr in zip(groups, self._configured, strict=True):
            group["lr"] = lr * factor
