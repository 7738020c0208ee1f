"""A trained generator on disk: its weights as safetensors, and beside them JSON that says how to build the network."""

import hashlib
import json
import logging
import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from importlib.metadata import version
from inspect import signature
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save

from transfergen.digest import file_sha256
from transfergen.errors import first_line
from transfergen.networks.generators.base import Generator
from transfergen.networks.layers.reparametrization import plain_state_dict
from transfergen.networks.public.reading import LAYOUTS, PublicSource, find_source
from transfergen.networks.shapes import shapes_only
from transfergen.networks.weights import HUB_NAME, download_from_hub, pick, read_state_dict
from transfergen.runs.artefacts import GENERATOR_METADATA, GENERATOR_WEIGHTS, check_folder, write, write_json
from transfergen.targets import get_target

log = logging.getLogger(__name__)

BUILTIN = Path(__file__).parents[1] / "builtin"
"""Where the generators are that come with this package, each in a folder of its name."""
_OR_LAYOUTS = f", or a file of another project as {' or '.join(f'{layout}:FILE' for layout in LAYOUTS)}"


def save_generator(
    folder: Path,
    generator: Generator,
    config: dict[str, Any],
    *,
    ema: bool,
    images_seen: int,
    classes: Sequence[str] = (),
    origin: str | None = None,
    started_from: str | None = None,
) -> None:
    """Write the weights and the metadata of a generator.

    Args:
        folder: is made if it does not exist.
        generator: on any device.
        config: its class as `_target_`, and the arguments that build it.
        ema: whether the weights are a moving average.
        images_seen: real images of its training; 0 if it was not trained here.
        classes: names of its classes, in order; none: they have no names.
        origin: where it was trained, and its licence, in words; None: here.
        started_from: the same of the generator that its training here started from; None: nobody else's.
    """
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in plain_state_dict(generator).items()}
    content = save(tensors)
    metadata = {
        "transfergen": version("transfergen"),
        "generator": config,
        "ema": ema,
        "images_seen": images_seen,
        "sha256": hashlib.sha256(content).hexdigest(),
    }
    about = {"classes": list(classes), "origin": origin, "started_from": started_from}
    metadata |= {key: value for key, value in about.items() if value}
    write(folder / GENERATOR_WEIGHTS, content)
    write_json(folder / GENERATOR_METADATA, metadata)


def save_copy(folder: Path, generator: Generator, metadata: Mapping[str, Any]) -> None:
    """Write a generator that was loaded, with what `read_metadata` said of it."""
    said = {"ema", "images_seen", "classes", "origin", "started_from"} & metadata.keys()
    save_generator(folder, generator, metadata["generator"], **{key: metadata[key] for key in said})


def read_metadata(folder: Path, override: str = "run") -> dict[str, Any]:
    """The metadata that `save_generator` wrote: transfergen, generator, ema, images_seen, sha256.

    There may be classes, origin and started_from, too.

    Raises:
        ValueError: there is none, or it is damaged. The message names the `override`.
    """
    check_folder(folder, override)
    path = folder / GENERATOR_METADATA
    if not path.is_file():
        raise ValueError(f"{override}={folder}: it holds no {path.name}; give a run that has saved its generator")
    try:
        metadata: dict[str, Any] = json.loads(path.read_text())
        kinds = {"generator": dict, "ema": bool, "images_seen": int, "sha256": str}
        if wrong := [key for key, kind in kinds.items() if not isinstance(metadata[key], kind)]:
            raise TypeError(wrong[0])
        _ = metadata["generator"]["_target_"]
        names = metadata.get("classes", [])
        if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
            raise TypeError("classes")
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise ValueError(f"{override}={folder}: {path.name} is damaged") from error
    return metadata


def locate(given: str | Path, override: str) -> Path:
    """The folder or file that is given; `builtin:NAME` is a generator that comes with this package.

    Raises:
        ValueError: none of that name comes with it. The message names the `override`.
    """
    prefix, colon, name = str(given).partition(":")
    if not colon or prefix != "builtin":
        return Path(given).expanduser()
    names = sorted(folder.name for folder in BUILTIN.iterdir())
    if name not in names:
        raise ValueError(f"{override}={given}: choose one of {', '.join(f'builtin:{each}' for each in names)}")
    return BUILTIN / name


def load_pretrained(
    given: str | Path, override: str = "pretrained_model_name_or_path", **options: Any
) -> tuple[Generator, dict[str, Any], Path]:
    """A generator from a run directory, its weights, this package, another project's file, or the Hugging Face hub.

    Args:
        given: a folder or file, `builtin:NAME`, LAYOUT:FILE, or, as a str and not as a Path, OWNER/MODEL.
        override: what it was given as, which error messages begin with; that is in Python the argument of
            `Generator.from_pretrained`, and on a command line a setting.
        options: of the download, such as `revision` or `token`.

    Returns:
        The generator, frozen and in eval mode, on the CPU; what `read_metadata` gives; the folder of its files.

    Raises:
        ValueError: it does not exist, or its files are damaged.
    """
    if isinstance(given, str) and (source := find_source(given)):
        return *_load_public(source, override), source.file(override).parent
    folder = locate(given, override)
    if folder.suffix == ".safetensors" or folder.is_file():
        if folder.name != GENERATOR_WEIGHTS or not folder.is_file():
            what = "cannot be loaded" if folder.is_file() else "there is no such file"
            raise ValueError(f"{override}={given}: {what}; give a run, or its {GENERATOR_WEIGHTS}{_OR_LAYOUTS}")
        folder = folder.parent
    elif isinstance(given, str) and not folder.exists() and HUB_NAME.fullmatch(given):
        folder = download_from_hub(given, (GENERATOR_METADATA, GENERATOR_WEIGHTS), f"{override}={given}", **options)
    elif re.match(r"\w{2,}:", str(given)) and not folder.exists():  # and no drive of Windows
        raise ValueError(f"{override}={given}: there is no such folder; give a run, or builtin:NAME{_OR_LAYOUTS}")
    return load_generator(folder, override), read_metadata(folder, override), folder


def _load_public(source: PublicSource, override: str) -> tuple[Generator, dict[str, Any]]:
    public = source.read("generator", override)
    generator = build_generator(public.config)
    wanted = generator.state_dict()
    generator.load_state_dict(pick(public.state, wanted, source.place, override))
    if unused := [name for name in public.state if name not in wanted]:
        log.warning(f"{override}={source.place}: without a use here: {', '.join(unused)}")
    metadata = {
        "transfergen": version("transfergen"),
        "generator": public.config,
        "ema": False,  # the files do not say
        "images_seen": 0,
        "sha256": source.digest(override),
        "origin": source.origin(override),
    }
    if public.classes:
        metadata["classes"] = public.classes
    return generator.eval().requires_grad_(False), metadata


def load_generator(folder: Path, override: str = "run") -> Generator:
    """The generator of a run directory, frozen and in eval mode, on the CPU.

    Raises:
        ValueError: there is none, or its files are damaged or do not belong together. The message names the `override`.
    """
    metadata = read_metadata(folder, override)
    weights = folder / GENERATOR_WEIGHTS
    try:
        with shapes_only():  # its sizes may be absurd
            wanted = build_generator(metadata["generator"]).state_dict()
    except ValueError as error:
        raise ValueError(f"{override}={folder}: {GENERATOR_METADATA}: {error}") from error
    tensors = pick(read_state_dict(weights, override), wanted, str(weights), override)
    generator = build_generator(metadata["generator"])
    generator.load_state_dict(tensors)
    if len(metadata.get("classes", [])) not in (0, generator.num_classes):
        raise ValueError(f"{override}={folder}: {GENERATOR_METADATA} is damaged: it does not name each class once")
    if file_sha256(weights) != metadata["sha256"]:
        raise ValueError(f"{override}={folder}: {weights.name} is damaged: its SHA-256 is not that of its JSON")
    return generator.eval().requires_grad_(False)


def unseen_settings(theirs: Mapping[str, Any], ours: Mapping[str, Any]) -> dict[str, Any]:
    """The settings in which two generators of one class differ, although their tensors have the same names and shapes.

    Args:
        theirs: a class as `_target_`, and the arguments that build it. One that is missing has the class's default.
        ours: the same of the other generator.

    Returns:
        Each argument with its value in `theirs`. Where the classes differ, there are none.
    """

    def shapes(config: Mapping[str, Any]) -> dict[str, torch.Size]:
        with shapes_only():
            return {name: tensor.shape for name, tensor in build_generator(config).state_dict().items()}

    if theirs["_target_"] != ours["_target_"]:
        return {}
    defaults = {name: each.default for name, each in signature(get_target(theirs["_target_"])).parameters.items()}
    defaults = {name: list(value) if isinstance(value, tuple) else value for name, value in defaults.items()}
    theirs = defaults | dict(theirs)
    differing = {name: theirs[name] for name in ours if name in theirs and theirs[name] != ours[name]}
    expected, unseen = shapes(ours) if differing else {}, {}
    for name, value in differing.items():
        with suppress(ValueError):  # with our other settings this value builds no network
            if shapes({**ours, name: value}) == expected:
                unseen[name] = value
    return unseen


def build_generator(config: Mapping[str, Any]) -> Generator:
    """A generator with fresh weights, from its class as `_target_` and its arguments.

    Raises:
        ValueError: the target is not trusted or no generator, or does not take these arguments.
    """
    kind = get_target(config["_target_"])
    if not (isinstance(kind, type) and issubclass(kind, Generator)):
        raise ValueError(f"_target_={config['_target_']}: refused; it is no generator")
    try:
        return kind(**{str(key): value for key, value in config.items() if key != "_target_"})
    except Exception as error:  # whatever arguments of wrong types and sizes provoke
        raise ValueError(f"{kind.__name__} cannot be built from these arguments ({first_line(error)})") from error
