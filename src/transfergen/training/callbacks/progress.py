"""How far a training is: a bar on a terminal, and lines elsewhere."""

import time
from collections.abc import Iterator, Sequence
from typing import Any

from lightning import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import RichProgressBar
from lightning.pytorch.utilities import rank_zero_only

from transfergen.training.base_module import GenerativeModule


class ProgressBar(RichProgressBar):
    """Lightning's rich bar with both losses and images per second."""

    def get_metrics(self, trainer: Trainer, pl_module: LightningModule) -> dict[str, Any]:
        """What stands behind the bar: all that is logged for it but the logger's version."""
        metrics: dict[str, Any] = super().get_metrics(trainer, pl_module)
        metrics.pop("v_num", None)
        return metrics

    def track(self, items: Sequence[Any], description: str) -> Iterator[Any]:
        """The same items, with a bar of their own below the training's while they are taken."""
        if self.progress is None:  # on ranks that draw none
            yield from items
            return
        task = self.progress.add_task(description, total=len(items))
        try:
            for item in items:
                yield item
                self.progress.advance(task)
                self.refresh()
        finally:
            self.progress.remove_task(task)


class StatusLine(Callback):
    """One line in the log now and then, for runs without a terminal to draw a progress bar on."""

    def __init__(self, every_s: float = 30.0) -> None:
        self.every_s = every_s
        self._last = time.monotonic()

    @rank_zero_only
    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Prints, if it is time."""
        assert isinstance(pl_module, GenerativeModule)
        if pl_module.last_scalars and time.monotonic() - self._last > self.every_s:
            self._last = time.monotonic()
            s = pl_module.last_scalars
            d = f"d {s['loss/discriminator']:.3f}, " if "loss/discriminator" in s else ""  # a plain VAE has none
            print(
                f"epoch {trainer.current_epoch}, {pl_module.images_seen:,} images, {d}"
                f"g {s['loss/generator']:.3f}, {s['images_per_second']:.1f} images/s",
                flush=True,
            )
