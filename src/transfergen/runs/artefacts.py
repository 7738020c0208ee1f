"""The files of a run directory: their names, and how a file is written whole or not at all."""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

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

TRIAL, SWEEP, SWEEP_PLOT = "trial.json", "sweep.json", "sweep.png"
"""The outcome of one trial of a sweep, in its run directory; and those of all, in the sweep's."""


def write(path: Path, content: bytes) -> None:
    """Write a file, whole or not at all; its folder is made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}.part")
    partial.write_bytes(content)
    partial.replace(path)


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write indented JSON, whole or not at all."""
    write(path, (json.dumps(content, indent=2) + "\n").encode())
