"""What a run leaves behind, and how it is read again: plain YAML, JSON, PNG and safetensors."""

import hashlib
import json
import os
from collections.abc import Mapping
from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from typing import Any

from safetensors.torch import save
from torch import Tensor

from transfergen.networks.generators.base import Generator
from transfergen.networks.weights import pick, read_state_dict

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


def save_generator(folder: Path, generator: Generator, config: dict[str, Any], *, ema: bool, images_seen: int) -> None:
    """generator.safetensors and, beside it, generator.json with its SHA-256 and what builds the network again."""
    tensors: dict[str, Tensor] = {name: t.detach().cpu().contiguous() for name, t in generator.state_dict().items()}
    content = save(tensors)
    about = {
        "transfergen": version("transfergen"),
        "generator": config,
        "ema": ema,
        "images_seen": images_seen,
        "sha256": hashlib.sha256(content).hexdigest(),
    }
    write(folder / f"{GENERATOR}.safetensors", content)
    write_json(folder / f"{GENERATOR}.json", about)


def read_about(folder: Path, override: str = "run") -> dict[str, Any]:
    """What generator.json says.

    Raises:
        ValueError: there is none, or it is damaged. Names the `override`.
    """
    if not folder.is_dir():
        raise ValueError(f"{override}={folder}: there is no such folder")
    path = folder / f"{GENERATOR}.json"
    if not path.is_file():
        raise ValueError(
            f"{override}={folder}: no {path.name} in it: not a run of transfergen, or it saved nothing yet"
        )
    try:
        about = json.loads(path.read_text())
        about["generator"]["_target_"]
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{override}={folder}: {path.name} is damaged") from error
    return dict(about)


def load_generator(folder: Path, override: str = "run") -> Generator:
    """The run's generator, frozen and in eval mode, on the CPU.

    Raises:
        ValueError: no such run, or its files are damaged or do not belong together. Names the `override`.
    """
    about = read_about(folder, override)
    generator = build(about["generator"])
    weights = folder / f"{GENERATOR}.safetensors"
    state = read_state_dict(weights, override)
    generator.load_state_dict(pick(state, generator.state_dict(), str(weights), override))
    if "sha256" in about and hashlib.sha256(weights.read_bytes()).hexdigest() != about["sha256"]:
        raise ValueError(f"{override}={folder}: {weights.name} is damaged: its SHA-256 is not that of {GENERATOR}.json")
    generator.eval().requires_grad_(False)
    return generator


def build(config: Mapping[str, Any]) -> Generator:
    """The generator that a config with `_target_` describes, which may be somebody else's, with fresh weights.

    Raises:
        ValueError: its target is not a generator of this package, or does not take these arguments.
    """
    target = str(config["_target_"])
    module, _, name = target.rpartition(".")
    kind = getattr(import_module(module), name, None) if module.startswith("transfergen.networks.generators.") else None
    if not (isinstance(kind, type) and issubclass(kind, Generator)):
        raise ValueError(f"_target_={target}: refused; it is no generator of transfergen")
    try:
        return kind(**{str(key): value for key, value in config.items() if key != "_target_"})
    except TypeError as error:
        raise ValueError(f"_target_={target}: {error}") from error
