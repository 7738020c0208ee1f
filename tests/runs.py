"""Small trainings for tests: random VGG11 at 32 px on drawn shapes, seconds on one core."""

import contextlib
import io
import os
import subprocess
import sys
from pathlib import Path
from unittest import mock

ROOT = Path(__file__).parents[1]

SMALL = [
    "trainer=cpu",
    "data=shapes",
    "data.source.train=64",
    "data.source.test=16",
    "data.resolution=32",
    "data.batch_size=8",
    "generator.width=8",
    "discriminator.hidden=32",
    "backbone.arch=vgg11",
    "backbone.cut=relu3_2",
    "backbone.weights=random",
    "trainer.log_every_n_steps=1",
    "samples.count=4",
]


def command(run_dir, *overrides, script=ROOT / "train.py", env=None, timeout=300):
    """The command in a process of its own, as a user gives it."""
    arguments = [sys.executable, str(script)]
    if run_dir is not None:
        arguments.append(f"hydra.run.dir={run_dir}")
    return subprocess.run(
        [*arguments, *overrides],
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
        env=os.environ | {"OMP_NUM_THREADS": "1"} | (env or {}),
    )


def train(run_dir, *overrides, small=True):
    """The same within this process: exit code and what was printed. Seconds faster."""
    from hydra.core.global_hydra import GlobalHydra

    from transfergen.train import main

    GlobalHydra.instance().clear()
    out, err = io.StringIO(), io.StringIO()
    directory = [f"hydra.run.dir={run_dir}"] if run_dir is not None else []
    argv = ["train.py", *directory, *(SMALL if small else []), *overrides]
    argv.sort(key=lambda argument: argument == "-m", reverse=True)
    argv.sort(key=lambda argument: argument == "train.py", reverse=True)
    code = 0
    with mock.patch.object(sys, "argv", argv), contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            main()
        except SystemExit as stop:
            code = stop.code
    return code, out.getvalue(), err.getvalue()
