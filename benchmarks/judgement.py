"""Trainings measured as they go: samples of the moving average against test images, in the judge's features."""

import argparse
import json
import os
import platform
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from hydra import compose, initialize_config_dir
from judge import load_or_train
from lightning import Callback, LightningDataModule, LightningModule, Trainer, seed_everything
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

import transfergen.commands.train  # noqa: F401  registers the resolver of the run directory
from transfergen.config import CONF_DIR, instantiate
from transfergen.evaluation.distances import frechet, kernel
from transfergen.evaluation.extractors import TimmFeatures
from transfergen.evaluation.neighbours import precision_recall
from transfergen.images import to_float, to_grid, to_uint8
from transfergen.networks.generators.base import Generator, sample
from transfergen.training.base_module import GenerativeModule
from transfergen.training.build import build_module, set_num_classes
from transfergen.training.callbacks import LinearLRDecay, StopAtImages
from transfergen.training.trainer import build_trainer

SAMPLES, SAMPLE_SEED = 2000, 1_000_000
JUDGED = 32
"""Pixels of what the judge was trained on."""
Unit = Literal["seconds", "images"]
COMMON = ["data=huggingface", "data.resolution=32", "data.batch_size=64"]


class Measure:
    """Distances, precision and recall of a generator's samples, by the judge and, as a second opinion, by Lite1.

    Args:
        test: images (N, 3, R, R) in [-1, 1], of the generator's resolution.
        data: the folder of CIFAR-10, for the judge, who is trained at the first time.
        second_opinion: whether EfficientNet-Lite1, which takes most of the time, measures too.
    """

    def __init__(self, test: Tensor, data: str, *, second_opinion: bool = True) -> None:
        judge, self.accuracy = load_or_train(data)
        self.extractors: dict[str, Any] = {"judge": judge}
        if second_opinion:
            name, settings = "efficientnet_lite1", {"input_size": 64, "interpolation": "bilinear"}
            self.extractors[name] = TimmFeatures(name=f"tf_{name}", weights="package", **settings)
        self.real = {name: _features(extractor, test) for name, extractor in self.extractors.items()}

    def __call__(self, generator: Generator, grid: Path | None = None) -> dict[str, float]:
        """The numbers by name; a picture of the first 64 samples goes to `grid`."""
        device = next(generator.parameters()).device
        seeds = range(SAMPLE_SEED, SAMPLE_SEED + SAMPLES)
        samples = to_float(to_uint8(sample(generator, seeds, device, batch_size=250).cpu()))
        if grid is not None:
            to_grid(samples[:64]).save(grid)
        values = {}
        for name, extractor in self.extractors.items():
            fake, real = _features(extractor, samples), self.real[name]
            precision, recall = precision_recall(real, fake)
            values[f"{name}/kernel_distance"] = float(kernel(real, fake))
            values[f"{name}/frechet_distance"] = float(frechet(real, fake))
            values |= {f"{name}/precision": float(precision), f"{name}/recall": float(recall)}
        return values


@torch.no_grad()
def _features(extractor: Any, images: Tensor) -> Tensor:
    """Of images (N, 3, R, R), each pixel of the judge's 32x32 being the mean of those that it covers."""
    if images.shape[-1] != JUDGED:
        images = F.interpolate(images, JUDGED, mode="area")
    return torch.cat([extractor(part) for part in images.split(250)]).float()


class Judgement(Callback):
    """Measures the moving average at moments of the training and at its end, and ends it at the last moment.

    Args:
        moments: in seconds of training, without the measuring, or in images seen.
        by: which of the two.
        measure: does it.
        grid: the last samples go there.
    """

    def __init__(self, moments: Sequence[float], by: Unit, measure: Measure, grid: Path) -> None:
        self.moments, self.by, self.measure, self.grid = moments, by, measure, grid
        self.points: list[dict[str, float]] = []
        self._trained_s = 0.0

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """Start the clock."""
        if not hasattr(self, "_since"):
            self._since = time.perf_counter()

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Stop it, if a moment has come, and measure."""
        assert isinstance(pl_module, GenerativeModule)
        trained_s = self._trained_s + time.perf_counter() - self._since
        reached = trained_s if self.by == "seconds" else pl_module.images_seen
        if reached < self.moments[len(self.points)] and not trainer.should_stop:
            return
        self._trained_s = trained_s
        point = {"seconds": round(trained_s, 1), "images": pl_module.images_seen}
        self.points.append(point | self.measure(pl_module.ema_generator, self.grid))
        print(json.dumps(self.points[-1]), flush=True)
        trainer.should_stop |= len(self.points) == len(self.moments)
        self._since = time.perf_counter()


def compose_config(overrides: list[str]) -> Any:
    """The training's config."""
    with initialize_config_dir(str(CONF_DIR), version_base="1.3"):
        return compose("train", overrides=overrides)


def judged_training(
    config: Any,
    data: LightningDataModule,
    moments: Sequence[float],
    by: Unit,
    grid: Path,
    *,
    second_opinion: bool = True,
) -> tuple[GenerativeModule, list[dict[str, float]], Measure]:
    """One training through the project's own configs and module, on `data`, which is set up.

    Returns:
        What was trained, the points, and the measure that took them.
    """
    seed_everything(config.seed, verbose=False)
    set_num_classes(config, data.class_count)  # type: ignore[attr-defined]
    test = data.test_set.sample_images(SAMPLES).pixels  # type: ignore[attr-defined]
    measure = Measure(to_float(test, config.data.resolution), config.data.path, second_opinion=second_opinion)
    module = build_module(config)
    grid.parent.mkdir(parents=True, exist_ok=True)
    judgement = Judgement(moments, by, measure, grid)
    settings = {**config.trainer, "log_every_n_steps": 200}
    callbacks: list[Callback] = [judgement]
    if config.max_images is not None:
        callbacks.insert(0, StopAtImages(config.max_images))
    if config.lr_decay.start_images is not None:
        callbacks.append(
            LinearLRDecay(**config.lr_decay | {"end_images": config.lr_decay.end_images or config.max_images})
        )
    trainer = build_trainer(run_dir=grid.parent, callbacks=callbacks, loggers=[], **settings)
    trainer.fit(module, datamodule=data)
    return module, judgement.points, measure


def judged_data(config: Any) -> Any:
    """The data of a config, set up."""
    data = instantiate(config.data)
    data.setup()
    return data


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Where the data and VGG19's weights are, and on what to train."""
    shared = os.environ.get("TRANSFERGEN_SHARED", "../shared")
    parser.add_argument("--trainer", default="cpu", help="cpu or gpu; the measuring is on the CPU")
    parser.add_argument("--precision", default="bf16-mixed")
    parser.add_argument("--data", default=f"{shared}/data/cifar10")
    parser.add_argument("--vgg", default=f"{shared}/weights/vgg19_conv1_1-conv3_4.safetensors")


def common(args: argparse.Namespace, seed: int) -> list[str]:
    """Overrides of every measured training."""
    return [
        *COMMON,
        f"data.path={args.data}",
        f"seed={seed}",
        f"trainer={args.trainer}",
        f"trainer.precision={args.precision}",
        "trainer.max_epochs=-1",
        "logger=none",
    ]


def shown(overrides: Sequence[str], args: argparse.Namespace) -> list[str]:
    """Overrides as others can give them: without this machine's folders."""
    return [o.replace(args.vgg, Path(args.vgg).name) for o in overrides if not o.startswith("data.path")]


def side_by_side(grids: Sequence[Path], file: Path, columns: int = 5) -> None:
    """One picture of several of one size, in rows."""
    pictures = [Image.open(grid) for grid in grids]
    width, height = pictures[0].width + 8, pictures[0].height + 8
    rows = -(-len(pictures) // columns)
    sheet = Image.new("RGB", (min(columns, len(pictures)) * width - 8, rows * height - 8), "white")
    for i, picture in enumerate(pictures):
        sheet.paste(picture, (i % columns * width, i // columns * height))
    sheet.save(file)


def processor(trainer: str = "cpu") -> str:
    """What the GPU calls itself if the training is on one, or the CPU."""
    if trainer == "gpu":
        return torch.cuda.get_device_name()
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    return next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), platform.machine())
