"""Progress of a training: a bar on a terminal, lines of text elsewhere."""

import time
from collections.abc import Iterator, Sequence
from typing import Any

from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import RichProgressBar
from lightning.pytorch.utilities import rank_zero_only

from transfergen.evaluation.feature_extraction import Track, silently
from transfergen.training.base_module import GenerativeModule
from transfergen.training.callbacks.interval import BatchCallback


class ProgressBar(RichProgressBar):
    """Lightning's rich progress bar, with the losses and images per second."""

    def get_metrics(self, trainer: Trainer, pl_module: LightningModule) -> dict[str, Any]:
        """Return the scalars that the bar shows, without the logger's version number."""
        metrics: dict[str, Any] = super().get_metrics(trainer, pl_module)
        metrics.pop("v_num", None)
        return metrics

    def track(self, items: Sequence[Any], description: str) -> Iterator[Any]:
        """Yield the items, with a bar of their own below the training's."""
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


class StatusLine(BatchCallback):
    """Prints a line at most each `every_s` seconds, where there is no terminal for a progress bar."""

    def __init__(self, every_s: float = 30.0) -> None:
        self.every_s = every_s
        self._last = time.monotonic()

    @rank_zero_only
    def after_batch(self, trainer: Trainer, module: GenerativeModule) -> None:
        """Print if `every_s` seconds have passed."""
        s = module.last_scalars
        if s and time.monotonic() - self._last > self.every_s:
            self._last = time.monotonic()
            d = f"d {s['loss/discriminator']:.3f}, " if "loss/discriminator" in s else ""  # a plain VAE has none
            print(
                f"epoch {trainer.current_epoch}, {module.images_seen:,} images, {d}"
                f"g {s['loss/generator']:.3f}, {s['images_per_second']:.1f} images/s",
                flush=True,
            )


def track_on_bar(trainer: Trainer) -> Track:
    """Show progress on the trainer's progress bar, if it has one."""
    bar = trainer.progress_bar_callback
    return bar.track if isinstance(bar, ProgressBar) else silently
