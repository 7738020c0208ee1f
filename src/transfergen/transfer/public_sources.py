"""Trainings that start from files of other projects, or of this package, which tell the networks' sizes."""

from collections.abc import Collection, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from transfergen.config import check
from transfergen.networks.public.layout import PublicNetwork
from transfergen.networks.public.reading import Kind, PublicSource, find_source
from transfergen.networks.weights import WeightsError, download_from_hub
from transfergen.runs.artefacts import GENERATOR_METADATA, GENERATOR_WEIGHTS
from transfergen.runs.generator_files import BUILTIN, locate, read_metadata

KINDS: tuple[Kind, ...] = ("generator", "discriminator")


def public_source(kind: Kind, init_from: Mapping[str, Any]) -> PublicSource | None:
    """The other project's file of a network that `init_from` names; None if it names no such file.

    Raises:
        ValueError: there is no such layout, or it is a run or comes with this package, which have no layout.
    """
    given, layout = init_from[kind], init_from.get("layout")
    source = None if given is None else find_source(str(given), layout)
    theirs = source is not None and source.place == str(given)  # and no other layout is named
    if theirs and (str(given).startswith("builtin:") or Path(str(given)).expanduser().is_dir()):
        raise ValueError(
            f"init_from.{kind}={given}: is no file of {layout}; leave init_from={layout} out to start from it"
        )
    return source


def started_from(init_from: Mapping[str, Any], source: str | None = None) -> str | None:
    """Whose generator a new training starts from, and its licence, in words; None: nobody else's.

    What an own run or a model of the hub started from counts, too, so that a licence is not forgotten on the way.

    Args:
        init_from: the config node, whose generator has been read.
        source: the generator that is adapted to a new domain, in the forms of `load_pretrained`; None: none is.
    """
    given, setting, layout = init_from["generator"], "init_from.generator", init_from.get("layout")
    if given is None:
        given, setting, layout = source, "transfer.source", None
    if given is None:
        return None
    if public := find_source(str(given), layout):
        return public.origin(setting)
    folder = locate(given, setting)
    if on_hub := not folder.exists():
        with suppress(WeightsError):  # a model of others may have none
            folder = download_from_hub(given, [GENERATOR_METADATA], f"{setting}={given}")
    if folder.name == GENERATOR_WEIGHTS:
        folder = folder.parent
    words: str | None = None
    with suppress(ValueError):
        metadata = read_metadata(folder)
        words = metadata.get("origin") or metadata.get("started_from")
    if on_hub:
        return f"{given} of the Hugging Face hub{f', from {words}' if words else ''}"
    return words


def read_public(kind: Kind, init_from: Mapping[str, Any]) -> PublicNetwork | None:
    """A network that another project has published, ready to be trained; None: `init_from` names none.

    Raises:
        ValueError: it cannot be read.
    """
    source = public_source(kind, init_from)
    if source is None:
        return None
    options = {name: init_from.get(name, value) for name, value in source.training_options(kind).items()}
    return source.read(kind, f"init_from.{kind}", **options)


def follow_source(config: DictConfig, given: Collection[str]) -> None:
    """Give networks that start from a file of another project, or of this package, the class and the sizes in the file.

    A file's discriminator is the ordinary part of a discriminator that has one. The images get the generator's
    resolution. A generator with classes beside a discriminator that is not told of them gets one class for all
    pictures.

    Args:
        config: as composed; its nodes `generator`, `discriminator` and `data` are changed.
        given: dotted keys that the command line sets.

    Raises:
        ValueError: a file cannot be read, or the command line sets what contradicts it.
    """
    check(config.init_from)
    if all(config.init_from[kind] is None for kind in KINDS):
        for key in ("layout", "keys"):
            if value := config.init_from.get(key):
                raise ValueError(
                    f"init_from.{key}={value}: there is no file to read; set init_from.generator, and "
                    "init_from.discriminator where there is one, or leave init_from out"
                )
    for kind in KINDS:
        if public := read_public(kind, config.init_from):
            _follow(config, kind, public.config, given)
            theirs = public.config["resolution"]
            if theirs != config.data.resolution:  # a discriminator would take images of any size
                mend = f"set init_from.generator, too, or data.resolution={theirs}"
                if config.init_from.generator is not None:
                    mend = "give that of a generator for as many, or set init_from.discriminator=null"
                raise ValueError(
                    f"init_from.{kind}={config.init_from[kind]}: is for images of {theirs} pixels, and this run's have "
                    f"{config.data.resolution}; {mend}"
                )
    if "init_from.resolution" in given and config.init_from.resolution != config.data.resolution:
        raise ValueError(
            f"init_from.resolution={config.init_from.resolution}: init_from.generator={config.init_from.generator} is "
            f"for {config.data.resolution} pixels; leave it out"
        )
    folder = locate(config.init_from.generator or ".", "init_from.generator")
    if folder.parent == BUILTIN:
        _follow(config, "generator", read_metadata(folder)["generator"], given)
    if public_source("generator", config.init_from) and OmegaConf.is_interpolation(config.generator, "num_classes"):
        if config.data.num_classes == 0:
            raise ValueError(
                f"data.num_classes=0: init_from.generator={config.init_from.generator} has classes; set 1 for pictures "
                "that are one class"
            )
        told = (config.discriminator, config.discriminator.get("ordinary") or {})
        if "data.num_classes" not in given and all(network.get("num_classes", 0) == 0 for network in told):
            config.data.num_classes = 1


def _follow(config: DictConfig, kind: Kind, network: Mapping[str, Any], given: Collection[str]) -> None:
    """Set a network's config to a file's, a class as `_target_` and its arguments. What the file does not say stays."""
    node = f"{kind}.ordinary" if config[kind].get("ordinary") else kind
    source, target = f"init_from.{kind}={config.init_from[kind]}", network["_target_"]
    settings = {f"{node}.{name}": value for name, value in network.items() if name != "num_classes"}
    if kind == "generator":
        settings["data.resolution"] = network["resolution"]
    if OmegaConf.select(config, node).get("_target_") != target:
        if lost := [key for key in given if key == node or key.startswith(f"{node}.")]:
            raise ValueError(f"{lost[0]}: {source} is a {target.rpartition('.')[2]} of its own sizes; leave it out")
        fresh = {"aspect": "${data.aspect}", "image_channels": "${data.channels}"}
        OmegaConf.update(config, node, fresh, merge=False)
    for key, value in settings.items():
        if key in given and OmegaConf.select(config, key) != value:
            raise ValueError(f"{key}={OmegaConf.select(config, key)}: {source} has {value}; leave it out")
        OmegaConf.update(config, key, value, merge=False, force_add=True)
    if "num_classes" in network and f"{node}.num_classes" not in given:
        told = "${data.num_classes}" if network["num_classes"] else 0
        OmegaConf.update(config, f"{node}.num_classes", told, force_add=True)
