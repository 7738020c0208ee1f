"""Images per second of each model on this machine's GPU, in bf16 and float32, compiled and not. Called by gpu.sh.

    python benchmarks/gpu_speed.py --seconds 420

CIFAR-10's size and the reference batch on random pictures and random VGG19 weights, which take the time of real ones.
What does not fit into the time is left out and named.
"""

import argparse
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from hydra import compose, initialize_config_dir
from lightning import Callback, LightningDataModule, LightningModule, Trainer
from omegaconf import DictConfig

import transfergen.commands.train  # noqa: F401  registers the resolver of the run directory
from transfergen.config import CONF_DIR, instantiate
from transfergen.training.build import build_module
from transfergen.training.trainer import build_trainer

MODELS = {
    "dcgan": [],
    "vgg_disc": ["backbone.weights=random"],
    "projected": [],
    "vision_aided": ["discriminator.backbones.vgg19.weights=random", "discriminator.every_images=1"],
}
WARM_UP_STEPS = 20


class Stopwatch(Callback):
    """Times the steps after the first few, and ends the training after a while."""

    def __init__(self, seconds: float) -> None:
        self.seconds, self.images_per_second = seconds, 0.0
        self._steps = 0

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Count."""
        self._steps += 1
        if self._steps == WARM_UP_STEPS:
            torch.cuda.synchronize()
            self._start, self._images = time.perf_counter(), pl_module.images_seen
        elif self._steps > WARM_UP_STEPS and time.perf_counter() - self._start > self.seconds:
            torch.cuda.synchronize()
            images = pl_module.images_seen - self._images
            self.images_per_second = images / (time.perf_counter() - self._start)
            trainer.should_stop = True


def compose_config(*overrides: str) -> DictConfig:
    """A training's config on random pictures and one GPU."""
    common = ["data=shapes", "data.source.train=12800", "data.source.test=16", "trainer=gpu", "trainer.devices=1"]
    with initialize_config_dir(str(CONF_DIR), version_base="1.3"):
        return compose("train", overrides=[*common, "logger=none", "trainer.max_epochs=-1", *overrides])


def images_per_second(model: str, data: LightningDataModule, precision: str, compiled: bool) -> float:
    """Over four seconds, with the project's own module and trainer."""
    config = compose_config(f"model={model}", f"trainer.precision={precision}", f"compile={compiled}", *MODELS[model])
    stopwatch = Stopwatch(4.0)
    with TemporaryDirectory() as folder:
        trainer = build_trainer(run_dir=Path(folder), callbacks=[stopwatch], loggers=[], **config.trainer)
        trainer.fit(build_module(config), datamodule=data)
    return stopwatch.images_per_second


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=420, help="start nothing new after these")
    args = parser.parse_args()
    start = time.perf_counter()
    print(f"{torch.cuda.get_device_name()}, torch {torch.__version__}; images/s at 64 px, batch 128\n")
    print("| model | precision | plain | compiled |\n|---|---|---|---|")
    data = instantiate(compose_config().data)
    speeds: dict[tuple[str, str, bool], str] = {}
    cases = [(model, precision) for precision in ("bf16-mixed", "32-true") for model in MODELS]
    for compiled in (False, True):  # plain ones first: they take seconds
        for model, precision in cases:
            late = time.perf_counter() - start > args.seconds
            speed = "no time left" if late else f"{images_per_second(model, data, precision, compiled):,.0f}"
            speeds[model, precision, compiled] = speed
            print(f"{model}, {precision}, {'compiled' if compiled else 'plain'}: {speed}", file=sys.stderr, flush=True)
    for model, precision in cases:
        print(f"| {model} | {precision} | {speeds[model, precision, False]} | {speeds[model, precision, True]} |")


if __name__ == "__main__":
    main()
