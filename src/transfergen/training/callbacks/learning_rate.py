"""Learning rates that fall towards the end."""

from typing import Any

from lightning import Callback, LightningModule, Trainer

from transfergen.training.base_module import GenerativeModule


class RateDecay(Callback):
    """All learning rates fall linearly, from what they are at `from_images` real images to a part of it.

    Args:
        from_images: where they begin to fall.
        until_images: where they have fallen; afterwards they stay.
        to: what is left of them there, as a part.

    Raises:
        ValueError: `until_images` is not known, or not after `from_images`; `to` is not a part.
    """

    def __init__(self, from_images: int, until_images: int | None, to: float = 0.0) -> None:
        if until_images is None or not 0 <= from_images < until_images:
            raise ValueError(
                f"decay_from_images={from_images}: the learning rates fall from there to {until_images} images; set "
                "max_images, or decay_until_images, to more than that"
            )
        if not 0 <= to <= 1:
            raise ValueError(f"decay_to={to}: it is what is left of the learning rates; set decay_to to 0 to 1")
        self.from_images, self.until_images, self.to = from_images, until_images, to
        self._rates: list[float] = []

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """Sets them; before the first batch they are the configured ones, in a resumed run too."""
        assert isinstance(pl_module, GenerativeModule)
        groups = [group for optimizer in trainer.optimizers for group in optimizer.param_groups]
        self._rates = self._rates or [group["lr"] for group in groups]
        left = (self.until_images - pl_module.images_seen) / (self.until_images - self.from_images)
        for group, rate in zip(groups, self._rates, strict=True):
            group["lr"] = rate * (self.to + (1 - self.to) * min(1.0, max(0.0, left)))
