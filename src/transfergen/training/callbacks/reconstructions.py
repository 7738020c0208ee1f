"""Grids of what a VAE reconstructs and interpolates."""

from pathlib import Path

import torch
from lightning import LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_only
from torch import Tensor

from transfergen.images import to_float
from transfergen.runs import artefacts
from transfergen.training.base_module import GenerativeModule
from transfergen.training.callbacks.interval import IntervalCallback
from transfergen.training.callbacks.samples import save_grid
from transfergen.training.vae_module import Autoencoding

PICTURES, STEPS = 32, 8


class Reconstructions(IntervalCallback):
    """Saves two grids of the same test images at intervals and at the end, as PNG and in the loggers.

    - `reconstructions/IMAGES_SEEN.png`: each image, and to its right what is decoded from the mean of its latent;
    - `interpolations/IMAGES_SEEN.png`: a row for each pair of images, decoded along the line between their latents.

    Args:
        run_dir: gets the files.
        every_images: real images between two pairs of grids.
    """

    def __init__(self, run_dir: Path, *, every_images: int) -> None:
        super().__init__(every_images)
        self.run_dir = run_dir

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Choose the test images."""
        assert isinstance(pl_module, Autoencoding)
        data = trainer.datamodule  # type: ignore[attr-defined]
        chosen = data.test_set.sample_images(PICTURES)
        self._images = to_float(chosen.pixels, data.image_shape.size)
        self._labels = chosen.labels if pl_module.generator.num_classes else None

    @rank_zero_only
    def act(self, trainer: Trainer, module: GenerativeModule) -> None:
        """Save both grids."""
        assert isinstance(module, Autoencoding)
        z = module.encode(self._images)
        y = None if self._labels is None else self._labels.to(module.device)
        pairs = torch.stack([self._images, module.decode(z, y).cpu()], dim=1)
        self._save(trainer, artefacts.RECONSTRUCTIONS, pairs.flatten(0, 1), module.images_seen)
        first_ends, last_ends = z[: PICTURES // 4], z[PICTURES // 4 : PICTURES // 2]
        weights = torch.linspace(0, 1, STEPS, device=z.device)[:, None]
        lines = [torch.lerp(first, last, weights) for first, last in zip(first_ends, last_ends, strict=False)]
        labels = None if y is None else y[: len(lines)].repeat_interleave(STEPS)
        if lines:
            decoded = module.decode(torch.cat(lines), labels).cpu()
            self._save(trainer, artefacts.INTERPOLATIONS, decoded, module.images_seen)

    def _save(self, trainer: Trainer, title: str, images: Tensor, images_seen: int) -> None:
        path = self.run_dir / title / f"{images_seen:09d}.png"
        save_grid(trainer, path, title, images, images_seen, columns=STEPS)
