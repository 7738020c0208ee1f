"""The files of a run directory: their names, and how a file is written whole or not at all."""

import glob
import json
import os
import platform
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

CONFIG = "config.yaml"
"""The config with every interpolation resolved."""
COMPOSED = ".composed.yaml"
"""The config with its interpolations, and the model and experiment that were chosen: what a resumed run starts from."""
OVERRIDES, RESUMED_OVERRIDES = ".hydra/overrides.yaml", ".hydra/resumed/overrides.yaml"
"""The command line that began the run, and the one that last resumed it."""

CHECKPOINTS, LAST, PREVIOUS = "checkpoints", "last.ckpt", "previous.ckpt"
LAST_CHECKPOINT, BEST_CHECKPOINT = f"{CHECKPOINTS}/{LAST}", f"{CHECKPOINTS}/best.ckpt"

GENERATOR_WEIGHTS, GENERATOR_METADATA = "generator.safetensors", "generator.json"
BEST = "best"
"""Folder with the files of the best generator so far, and its metrics."""

METRICS = "metrics.json"
"""The metrics at the end of the training."""
EVALUATION, NEIGHBOURS = "evaluation.json", "neighbours.png"
"""What `transfergen evaluate` measured, and its picture of samples beside their nearest training images."""
DISTILLATION = "distillation.json"
CURVES = "csv/version_*/metrics.csv"
"""Scalars over images seen; every resumption begins a new version."""

GRID = "grid.png"
SAMPLES, RECONSTRUCTIONS, INTERPOLATIONS = "samples", "reconstructions", "interpolations"
"""Folders of grids, each named by the images seen when it was made."""
REPORT = "report.html"
LOCK = ".lock"
"""Names the process that works in a folder."""

TRIAL, SWEEP, SWEEP_PLOT = "trial.json", "sweep.json", "sweep.png"
"""The outcome of one trial of a sweep, in its run directory; and those of all, in the sweep's."""


@contextmanager
def partial(path: Path) -> Iterator[Path]:
    """A file beside `path`, to be written and then put in its place; removed if that did not happen.

    Raises:
        OSError: it cannot be written. The message names `path`.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        yield part
    except OSError as error:
        if error.errno is None or error.filename is not None:
            raise
        raise OSError(error.errno, error.strerror, str(path)) from error  # a full disk does not say where
    finally:
        part.unlink(missing_ok=True)


def write(path: Path, content: bytes) -> None:
    """Write a file, whole or not at all; its folder is made."""
    with partial(path) as part:
        part.write_bytes(content)
        part.replace(path)


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write indented JSON, whole or not at all."""
    write(path, (json.dumps(content, indent=2) + "\n").encode())


@contextmanager
def claim(path: Path, override: str) -> Iterator[None]:
    """A context in which no other process works in a folder, or on a file that is to be.

    What a killed process has left there in part is removed.

    Raises:
        ValueError: another process does. The message names it, and the `override`.
    """
    if path.is_dir():
        file, debris = path / LOCK, [*path.glob(".*.part"), *path.glob("*/.*.part")]
    else:
        file, debris = path.with_name(f".{path.name}{LOCK}"), [*path.parent.glob(f".{glob.escape(path.name)}.*.part")]
    lock = FileLock(file, timeout=0)
    try:
        lock.acquire()
    except Timeout:
        holder = file.read_text() or "another process"
        raise ValueError(f"{override}={path}: {holder} works there; wait for its end, or choose another") from None
    try:
        file.write_text(f"process {os.getpid()} on {platform.node()}")
        for part in debris:
            part.unlink(missing_ok=True)
        yield
    finally:
        file.unlink(missing_ok=True)
        lock.release()
