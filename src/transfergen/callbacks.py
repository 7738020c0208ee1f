"""What happens beside the training steps: sample grids, checkpoints, the end by images."""

import time
from pathlib import Path
from typing import Any

import torch
from lightning import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import RichProgressBar
from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.utilities import rank_zero_only
from torchvision.transforms.functional import pil_to_tensor

from transfergen import artefacts
from transfergen.gan import GAN
from transfergen.generators.base import latents
from transfergen.images import to_float, to_grid


class SampleGrid(Callback):
    """A grid of samples from latents that stay the same, as PNG and in TensorBoard; at first a grid of reals beside it.

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

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """The reals, and where in the intervals a resumed run stands."""
        assert isinstance(pl_module, GAN)
        self._intervals_done = pl_module.images_seen // self.every_images
        data = trainer.datamodule  # type: ignore[attr-defined]
        reals = to_float(data.train_set.some(self.count).pixels, data.resolution)
        self._save(trainer, "reals", reals, pl_module.images_seen)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """A grid whenever an interval is full."""
        assert isinstance(pl_module, GAN)
        if pl_module.images_seen // self.every_images > self._intervals_done:
            self._intervals_done = pl_module.images_seen // self.every_images
            self._last_at = pl_module.images_seen
            self._save(trainer, f"{pl_module.images_seen:09d}", self.sample(pl_module), pl_module.images_seen)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """The last grid."""
        assert isinstance(pl_module, GAN)
        images = self.sample(pl_module)
        if self._last_at != pl_module.images_seen:
            self._save(trainer, f"{pl_module.images_seen:09d}", images, pl_module.images_seen)
        if trainer.is_global_zero:
            to_grid(images).save(self.run_dir / artefacts.GRID)

    @torch.no_grad()
    def sample(self, module: GAN) -> torch.Tensor:
        """Images (count, 3, R, R) of the fixed latents."""
        was_training = module.sampler.training
        module.sampler.eval()
        z = latents(range(self.seed, self.seed + self.count), module.generator.z_dim)
        images: torch.Tensor = module.sampler(z.to(module.device))
        module.sampler.train(was_training)
        return images

    @rank_zero_only
    def _save(self, trainer: Trainer, name: str, images: torch.Tensor, images_seen: int) -> None:
        path = self.run_dir / "samples" / f"{name}.png"
        path.parent.mkdir(exist_ok=True)
        grid = to_grid(images)
        grid.save(path)
        for logger in trainer.loggers:
            if isinstance(logger, TensorBoardLogger):
                title = "reals" if name == "reals" else "samples"
                logger.experiment.add_image(title, pil_to_tensor(grid), images_seen)


class RunFiles(Callback):
    """Keeps checkpoints/last.ckpt and the generator's files up to date: at ends of epochs and of the training.

    Args:
        run_dir: gets the files.
        generator_config: goes into generator.json.
        every_images: the end of an epoch is passed over if fewer images were seen since the last save.
    """

    def __init__(self, run_dir: Path, generator_config: dict[str, Any], *, every_images: int) -> None:
        self.run_dir, self.generator_config, self.every_images = run_dir, generator_config, every_images
        self._saved_at = 0

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Where a resumed run stands."""
        assert isinstance(pl_module, GAN)
        self._saved_at = pl_module.images_seen

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Saves, unless it just did."""
        assert isinstance(pl_module, GAN)
        if pl_module.images_seen - self._saved_at >= self.every_images:
            self._save(trainer, pl_module)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Saves the end."""
        assert isinstance(pl_module, GAN)
        self._save(trainer, pl_module)

    def _save(self, trainer: Trainer, module: GAN) -> None:
        path = self.run_dir / artefacts.LAST_CHECKPOINT
        partial = path.with_suffix(".part")
        trainer.save_checkpoint(partial, weights_only=False)  # all ranks take part, rank 0 writes
        if trainer.is_global_zero:
            partial.replace(path)
            artefacts.save_generator(
                self.run_dir,
                module.sampler,
                self.generator_config,
                ema=module.ema is not None,
                images_seen=module.images_seen,
            )
        self._saved_at = module.images_seen


class StopAtImages(Callback):
    """Ends the training once so many real images were seen."""

    def __init__(self, max_images: int) -> None:
        self.max_images = max_images

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Raises ValueError if a resumed run is there already."""
        assert isinstance(pl_module, GAN)
        if pl_module.images_seen >= self.max_images:
            raise ValueError(f"max_images={self.max_images}: the run has seen {pl_module.images_seen:,}; set more")

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Stops."""
        assert isinstance(pl_module, GAN)
        if pl_module.images_seen >= self.max_images:
            trainer.should_stop = True


class ProgressBar(RichProgressBar):
    """Lightning's rich bar with both losses and images per second."""

    def get_metrics(self, trainer: Trainer, pl_module: LightningModule) -> dict[str, Any]:
        """What stands behind the bar: all that is logged for it but the logger's version."""
        metrics: dict[str, Any] = super().get_metrics(trainer, pl_module)
        metrics.pop("v_num", None)
        return metrics


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
        assert isinstance(pl_module, GAN)
        if pl_module.last_scalars and time.monotonic() - self._last > self.every_s:
            self._last = time.monotonic()
            s = pl_module.last_scalars
            print(
                f"epoch {trainer.current_epoch}, {pl_module.images_seen:,} images, d {s['loss/discriminator']:.3f}, "
                f"g {s['loss/generator']:.3f}, {s['images_per_second']:.1f} images/s",
                flush=True,
            )
