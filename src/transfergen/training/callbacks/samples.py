"""Grids of samples while the generator learns."""

from pathlib import Path
from typing import Any

import torch
from lightning import Callback, LightningModule, Trainer
from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.utilities import rank_zero_only
from torchvision.transforms.functional import pil_to_tensor

from transfergen.images import resize, to_float, to_grid
from transfergen.networks.generators.base import sample
from transfergen.runs import artefacts
from transfergen.training.base_module import GenerativeModule
from transfergen.training.callbacks.collapse_warning import LEAST_DIVERSITY, DiversityAlarm, what_to_try


class SampleGrid(Callback):
    """A grid of samples from latents that stay the same, as PNG and in TensorBoard; at first a grid of reals beside it.

    It also measures how far apart the samples are in a grid, as a part of how far the reals are, and warns if they are
    nearly alike.

    Args:
        run_dir: gets samples/reals.png and samples/IMAGES_SEEN.png, and grid.png at the end.
        every_images: interval between grids.
        count: samples in a grid.
        seed: of the first latent; the others follow it.
    """

    def __init__(self, run_dir: Path, *, every_images: int, count: int = 64, seed: int = 0) -> None:
        if every_images < 1 or count < 1:
            raise ValueError("samples.every_images and samples.count are at least 1")
        self.run_dir, self.every_images, self.count, self.seed = run_dir, every_images, count, seed
        self._intervals_done = 0
        self._last_at = -1
        self._reals_spread = 0.0
        self._alarm = DiversityAlarm("the spread of a grid's samples, as a part of the reals',", floor=LEAST_DIVERSITY)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """The reals, and where in the intervals a resumed run stands."""
        assert isinstance(pl_module, GenerativeModule)
        self._intervals_done = pl_module.images_seen // self.every_images
        data = trainer.datamodule  # type: ignore[attr-defined]
        reals = to_float(data.train_set.sample_images(self.count).pixels, data.resolution)
        self._reals_spread = _spread(reals)
        self._save(trainer, "reals", reals, pl_module.images_seen)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """A grid whenever an interval is full."""
        assert isinstance(pl_module, GenerativeModule)
        if pl_module.images_seen // self.every_images > self._intervals_done:
            self._intervals_done = pl_module.images_seen // self.every_images
            self._last_at = pl_module.images_seen
            self._show(trainer, pl_module, self._sample(pl_module))

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """The last grid."""
        assert isinstance(pl_module, GenerativeModule)
        images = self._sample(pl_module)
        if self._last_at != pl_module.images_seen:
            self._show(trainer, pl_module, images)
        if trainer.is_global_zero:
            to_grid(images).save(self.run_dir / artefacts.GRID)

    def _sample(self, module: GenerativeModule) -> torch.Tensor:
        """Images (count, 3, R, R) of the fixed latents."""
        return sample(module.ema_generator, range(self.seed, self.seed + self.count), module.device)

    @rank_zero_only
    def _show(self, trainer: Trainer, module: GenerativeModule, images: torch.Tensor) -> None:
        images_seen = module.images_seen
        self._save(trainer, f"{images_seen:09d}", images, images_seen)
        if self._reals_spread:
            diversity = _spread(images) / self._reals_spread
            for logger in trainer.loggers:
                logger.log_metrics({"samples/diversity": diversity}, step=images_seen)
            self._alarm(diversity, images_seen, what_to_try(module))

    @rank_zero_only
    def _save(self, trainer: Trainer, name: str, images: torch.Tensor, images_seen: int) -> None:
        title = "reals" if name == "reals" else "samples"
        save_grid(trainer, self.run_dir / artefacts.SAMPLES / f"{name}.png", title, images, images_seen)


def save_grid(
    trainer: Trainer, path: Path, title: str, images: torch.Tensor, images_seen: int, columns: int | None = None
) -> None:
    """Images (B, 3, R, R) in [-1, 1] as one picture: a file, and in TensorBoard under `title`."""
    path.parent.mkdir(exist_ok=True)
    grid = to_grid(images, columns)
    grid.save(path)
    for logger in trainer.loggers:
        if isinstance(logger, TensorBoardLogger):
            logger.experiment.add_image(title, pil_to_tensor(grid), images_seen)


def _spread(images: torch.Tensor) -> float:
    """Root of the mean variance of a pixel over images (B, 3, R, R), reduced to 16x16; 0 for a single one."""
    return float(resize(images.float(), 16).var(dim=0, unbiased=False).mean().sqrt())
