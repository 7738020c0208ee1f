"""Grids of samples during a training."""

from pathlib import Path

from lightning import LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_only
from torch import Tensor

from transfergen.images import resize, to_float, to_grid
from transfergen.networks.generators.base import sample
from transfergen.runs import artefacts
from transfergen.training.base_module import GenerativeModule
from transfergen.training.callbacks.collapse_warning import MIN_DIVERSITY, DiversityAlarm, HasAlarms, what_to_try
from transfergen.training.loggers import log_picture


class SampleGrid(HasAlarms):
    """Saves grids of samples from fixed latents, as PNG and in the loggers, and a grid of real images at the start.

    Logs `samples/diversity`, the spread of the samples divided by that of the real images, and warns where it is low.

    Args:
        run_dir: gets samples/reals.png, samples/IMAGES_SEEN.png, and grid.png, a copy of the latest grid.
        every_images: real images between two grids.
        count: samples in a grid.
        seed: of the first latent; the others have the seeds that follow.
    """

    def __init__(self, run_dir: Path, *, every_images: int, count: int = 64, seed: int = 0) -> None:
        super().__init__(every_images)
        self.run_dir, self.count, self.seed = run_dir, count, seed
        self._real_spread = 0.0
        what = "the spread of a grid's samples, relative to real images,"
        self.alarms = {"diversity": DiversityAlarm(what, floor=MIN_DIVERSITY)}

    @rank_zero_only
    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Save the grid of real images and measure their spread."""
        assert isinstance(pl_module, GenerativeModule)
        data = trainer.datamodule  # type: ignore[attr-defined]
        real_images = to_float(data.train_set.sample_images(self.count).pixels, data.image_shape.size)
        self._real_spread = _spread(real_images)
        save_grid(trainer, self.run_dir / artefacts.SAMPLES / "reals.png", "reals", real_images, pl_module.images_seen)

    @rank_zero_only
    def act(self, trainer: Trainer, module: GenerativeModule) -> None:
        """Save a grid, and log how diverse its samples are."""
        self.measured_at = images_seen = module.images_seen
        images = sample(module.ema_generator, range(self.seed, self.seed + self.count), module.device)
        path = self.run_dir / artefacts.SAMPLES / f"{images_seen:09d}.png"
        save_grid(trainer, path, "samples", images, images_seen)
        artefacts.write_picture(self.run_dir / artefacts.GRID, to_grid(images))
        if self._real_spread:
            diversity = _spread(images) / self._real_spread
            for logger in trainer.loggers:
                logger.log_metrics({"samples/diversity": diversity}, step=images_seen)
            self.alarms["diversity"](diversity, images_seen, what_to_try(module))


def save_grid(
    trainer: Trainer, path: Path, title: str, images: Tensor, images_seen: int, columns: int | None = None
) -> None:
    """Save images (B, C, H, W) in [-1, 1] as one PNG, and in the loggers under `title`."""
    grid = to_grid(images, columns)
    artefacts.write_picture(path, grid)
    for logger in trainer.loggers:
        log_picture(logger, title, grid, images_seen)


def _spread(images: Tensor) -> float:
    """Root mean variance of each pixel over images (B, C, H, W), resized to 16x16; 0 for a single image."""
    return float(resize(images.float(), 16).var(dim=0, unbiased=False).mean().sqrt())
