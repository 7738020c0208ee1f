"""Small trainings for tests: random VGG11 at 32 px on drawn shapes, seconds on one core."""

import contextlib
import io
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from unittest import mock

ROOT = Path(__file__).parents[1]

CACHE = Path(tempfile.gettempdir()) / "transfergen-tests"

CLASS_NAMES = ["a", "b", "c", "<d>", "e f", *"ghijk"]
"""Of ten classes."""

ANY_MODEL = [
    "trainer=cpu",
    "data=shapes",
    "data.source.train=64",
    "data.source.test=16",
    "data.resolution=32",
    "data.batch_size=8",
    "generator.width=8",
    "trainer.log_every_n_steps=1",
    "samples.count=4",
    "memory_report=false",
    f"data.cache_dir={CACHE}",
]
"""Whatever the model."""


def vgg11(node: str) -> list[str]:
    return [f"{node}.arch=vgg11", f"{node}.cut=relu3_1", f"{node}.weights=random", f"{node}.taps=[relu1_1,relu2_1]"]


SMALL = [*ANY_MODEL, "discriminator.width=8", "discriminator.hidden=16", *vgg11("backbone"), "augment=none"]
"""The reference model."""

SMALL_MODELS = {
    "dcgan": ["model=dcgan", "discriminator.width=8"],
    "wgan": ["model=wgan", "discriminator.width=8"],
    "wgan_gp": ["model=wgan_gp", "discriminator.width=4"],
    "sagan": ["model=sagan", "discriminator.width=4"],
    "biggan": ["model=biggan", "generator.z_dim=8", "generator.class_dim=4", "discriminator.width=4"],
    "vae": ["model=vae", "encoder.width=8"],
    "vae_gan": [
        "model=vae_gan",
        "encoder.width=8",
        "discriminator.width=8",
        *vgg11("backbone"),
    ],
    "projected": [
        "model=projected",
        "backbone=vgg19_multiscale",
        *vgg11("backbone"),
        "discriminator.channels=4",
        "discriminator.width=4",
    ],
    "vision_aided": [
        "model=vision_aided",
        "discriminator.start_images=0",
        "backbone@discriminator.backbones.efficientnet_lite0=vgg19_multiscale",
        *vgg11("discriminator.backbones.efficientnet_lite0"),
        "discriminator.backbones.efficientnet_lite0.taps=[relu1_1]",
        *vgg11("discriminator.backbones.vgg19"),
        "discriminator.ordinary.width=8",
        "discriminator.channels=4",
        "discriminator.width=4",
    ],
}
"""The others, each to go with ANY_MODEL."""


def command(run_dir, *overrides, script=ROOT / "train.py", env=None, timeout=300):
    """Run train.py, or another script, in a process of its own, as a user does."""
    arguments = [sys.executable, *(script if isinstance(script, list) else [str(script)])]
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
    """Run the training in this process, which is seconds faster: (exit code, stdout, stderr)."""
    from transfergen.commands.train import main

    directory = [f"hydra.run.dir={run_dir}"] if run_dir is not None else []
    arguments = [*directory, *(SMALL if small else []), *overrides]
    return called(main, *sorted(arguments, key=lambda argument: argument == "-m", reverse=True))


def called(main, *arguments):
    """Run a command's `main` in this process: (exit code, stdout, stderr)."""
    from hydra._internal.hydra import Hydra
    from hydra.core.global_hydra import GlobalHydra

    GlobalHydra.instance().clear()
    once = mock.patch.object(Hydra, "get_mode", return_value=None)  # composes all for `hydra.mode`, which nothing sets
    out, err = io.StringIO(), io.StringIO()
    argv = ["command", *map(str, arguments)]
    code = 0
    with once, mock.patch.object(sys, "argv", argv), contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            main()
        except SystemExit as stop:
            code = stop.code
    return code, out.getvalue(), err.getvalue()
