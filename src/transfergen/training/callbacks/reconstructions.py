"""What a VAE makes of pictures that it has not seen, and what lies between them."""

from pathlib import Path
from typing import Any

import torch
from lightning import Callback, LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_only
from torch import Tensor

from transfergen.images import to_float
from transfergen.runs import artefacts
from transfergen.training.callbacks.samples import save_grid
from transfergen.training.vae_module import Autoencoding

PICTURES, STEPS = 32, 8


class Reconstructions(Callback):
    """Two grids at intervals, as PNG and in TensorBoard, of the same pictures of the test split.

    - `reconstructions/IMAGES_SEEN.png`: each picture, and right of it what is decoded from its latent's mean;
    - `interpolations/IMAGES_SEEN.png`: in each row, what is decoded along the line from one picture's to another's.

    Args:
        run_dir: gets the files.
        every_images: interval between grids; there is one at the end too.
    """

    def __init__(self, run_dir: Path, *, every_images: int) -> None:
        self.run_dir, self.every_images = run_dir, every_images
        self._intervals_done = 0
        self._last_at = -1

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """The pictures, and where in the intervals a resumed run stands."""
        assert isinstance(pl_module, Autoencoding)
        self._intervals_done = pl_module.images_seen // self.every_images
        data = trainer.datamodule  # type: ignore[attr-defined]
        some = data.test_set.sample_images(PICTURES)
        self._pictures = to_float(some.pixels, data.resolution)
        self._classes = some.labels if pl_module.generator.num_classes else None

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Grids whenever an interval is full."""
        assert isinstance(pl_module, Autoencoding)
        if pl_module.images_seen // self.every_images > self._intervals_done:
            self._intervals_done = pl_module.images_seen // self.every_images
            self._show(trainer, pl_module)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """The last grids."""
        assert isinstance(pl_module, Autoencoding)
        if self._last_at != pl_module.images_seen:
            self._show(trainer, pl_module)

    @rank_zero_only
    def _show(self, trainer: Trainer, module: Autoencoding) -> None:
        self._last_at = module.images_seen
        z = module.encode(self._pictures)
        y = None if self._classes is None else self._classes.to(module.device)
        pairs = torch.stack([self._pictures, module.decode(z, y).cpu()], dim=1)
        self._save(trainer, artefacts.RECONSTRUCTIONS, pairs.flatten(0, 1), module.images_seen)
        firsts, lasts = z[: PICTURES // 4], z[PICTURES // 4 : PICTURES // 2]
        share = torch.linspace(0, 1, STEPS, device=z.device)[:, None]
        lines = [torch.lerp(first, last, share) for first, last in zip(firsts, lasts, strict=False)]
        rows = None if y is None else y[: len(lines)].repeat_interleave(STEPS)
        if lines:
            self._save(
                trainer, artefacts.INTERPOLATIONS, module.decode(torch.cat(lines), rows).cpu(), module.images_seen
            )

    def _save(self, trainer: Trainer, what: str, images: Tensor, images_seen: int) -> None:
        path = self.run_dir / what / f"{images_seen:09d}.png"
        save_grid(trainer, path, what, images, images_seen, columns=STEPS)
