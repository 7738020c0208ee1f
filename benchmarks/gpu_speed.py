"""Images per second of training on this machine's GPU, in bfloat16 beside float32 (TF32).

    python benchmarks/gpu_speed.py run dcgan projected
    python benchmarks/gpu_speed.py report

At 64x64 in batches of 128, on drawn pictures and with random VGG19 weights, which take the time of real ones.
"""

import argparse
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from harness import Comparison, speed_command
from judgement import compose_config
from lightning import Callback, LightningDataModule, LightningModule, Trainer

from transfergen.config import instantiate
from transfergen.training.build import build_module
from transfergen.training.trainer import build_trainer

COMMON = ["data=shapes", "data.source.train=12800", "data.source.test=16", "trainer=gpu", "trainer.devices=1"]
MODELS = {
    "dcgan": [],
    "vgg_disc": ["backbone.weights=random"],
    "projected": [],
    "vision_aided": ["discriminator.backbones.vgg19.weights=random", "discriminator.every_images=1"],
}
WARM_UP_STEPS = 20


class Stopwatch(Callback):
    """Times the steps after the first few, and ends the training after some seconds."""

    def __init__(self, seconds: float) -> None:
        self.seconds, self.seconds_an_image = seconds, 0.0
        self._steps = 0

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Start the clock after the first steps, and read it at the end."""
        self._steps += 1
        if self._steps == WARM_UP_STEPS:
            torch.cuda.synchronize()
            self._start, self._images = time.perf_counter(), pl_module.images_seen
        elif self._steps > WARM_UP_STEPS and time.perf_counter() - self._start > self.seconds:
            torch.cuda.synchronize()
            self.seconds_an_image = (time.perf_counter() - self._start) / (pl_module.images_seen - self._images)
            trainer.should_stop = True


def seconds_an_image(model: str, data: LightningDataModule, precision: str) -> float:
    """Of a training of a few seconds, by the project's own module and trainer."""
    overrides = [*COMMON, f"model={model}", f"trainer.precision={precision}", "trainer.max_epochs=-1", "logger=none"]
    config = compose_config([*overrides, *MODELS[model]])
    stopwatch = Stopwatch(3.0)
    with TemporaryDirectory() as folder:
        trainer = build_trainer(run_dir=Path(folder), callbacks=[stopwatch], loggers=[], **config.trainer)
        trainer.fit(build_module(config), datamodule=data)
    return stopwatch.seconds_an_image


def comparisons(args: argparse.Namespace) -> Iterator[Comparison]:
    """The models that were asked for."""
    data = instantiate(compose_config(COMMON).data)
    for model in args.models:
        full, half = (partial(seconds_an_image, model, data, precision) for precision in ("32-true", "bf16-mixed"))
        yield Comparison(f"{model} on {torch.cuda.get_device_name()}", full, half, images=1)


if __name__ == "__main__":
    speed_command(
        __doc__,
        comparisons,
        options=lambda parser: parser.add_argument(
            "models", nargs="*", default=list(MODELS), help=f"of {list(MODELS)}"
        ),
        rounds=2,
    )
