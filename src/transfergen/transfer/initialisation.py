"""Initial weights from a training run, a file of weights, or a model on the Hugging Face hub."""

import json
import logging
import re
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

from torch import Tensor, nn

from transfergen.errors import counted
from transfergen.image_shape import overrides
from transfergen.networks import weights
from transfergen.networks.backbones.base import Backbone
from transfergen.networks.class_mixtures import Label, numbered
from transfergen.networks.discriminators.base import Discriminator
from transfergen.networks.discriminators.vision_aided import VisionAidedDiscriminator
from transfergen.networks.generators.base import Generator
from transfergen.networks.public.reading import Kind
from transfergen.networks.weights import HUB_NAME, WEIGHT_FILES, WeightsError, download_from_hub, read_state_dict
from transfergen.runs import artefacts
from transfergen.runs.checkpoint import load, tensors_digest
from transfergen.runs.generator_files import locate, read_metadata, unseen_settings
from transfergen.runs.resume import KEY
from transfergen.transfer.copying import copy_weights, network_overrides, table_names
from transfergen.transfer.generator_weights import mix_classes
from transfergen.transfer.public_sources import KINDS, public_source, read_public

log = logging.getLogger(__name__)

Rule = Mapping[str, str]
"""`theirs`, a regular expression for a whole name, and `ours`, the new name, with \\1 for the first group."""


def initialise(
    generator: Generator,
    discriminator: Discriminator | None,
    init_from: Mapping[str, Any],
    *,
    settings: Mapping[str, Any] | None = None,
    mixture: bool = False,
) -> None:
    """Copy weights into the networks as the config node `init_from` says.

    Args:
        generator: gets weights if `init_from["generator"]` is set.
        discriminator: gets weights if `init_from["discriminator"]` is set, or its ordinary part does if the source has
            no other; None if the model has none.
        init_from: for each network a run directory, a file of weights or a name on the hub, or None; in `keys` the
            rules that rename their tensors; in `layout` the project that has published them, or None; and in `classes`
            those classes of the source that new ones start from, see `start_weights`.
        settings: the generator's class and arguments. Arguments in which its source differs, although all tensors
            have the same shapes, are logged. None: they are not compared.
        mixture: whether the generator's classes become mixtures of the source's, see `mix_classes`.

    Raises:
        ValueError: a source cannot be read, or none of its tensors fits; see `copy_weights`.
    """
    classes: Sequence[Label] = list(init_from.get("classes") or ())
    if init_from["generator"] is None:
        _refuse_classes(classes, mixture)
    for name, network in zip(KINDS, (generator, discriminator), strict=True):
        path, setting = init_from[name], f"init_from.{name}"
        if path is None:
            continue
        if network is None:
            raise ValueError(f"{setting}={path}: this model has no {name}; set {setting}=null")
        state, left_out, config, digest_of_left_out, names = _read(str(path), name, setting, init_from)
        if network is generator:
            classes = numbered(classes, names, owner="the source", setting="init_from.classes")
        channels = None if config is None else config.get("image_channels", 3)
        ours = network.image_channels
        if ours is not None and channels is not None and ours != channels:
            raise ValueError(
                f"{setting}={path}: it is for images of {counted(channels, 'channel')}, and this run's have {ours}; "
                f"set data.channels={channels}, or {setting}=null"
            )
        state = rename(state, init_from["keys"], setting)
        part = network
        if isinstance(network, VisionAidedDiscriminator) and not any(key.startswith("ordinary.") for key in state):
            part = network.ordinary  # the source has no heads on pretrained networks
        trunks = [(trunk, _digest(trunk)) for trunk in getattr(network, "backbones", ())]
        if classes and network is generator and not (tables := table_names(network)) & state.keys():
            without = f"{setting}={path}" if tables else "this generator"
            raise ValueError(f"init_from.classes={classes}: {without} has no classes; leave it out")
        copy_weights(state, part, f"{setting}={path}", left_out, classes, _overrides(config, network, name))
        _warn_of_other_trunk(part, left_out, digest_of_left_out, f"{setting}={path}")
        tells_all = public_source(name, init_from) is None  # other projects' files tell only some of the settings
        if network is generator and config and settings and tells_all:
            _log_unseen_settings(config, settings, f"{setting}={path}")
        if mixture and network is generator:
            mix_classes(generator, state, classes)
        for trunk, digest in trunks:  # a trunk that has trained is not in the file of its pretrained weights
            trunk.pretrained &= _digest(trunk) == digest


def _overrides(config: Mapping[str, Any] | None, network: nn.Module, name: Kind) -> str:
    """The overrides that build the source's network, or its ordinary part; nothing if the source does not say."""
    node = f"{name}.ordinary" if isinstance(network, VisionAidedDiscriminator) else name
    return network_overrides(config or {}, node)


def _refuse_classes(classes: Collection[Label], mixture: bool) -> None:
    """Refuse settings of the source's classes where no generator is a source."""
    if classes:
        raise ValueError(f"init_from.classes={classes}: there are no classes to start from; set init_from.generator")
    if mixture:
        raise ValueError(
            "transfer.new_classes=mixture: there are no classes to mix; set init_from.generator, or "
            "transfer.new_classes=mean"
        )


def rename(state: Mapping[str, Tensor], rules: Sequence[Rule], setting: str) -> dict[str, Tensor]:
    """Rename another project's tensors: each by the first rule whose `theirs` matches its whole name.

    Raises:
        ValueError: a rule is no regular expression, or lacks `theirs` or `ours`.
    """
    try:
        return weights.rename(state, [(rule["theirs"], rule["ours"]) for rule in rules])
    except (re.error, KeyError, IndexError) as error:
        raise ValueError(f"init_from.keys, applied to {setting}: {[*map(dict, rules)]}: {error!r}") from error


def check_same_images(source: Generator, generator: Generator, setting: str) -> None:
    """Check that two generators make images of the same shape.

    Raises:
        ValueError: they do not. The message begins with the `setting` that names the source.
    """
    theirs, ours = source.image_shape, generator.image_shape
    if theirs != ours:
        mend = overrides(theirs, ours)
        raise ValueError(f"{setting}: its images are {theirs}, and this run's are {ours}; set {mend}")


_PREFIX = "discriminator."
"""In a checkpoint, the names of the discriminator's tensors begin with this."""


class _Source(NamedTuple):
    """A network's tensors, as a file holds them."""

    state: dict[str, Tensor]
    """The tensors by their names."""
    left_out: Collection[str] = ()
    """Names of those that checkpoints leave out, since other files hold them."""
    config: Mapping[str, Any] | None = None
    """The network's class as `_target_` and its arguments; None: the file does not say."""
    digest_of_left_out: str = ""
    """SHA-256 of the tensors that were left out, see `leave_out`."""
    classes: Sequence[str] = ()
    """The names of a generator's classes; none: the file does not say."""


def _read(source: str, network: Kind, setting: str, init_from: Mapping[str, Any]) -> _Source:
    if public := read_public(network, init_from):
        return _Source(public.state, config=public.config, classes=public.classes)
    path = locate(source, setting)
    if path.is_dir():
        if network == "discriminator":
            if not (path / artefacts.LAST_CHECKPOINT).exists():
                raise ValueError(
                    f"{setting}={source}: there is no {artefacts.LAST_CHECKPOINT} in it, which holds the discriminator "
                    f"of a run; give the folder of a run, or set {setting}=null"
                )
            return _read_discriminator(path / artefacts.LAST_CHECKPOINT, setting)
        return _read_generator(path, setting)
    if path.exists() or path.suffix in WEIGHT_FILES:
        return _Source(read_state_dict(path, setting))
    if HUB_NAME.fullmatch(source):
        file = f"{network}.safetensors"
        folder = download_from_hub(source, [file], f"{setting}={source}")
        if network == "discriminator":
            return _Source(read_state_dict(folder / file, setting))
        with suppress(WeightsError):  # a model of others may have none
            folder = download_from_hub(source, [file, artefacts.GENERATOR_METADATA], f"{setting}={source}")
        return _read_generator(folder, setting)
    raise ValueError(f"{setting}={source}: there is no such folder or file, and this is no name of a model on the hub")


def _read_generator(folder: Path, setting: str) -> _Source:
    state = read_state_dict(folder / artefacts.GENERATOR_WEIGHTS, setting)
    if not (folder / artefacts.GENERATOR_METADATA).is_file():
        return _Source(state)
    metadata = read_metadata(folder, setting)
    return _Source(state, config=metadata["generator"], classes=metadata.get("classes", ()))


def _read_discriminator(checkpoint: Path, setting: str) -> _Source:
    given = f"{setting}={checkpoint.parents[1]}"
    content = load(checkpoint, setting=given)
    try:
        state, own = content["state_dict"], content[KEY]
        left_out, digest = own["left_out"]["names"], own["left_out"]["sha256"]
        config = own.get("config", {}).get("discriminator", {})
    except KeyError as error:
        raise ValueError(f"{given}: {checkpoint} was not written by transfergen: it has no {error}") from error
    tensors = {
        name.removeprefix(_PREFIX): value
        for name, value in state.items()
        if name.startswith(_PREFIX) and isinstance(value, Tensor)  # a module's extra state is no tensor
    }
    if not tensors:
        raise ValueError(f"{setting}={checkpoint}: the run has no discriminator; set {setting}=null")
    left_out = [name.removeprefix(_PREFIX) for name in left_out]
    return _Source(tensors, left_out, config.get("ordinary", config), digest)


def _warn_of_other_trunk(network: nn.Module, left_out: Collection[str], digest: str, source: str) -> None:
    """Warn if the trunk that both networks read from files is not the same here."""
    ours = network.state_dict()
    if not left_out or not ours.keys() >= set(left_out):  # of a trunk with other blocks, the digest tells nothing
        return
    if tensors_digest((f"{_PREFIX}{name}", ours[name]) for name in left_out) != digest:
        log.warning(
            f"{source}: the frozen trunk's weights are not those that the source was trained with; set the source's "
            "backbone settings to keep them"
        )


def _log_unseen_settings(theirs: Mapping[str, Any], ours: Mapping[str, Any], source: str) -> None:
    for name, value in unseen_settings(theirs, ours).items():
        there, here = (json.dumps(each, separators=(",", ":")) for each in (value, ours[name]))
        key = f"generator.{name}"
        log.warning(f"{source}: {key} is {there} in the source and {here} here; set {key}={there} to keep the source's")


def _digest(trunk: Backbone) -> str:
    return tensors_digest(iter(trunk.blocks.state_dict().items()))
