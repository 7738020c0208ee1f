"""A training that is measured as it goes: samples of its moving average against test images."""

import shutil
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from hydra import compose, initialize_config_dir
from judge import RESOLUTION, load_or_train
from lightning import Callback, LightningModule, Trainer, seed_everything
from torch import Tensor
from torch.nn import functional as F

import transfergen.commands.train  # noqa: F401  registers the resolvers of the configs
from transfergen.commands.cli import plain
from transfergen.config import CONF_DIR, instantiate
from transfergen.evaluation.distances import frechet, kernel
from transfergen.evaluation.extractors import PixelFeatures
from transfergen.evaluation.neighbours import precision_recall
from transfergen.images import to_float, to_grid, to_uint8
from transfergen.networks.generators.base import Generator, sample
from transfergen.runs.resume import override_key
from transfergen.training.base_module import GenerativeModule
from transfergen.training.build import build_module, set_num_classes
from transfergen.training.callbacks import LinearLRDecay
from transfergen.training.trainer import build_trainer
from transfergen.transfer.public_sources import follow_source

SAMPLES, SAMPLE_SEED = 2000, 1_000_000
LUMINANCE = (0.299, 0.587, 0.114)
"""Weights of red, green and blue. ITU-R BT.601."""
Unit = Literal["seconds", "images"]
Point = dict[str, float]


class Measure:
    """Measures a generator's samples against test images.

    Args:
        test: images (N, 3, R, R) in [-1, 1], of the generator's resolution.
        data: CIFAR-10, a folder or a name on the Hugging Face hub, on which the judge is trained.
    """

    def __init__(self, test: Tensor, data: str) -> None:
        self.judge, self.accuracy = load_or_train(data)
        self.pixels = PixelFeatures()
        self.real, self.real_pixels = self._features(test), self.pixels(test)
        self.real_power = high_frequency_power(test)

    def __call__(self, generator: Generator, grid: Path | None = None) -> Point:
        """Measure 2,000 samples.

        Args:
            generator: makes them.
            grid: where a picture of the first 64 goes.

        Returns:
            See `of`.
        """
        seeds = range(SAMPLE_SEED, SAMPLE_SEED + SAMPLES)
        device = next(generator.parameters()).device
        samples = to_float(to_uint8(sample(generator, seeds, device, batch_size=250).cpu()))
        if grid is not None:
            to_grid(samples[:64]).save(grid, quality=92, subsampling=0)
        return self.of(samples)

    def of(self, images: Tensor) -> Point:
        """Measure images (N, 3, R, R) in [-1, 1].

        Returns:
            Kernel and Fréchet distance, precision and recall in the judge's features; kernel distance and recall on
            16x16 pixels; and the power of the images' highest frequencies as a multiple of the test images'. All are
            rounded to six significant digits.
        """
        fake, fake_pixels = self._features(images), self.pixels(images)
        precision, recall = precision_recall(self.real, fake)
        measured = {
            "kernel_distance": kernel(self.real, fake),
            "frechet_distance": frechet(self.real, fake),
            "precision": precision,
            "recall": recall,
            "pixel_kernel_distance": kernel(self.real_pixels, fake_pixels),
            "pixel_recall": precision_recall(self.real_pixels, fake_pixels)[1],
            "high_frequency_ratio": high_frequency_power(images) / self.real_power,
        }
        return {name: float(f"{float(value):.6g}") for name, value in measured.items()}

    @torch.no_grad()
    def _features(self, images: Tensor) -> Tensor:
        if images.shape[-1] != RESOLUTION:
            images = F.interpolate(images, RESOLUTION, mode="area")
        return torch.cat([self.judge(part) for part in images.split(250)]).float()


def high_frequency_power(images: Tensor) -> Tensor:
    """Mean power of the luminance's highest spatial frequencies: images (N, 3, R, R) -> a scalar.

    These are the frequencies (kx, ky) whose larger component is in the top eighth, above 7/16 of a cycle a pixel.
    """
    luminance = torch.einsum("nchw,c->nhw", images, images.new_tensor(LUMINANCE))
    power = torch.fft.fft2(luminance).abs().square().mean(dim=0)
    frequencies = torch.fft.fftfreq(images.shape[-1]).abs()
    return power[torch.maximum(frequencies[:, None], frequencies) > 7 / 16].mean()


class MeasureAtMoments(Callback):
    """Measures the moving average at moments of the training, and ends the training at the last one.

    A training that ends before the last moment is measured at its end.

    Args:
        moments: in ascending order.
        unit: whether they are seconds of training, without the measuring, or images seen.
        measure: called with the generator and the grid.
        grid: where a picture of the newest samples goes. Those of all moments are beside it, by images seen.
    """

    def __init__(self, moments: Sequence[float], unit: Unit, measure: Measure, grid: Path) -> None:
        self.moments, self.unit, self.measure, self.grid = moments, unit, measure, grid
        self.points: list[Point] = []
        self._trained_s = 0.0

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """Start the clock at the first batch."""
        if not hasattr(self, "_since"):
            self._since = time.perf_counter()

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Measure, with the clock stopped, if the next moment is reached."""
        assert isinstance(pl_module, GenerativeModule)
        trained_s = self._trained_s + time.perf_counter() - self._since
        reached = trained_s if self.unit == "seconds" else pl_module.images_seen
        if reached < self.moments[len(self.points)]:
            return
        self._trained_s = trained_s
        self._add_point(pl_module)
        trainer.should_stop |= len(self.points) == len(self.moments)
        self._since = time.perf_counter()

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Measure, unless the last moment was reached."""
        assert isinstance(pl_module, GenerativeModule)
        if len(self.points) < len(self.moments):
            self._trained_s += time.perf_counter() - self._since
            self._add_point(pl_module)

    def _add_point(self, module: GenerativeModule) -> None:
        point: Point = {"seconds": round(self._trained_s, 1), "images": module.images_seen}
        grid = self.grid.with_stem(f"{self.grid.stem}-{module.images_seen:08}")
        point |= self.measure(module.ema_generator, grid)
        shutil.copyfile(grid, self.grid)
        self.points.append(point)
        print(", ".join(f"{name} {value}" for name, value in point.items()), flush=True)


def compose_config(overrides: Sequence[str]) -> Any:
    """The config of a training, as the command line composes it."""
    with initialize_config_dir(str(CONF_DIR), version_base="1.3"):
        return compose("train", overrides=list(overrides))


def judged_training(overrides: Sequence[str], moments: Sequence[float], unit: Unit, grid: Path) -> dict[str, Any]:
    """Train by the project's own configs and module, and measure at the moments.

    Args:
        overrides: as on the command line of train.py.
        moments: see MeasureAtMoments.
        unit: of the moments.
        grid: where a picture of the newest samples goes.

    Returns:
        The numbers of training images, samples and parameters, and the judge's accuracy. `points` has the values of
        each measure at the moments. `copies` has what a generator would get that only repeats training images: the
        measures of as many of them as there are samples, each drawn at random.
    """
    config = plain(compose_config(overrides))
    follow_source(config, [override_key(override) for override in overrides])
    data = instantiate(config.data)
    data.setup()
    set_num_classes(config, data.class_count)
    measure = Measure(to_float(data.test_set.sample_images(SAMPLES).pixels, config.data.resolution), config.data.path)
    grid.parent.mkdir(parents=True, exist_ok=True)
    measuring = MeasureAtMoments(moments, unit, measure, grid)
    callbacks: list[Callback] = [measuring]
    if config.lr_decay.start_images is not None:
        callbacks.append(LinearLRDecay(**config.lr_decay, max_images=config.max_images))  # its epochs have no end
    settings = {**config.trainer, "log_every_n_steps": 200}
    trainer = build_trainer(run_dir=grid.parent, callbacks=callbacks, **settings)
    seed_everything(config.seed, verbose=False)  # after the judge's weights were drawn
    module = build_module(config)
    trainer.fit(module, datamodule=data)
    drawn = np.random.default_rng(0).integers(len(data.train_set), size=SAMPLES)
    networks = {part: getattr(module, part, None) for part in ("generator", "discriminator")}
    return {
        "training_images": len(data.train_set),
        "samples": SAMPLES,
        "parameters": {part: sum(p.numel() for p in net.parameters()) for part, net in networks.items() if net},
        "judge_accuracy": round(measure.accuracy, 4),
        "copies": measure.of(to_float(data.train_set[drawn].pixels, config.data.resolution)),
        "points": {key: [point[key] for point in measuring.points] for key in measuring.points[0]},
    }
