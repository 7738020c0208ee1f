"""Learning rates that fall towards the end."""

from typing import Any

from lightning import Callback, LightningModule, Trainer

from transfergen.module import GenerativeModule


class RateDecay(Callback):
    """All learning rates fall linearly, from what they are at `from_images` real images to 0 at `to_images`.

    Raises:
        ValueError: `to_images` is not known, or not after `from_images`.
    """

    def __init__(self, from_images: int, to_images: int | None) -> None:
        if to_images is None or not 0 <= from_images < to_images:
            raise ValueError(
                f"decay_from_images={from_images}: the learning rates fall from there to max_images={to_images}; set "
                "max_images to more than that"
            )
        self.from_images, self.to_images = from_images, to_images
        self._rates: list[float] = []

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """Sets them; before the first batch they are the configured ones, in a resumed run too."""
        assert isinstance(pl_module, GenerativeModule)
        groups = [group for optimizer in trainer.optimizers for group in optimizer.param_groups]
        self._rates = self._rates or [group["lr"] for group in groups]
        left = (self.to_images - pl_module.images_seen) / (self.to_images - self.from_images)
        for group, rate in zip(groups, self._rates, strict=True):
            group["lr"] = rate * min(1.0, max(0.0, left))
