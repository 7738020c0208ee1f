"""What a run leaves behind, and how it is read again: plain YAML, JSON, PNG and safetensors."""

import json
import os
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

from safetensors.torch import save
from torch import Tensor

from transfergen.backbones.weights import pick, read_state_dict
from transfergen.config import instantiate
from transfergen.generators.base import Generator

CONFIG = "config.yaml"
COMPOSED = ".composed.yaml"
LAST_CHECKPOINT = "checkpoints/last.ckpt"
GENERATOR = "generator"
METRICS = "metrics.json"
GRID = "grid.png"


def write(path: Path, content: bytes) -> None:
    """Write a file whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}.part")
    partial.write_bytes(content)
    partial.replace(path)


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write indented JSON, whole or not at all."""
    write(path, (json.dumps(content, indent=2) + "\n").encode())


def save_generator(run_dir: Path, generator: Generator, config: dict[str, Any], *, ema: bool, images_seen: int) -> None:
    """generator.safetensors and, beside it, generator.json with what is needed to build the network again."""
    tensors: dict[str, Tensor] = {name: t.detach().cpu().contiguous() for name, t in generator.state_dict().items()}
    write(run_dir / f"{GENERATOR}.safetensors", save(tensors))
    about = {"transfergen": version("transfergen"), "generator": config, "ema": ema, "images_seen": images_seen}
    write_json(run_dir / f"{GENERATOR}.json", about)


def load_generator(run_dir: Path, override: str = "run") -> Generator:
    """The run's generator, frozen and in eval mode, on the CPU.

    Raises:
        ValueError: no such run, or its files are damaged or do not belong together. Names the `override`.
    """
    if not run_dir.is_dir():
        raise ValueError(f"{override}={run_dir}: there is no such folder")
    about = run_dir / f"{GENERATOR}.json"
    if not about.is_file():
        raise ValueError(
            f"{override}={run_dir}: no {about.name} in it: not a run of transfergen, or it saved nothing yet"
        )
    try:
        config = json.loads(about.read_text())["generator"]
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{override}={run_dir}: {about.name} is damaged") from error
    generator: Generator = instantiate(config)
    weights = run_dir / f"{GENERATOR}.safetensors"
    state = read_state_dict(weights, override)
    generator.load_state_dict(pick(state, generator.state_dict(), str(weights), override))
    generator.eval().requires_grad_(False)
    return generator
