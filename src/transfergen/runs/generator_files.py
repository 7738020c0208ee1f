"""A trained generator on disk: its weights as safetensors, and beside them JSON that says how to build the network."""

import hashlib
import json
from collections.abc import Mapping
from importlib import import_module
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from safetensors.torch import save
from torch import Tensor

from transfergen.networks.generators.base import Generator
from transfergen.networks.weights import pick, read_state_dict
from transfergen.runs.artefacts import GENERATOR_METADATA, GENERATOR_WEIGHTS, write, write_json


def save_generator(folder: Path, generator: Generator, config: dict[str, Any], *, ema: bool, images_seen: int) -> None:
    """Write the weights and the metadata of a generator.

    Args:
        folder: is made if it does not exist.
        generator: on any device.
        config: its class as `_target_`, and the arguments that build it.
        ema: whether the weights are a moving average.
        images_seen: real images of its training.
    """
    tensors: dict[str, Tensor] = {name: t.detach().cpu().contiguous() for name, t in generator.state_dict().items()}
    content = save(tensors)
    metadata = {
        "transfergen": version("transfergen"),
        "generator": config,
        "ema": ema,
        "images_seen": images_seen,
        "sha256": hashlib.sha256(content).hexdigest(),
    }
    write(folder / GENERATOR_WEIGHTS, content)
    write_json(folder / GENERATOR_METADATA, metadata)


def read_metadata(folder: Path, override: str = "run") -> dict[str, Any]:
    """What `save_generator` wrote beside the weights: transfergen, generator, ema, images_seen and sha256.

    Raises:
        ValueError: there is none, or it is damaged. The message names the `override`.
    """
    if not folder.is_dir():
        raise ValueError(f"{override}={folder}: there is no such folder")
    path = folder / GENERATOR_METADATA
    if not path.is_file():
        raise ValueError(f"{override}={folder}: it holds no {path.name}; give a run that has saved its generator")
    try:
        metadata: dict[str, Any] = json.loads(path.read_text())
        _ = metadata["generator"]["_target_"], metadata["ema"], metadata["images_seen"], metadata["sha256"]
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{override}={folder}: {path.name} is damaged") from error
    return metadata


def load_generator(folder: Path, override: str = "run") -> Generator:
    """The generator of a run directory, frozen and in eval mode, on the CPU.

    Raises:
        ValueError: there is none, or its files are damaged or do not belong together. The message names the `override`.
    """
    metadata = read_metadata(folder, override)
    generator = build_generator(metadata["generator"])
    weights = folder / GENERATOR_WEIGHTS
    state = read_state_dict(weights, override)
    generator.load_state_dict(pick(state, generator.state_dict(), str(weights), override))
    if hashlib.sha256(weights.read_bytes()).hexdigest() != metadata["sha256"]:
        raise ValueError(f"{override}={folder}: {weights.name} is damaged: its SHA-256 is not that of its JSON")
    return generator.eval().requires_grad_(False)


def build_generator(config: Mapping[str, Any]) -> Generator:
    """A generator with fresh weights, from its class as `_target_` and its arguments.

    The config may come from anyone, so only generators of this package are built.

    Raises:
        ValueError: the target is not such a generator, or does not take these arguments.
    """
    target = str(config["_target_"])
    module, _, name = target.rpartition(".")
    kind = None
    if module.startswith("transfergen.networks.generators.") and find_spec(module):
        kind = getattr(import_module(module), name, None)
    if not (isinstance(kind, type) and issubclass(kind, Generator)):
        raise ValueError(f"_target_={target}: refused; it is no generator of transfergen")
    try:
        return kind(**{str(key): value for key, value in config.items() if key != "_target_"})
    except TypeError as error:
        raise ValueError(f"_target_={target}: {error}") from error
