"""The speed of a training alone and beside other processes, with a fixed number of threads and with the adapted one.

    python benchmarks/busy.py run
    python benchmarks/busy.py report

Beside each training, loops that do nothing but compute come and go, one for each core. The training with
`trainer.threads` at the number of cores and that with `auto` take turns. Seconds just after a change do not count.
"""

import argparse
import csv
import statistics
import subprocess
import sys
import time
from collections.abc import Iterable

import torch
from harness import ROOT, Result, Results, command, markdown, positive, processor
from train_command import NEVER, Training

from transfergen.devices import usable_cores

LOOP = [sys.executable, "-c", "while True: pass"]
STEPS_ONLY = [
    "max_images=null",
    "lr_decay.start_images=null",
    f"samples.every_images={NEVER}",
    f"checkpoint_every_images={NEVER}",
    "trainer.log_every_n_steps=1",
]
"""A training that goes on and does nothing else."""


def images(training: Training) -> int:
    """Real images that a training has seen, by its curves."""
    if training.process.poll() is not None:
        raise SystemExit(f"the training has ended: {training.errors()}")
    if not training.curves.exists():
        return 0
    with training.curves.open() as curves:
        return max((int(row["step"]) for row in csv.DictReader(curves) if row["step"]), default=0)


def speed(training: Training, args: argparse.Namespace) -> float:
    """Images a second in the seconds after those that do not count."""
    time.sleep(args.settle)
    began, before = time.perf_counter(), images(training)
    time.sleep(args.seconds)
    return (images(training) - before) / (time.perf_counter() - began)


def speeds(threads: int | str, cores: int, args: argparse.Namespace) -> tuple[list[float], list[float]]:
    """Images a second of one training, alone and beside the loops."""
    training = Training(ROOT, [*args.overrides, *STEPS_ONLY, f"trainer.threads={threads}"])
    alone, beside = [], []
    try:
        while not images(training):
            time.sleep(0.1)
        for _ in range(args.changes):
            alone.append(speed(training, args))
            loops = [subprocess.Popen(LOOP) for _ in range(cores)]
            try:
                beside.append(speed(training, args))
            finally:
                for loop in loops:
                    loop.kill()
                    loop.wait()
    finally:
        training.process.kill()
        training.errors()
    return alone, beside


def run(args: argparse.Namespace, results: Results) -> None:
    """Measure each number of threads in turns."""
    cores = len(usable_cores())
    found: dict[int | str, tuple[list[float], list[float]]] = {cores: ([], []), "auto": ([], [])}
    for _ in range(args.rounds):
        for threads, both in found.items():
            for kept, new in zip(both, speeds(threads, cores, args), strict=True):
                kept.extend(new)
    quiet = statistics.median(found[cores][0])
    for threads, both in found.items():
        alone, beside = map(statistics.median, both)
        result = {"name": f"{' '.join(args.overrides)}, threads={threads}", "machine": processor(), "cores": cores}
        result |= {"alone": round(alone, 1), "beside": round(beside, 1), "measured": len(both[0])}
        result |= {"alone_ratio": round(alone / quiet, 3), "beside_ratio": round(beside / quiet, 3)}
        results.add(result | {"torch": torch.__version__})
    print(table(results.load()))


def table(results: Iterable[Result]) -> str:
    """A row for each number of threads; ratios are to the fixed number, alone."""
    titles = {"name": "training", "machine": "machine", "cores": "cores", "alone": "alone, images/s"}
    titles |= {"beside": "beside a loop a core", "alone_ratio": "ratio alone", "beside_ratio": "ratio beside"}
    return markdown([[str(result[key]) for key in titles] for result in results], list(titles.values()))


def options(parser: argparse.ArgumentParser) -> None:
    """Options: which training, and how long it is measured."""
    parser.add_argument("--overrides", nargs="+", default=["experiment=quickstart"], help="of train.py")
    parser.add_argument("--rounds", type=positive(int), default=2, help="trainings with each number of threads")
    parser.add_argument("--changes", type=positive(int), default=2, help="times that the loops come, in each training")
    parser.add_argument("--seconds", type=positive(float), default=8.0, help="of a measurement")
    parser.add_argument("--settle", type=float, default=4.0, help="seconds after a change that do not count")


if __name__ == "__main__":
    command(__doc__, run=run, report=lambda everything, _: print(table(everything)), options=options)
