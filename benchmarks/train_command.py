"""The command that trains: its start, a step, and a checkpoint.

    python benchmarks/train_command.py run start
    python benchmarks/train_command.py run start step --beside ../before
    python benchmarks/train_command.py run checkpoint --overrides model=vgg_disc data=shapes backbone.weights=random
    python benchmarks/train_command.py report

- `start`: seconds until the first step has been taken. With `--beside`, of another checkout of the project, such as
  `git worktree add ../before HEAD~1` makes; otherwise of a process that imports the libraries and does nothing else.
- `step`: time of an image in the steps after that, here and in the other checkout.
- `checkpoint`: time of a checkpoint, beside the training between two of them.

Each measurement is a process of its own.
"""

import argparse
import csv
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

from harness import ROOT, Comparison, speed_command, timed
from judgement import compose_config

LIBRARIES = "import datasets, hydra, lightning, rich, timm, torch, torchvision"
LOG_EVERY = 5
"""Steps between two rows of the curves."""
NEVER = 1_000_000_000


def start(checkout: Path, overrides: list[str]) -> float:
    """Seconds until the first row of the curves is written, after the first step."""
    with tempfile.TemporaryDirectory() as folder:
        began = time.perf_counter()
        process = _train(checkout, overrides, folder)
        curves = Path(folder) / "csv" / "version_0" / "metrics.csv"
        while not curves.exists():
            if process.poll() is not None:
                raise SystemExit(f"{checkout}: no step was taken: {process.communicate()[1].strip()}")
            time.sleep(0.01)
        seconds = time.perf_counter() - began
        process.kill()
        process.communicate()
        return seconds


def step(checkout: Path, overrides: list[str], images: int, *, checkpoint_every: int = NEVER) -> float:
    """Seconds for an image: the median over a short training, without its first rows of curves."""
    with tempfile.TemporaryDirectory() as folder:
        short = [f"trainer.log_every_n_steps={LOG_EVERY}", f"max_images={images}", "evaluation.count=16"]
        process = _train(checkout, [*overrides, *short], folder, checkpoint_every)
        errors = process.communicate()[1]
        if process.returncode:
            raise SystemExit(f"{checkout}: {errors.strip()}")
        with (Path(folder) / "csv" / "version_0" / "metrics.csv").open() as curves:
            speeds = [float(row["images_per_second"]) for row in csv.DictReader(curves) if row["images_per_second"]]
        return 1 / statistics.median(speeds[2:])


def checkpoint(overrides: list[str], images: int) -> float:
    """Seconds of a checkpoint: what a step takes longer if each row of the curves has one."""
    config = compose_config(overrides)
    row = LOG_EVERY * config.data.batch_size
    with_them, without = (step(ROOT, overrides, images, checkpoint_every=every) for every in (row, NEVER))
    return row * (with_them - without)


def _train(checkout: Path, overrides: list[str], folder: str, checkpoint_every: int = NEVER) -> subprocess.Popen[str]:
    command = [sys.executable, str(checkout / "train.py"), *overrides, f"hydra.run.dir={folder}"]
    environment = os.environ | {"PYTHONPATH": str(checkout / "src")}
    quiet = [f"samples.every_images={NEVER}", f"checkpoint_every_images={checkpoint_every}"]
    return subprocess.Popen(
        [*command, *quiet], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, env=environment
    )


def comparisons(args: argparse.Namespace) -> Iterator[Comparison]:
    """What was asked for."""
    name = " ".join(args.overrides)
    other = args.beside and args.beside.resolve()
    if "start" in args.kinds:
        imports = timed(lambda: subprocess.run([sys.executable, "-c", LIBRARIES], check=True))
        baseline = partial(start, other, args.overrides) if other else imports
        yield Comparison(f"start of {name}", baseline, partial(start, ROOT, args.overrides))
    here = partial(step, ROOT, args.overrides, args.images)
    if "step" in args.kinds and other:
        yield Comparison(f"step of {name}, an image", partial(step, other, args.overrides, args.images), here, images=1)
    if "checkpoint" in args.kinds:
        interval = compose_config(args.overrides).checkpoint_every_images
        training = partial(_times, interval, here)
        own = partial(checkpoint, args.overrides, args.images)
        yield Comparison(f"checkpoint of {name}, beside {interval:,} images", training, own)


def _times(factor: int, measure: Callable[[], float]) -> float:
    return factor * measure()


def options(parser: argparse.ArgumentParser) -> None:
    """What to measure, of which training."""
    parser.add_argument("kinds", nargs="*", default=["start", "step"], help="start, step, checkpoint")
    parser.add_argument("--beside", type=Path, help="another checkout of the project")
    parser.add_argument("--overrides", nargs="+", default=["experiment=quickstart"], help="of train.py")
    parser.add_argument("--images", type=int, default=5_000, help="real images of the training that times the steps")


if __name__ == "__main__":
    speed_command(__doc__, comparisons, options=options, rounds=3)
