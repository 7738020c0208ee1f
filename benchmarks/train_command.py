"""The command that trains: its start, its steps, and its checkpoints.

    python benchmarks/train_command.py run start
    python benchmarks/train_command.py run start step --beside ../before
    python benchmarks/train_command.py run checkpoint --overrides model=vgg_disc data=shapes backbone.weights=random
    python benchmarks/train_command.py report

- `start`: until the first step has been taken. With `--beside`, of another checkout of the project, such as `git
  worktree add ../before HEAD~1` makes; otherwise of a process that imports the libraries and does nothing else.
- `step`: an image in the steps after that, here and in the other checkout.
- `checkpoint`: the training between two checkpoints, beside one of them.
- `option`: an image in the steps, with and without the override `--option`, such as transfer.cache_mib=0.

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
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from harness import ROOT, Comparison, positive, speed_command, timed
from judgement import compose_config

LIBRARIES = "import datasets, hydra, lightning, rich, timm, torch, torchvision"
NEVER = 10**9


class Training:
    """A training by a checkout's train.py, in a process of its own."""

    def __init__(self, checkout: Path, overrides: list[str]) -> None:
        self.folder = tempfile.TemporaryDirectory()
        self.curves = Path(self.folder.name) / "csv" / "version_0" / "metrics.csv"
        self.process = subprocess.Popen(
            [sys.executable, str(checkout / "train.py"), f"hydra.run.dir={self.folder.name}", *overrides],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            env=os.environ | {"PYTHONPATH": str(checkout / "src")},
        )

    def errors(self) -> str:
        """Wait for its end: what it wrote to stderr."""
        return self.process.communicate()[1].strip()


def start(checkout: Path, overrides: list[str]) -> float:
    """Seconds until the first row of the curves is written, after the first step."""
    began = time.perf_counter()
    training = Training(checkout, overrides)
    while not training.curves.exists():
        if training.process.poll() is not None:
            raise SystemExit(f"{checkout}: no step was taken: {training.errors()}")
        time.sleep(0.01)
    seconds = time.perf_counter() - began
    training.process.kill()
    training.errors()
    return seconds


def step(checkout: Path, args: argparse.Namespace, *own: str, checkpoint_every: int = NEVER) -> float:
    """Seconds for an image: the median over the rows of the curves, without the first two."""
    quiet = [f"samples.every_images={NEVER}", f"checkpoint_every_images={checkpoint_every}", "evaluation.count=16"]
    short = [f"trainer.log_every_n_steps={args.log_every}", f"max_images={args.images}"]
    training = Training(checkout, [*args.overrides, *own, *quiet, *short])
    errors = training.errors()
    if training.process.returncode:
        raise SystemExit(f"{checkout}: {errors}")
    with training.curves.open() as curves:
        speeds = [float(row["images_per_second"]) for row in csv.DictReader(curves) if row["images_per_second"]]
    return 1 / statistics.median(speeds[2:])


def checkpoint(args: argparse.Namespace, interval: int) -> float:
    """Seconds of a checkpoint: how much longer the rows take if each has one."""
    return interval * (step(ROOT, args, checkpoint_every=interval) - step(ROOT, args))


def comparisons(args: argparse.Namespace) -> Iterator[Comparison]:
    """The comparisons that were asked for."""
    name, other = " ".join(args.overrides), args.beside and args.beside.resolve()
    here = partial(step, ROOT, args)
    if "start" in args.kinds:
        imports = timed(lambda: subprocess.run([sys.executable, "-c", LIBRARIES], check=True))
        baseline = partial(start, other, args.overrides) if other else imports
        yield Comparison(f"start of {name}", baseline, partial(start, ROOT, args.overrides))
    if "step" in args.kinds and other:
        yield Comparison(f"image in {name}", partial(step, other, args), here, images=1)
    if "checkpoint" in args.kinds:
        config = compose_config(args.overrides)
        every = config.checkpoint_every_images
        saving = partial(checkpoint, args, args.log_every * config.data.batch_size)
        yield Comparison(f"{every:,} images of {name}, beside a checkpoint", lambda: every * here(), saving)
    if "option" in args.kinds:
        yield Comparison(
            f"image in {name}, beside {args.option}", partial(step, ROOT, args, args.option), here, images=1
        )


def options(parser: argparse.ArgumentParser) -> None:
    """Options: what is measured, and of which training."""
    parser.add_argument("kinds", nargs="*", default=["start", "step"], help="start, step, checkpoint, option")
    parser.add_argument("--beside", type=Path, help="another checkout of the project")
    parser.add_argument("--overrides", nargs="+", default=["experiment=quickstart"], help="of train.py")
    parser.add_argument("--option", help="an override that the baseline has, too")
    parser.add_argument(
        "--images", type=positive(int), default=5_000, help="real images of the training that times the steps"
    )
    parser.add_argument("--log-every", type=positive(int), default=5, help="steps in a row of the curves")


if __name__ == "__main__":
    speed_command(__doc__, comparisons, options=options, rounds=3)
