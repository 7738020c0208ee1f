"""Checks that the parts of a training go together."""

import logging
from collections.abc import Mapping
from inspect import signature
from typing import Any

from transfergen.errors import counted
from transfergen.image_shape import ImageShape, overrides
from transfergen.losses.adversarial import Objective
from transfergen.networks.discriminators.base import Discriminator
from transfergen.networks.generators.base import Generator
from transfergen.networks.layers.truncation_norm import TruncationBatchNorm2d
from transfergen.settings import hints
from transfergen.targets import get_target
from transfergen.training.augmentation import AdaptiveAugmentation, Augmentation
from transfergen.transfer.strategy import Strategy

log = logging.getLogger(__name__)


def check_shape(shape: ImageShape, networks: Mapping[str, Any]) -> None:
    """Refuse networks that are made for squares, or for three channels, where the images have another shape.

    Args:
        shape: of the images.
        networks: their configs by the name of their group; `{}` for one that there is not.

    Raises:
        ValueError: names the setting of the data.
    """
    for group, config in networks.items():
        if "_target_" not in config:
            continue
        kind = get_target(config["_target_"])
        takes = hints(kind).keys()
        if "resolution" not in takes:
            continue
        choose = f"or choose another {group}"
        if not shape.is_square and "aspect" not in takes:
            raise ValueError(f"data.aspect: {kind.__name__} is for squares only; set data.aspect=[1,1], {choose}")
        if shape.channels != 3 and not takes & {"image_channels", "backbone", "backbones"}:
            raise ValueError(
                f"data.channels={shape.channels}: {kind.__name__} is for 3 channels only; set data.channels=3, {choose}"
            )


def check_generator_shape(generator: Generator, shape: ImageShape) -> None:
    """Refuse a generator of other images than the data have.

    Raises:
        ValueError: names the settings of both.
    """
    if generator.image_shape != shape:
        raise ValueError(
            f"images are {shape} and the generator makes {generator.image_shape}; set "
            f"{overrides(generator.image_shape, shape)}, or generator.resolution, generator.aspect and "
            "generator.image_channels as the data have them"
        )


def check_game(
    generator: Generator,
    discriminator: Any,
    objective: Objective,
    augment: Augmentation,
    transfer: Strategy,
    d_steps: int,
    simultaneous: bool,
) -> None:
    """Refuse a combination that makes no sense; warn of a setting that changes nothing.

    Raises:
        ValueError: names the settings, and what mends it.
    """
    if not isinstance(discriminator, Discriminator):  # discriminator=none
        raise ValueError("this objective needs a discriminator; set discriminator=dcgan, or model=vae")
    if simultaneous and d_steps != 1:
        raise ValueError(
            f"optimizer.simultaneous=true updates both networks on each batch, not as optimizer.d_steps={d_steps} has "
            "it; set optimizer.d_steps=1, or optimizer.simultaneous=false"
        )
    if transfer.trunk != "frozen" and discriminator.blocks and not discriminator.trunk_can_train:
        raise ValueError(
            f"transfer.trunk={transfer.trunk}: the trunk of this discriminator stays frozen; set transfer.trunk=frozen"
        )
    if any(isinstance(module, TruncationBatchNorm2d) for module in generator.modules()):
        raise ValueError("generator.statistics: those of each truncation are for use only; set generator.statistics=0")
    if discriminator.image_channels not in (None, generator.image_channels):
        raise ValueError(
            f"discriminator.image_channels={discriminator.image_channels}: the generator's images have "
            f"{counted(generator.image_channels, 'channel')}; set "
            f"discriminator.image_channels={generator.image_channels}"
        )
    told = generator.num_classes, discriminator.num_classes
    if told[0] != told[1] and told != (1, 0):  # a discriminator need not be told of a single class
        raise ValueError(
            f"the generator is told of {counted(generator.num_classes, 'class', 'classes')} and the discriminator of "
            f"{discriminator.num_classes}; set data.num_classes=0, or the same generator.num_classes and "
            "discriminator.num_classes"
        )
    if isinstance(augment, AdaptiveAugmentation) and objective.boundary is None:
        raise ValueError(
            "augment=adaptive goes by how many reals are on their side of the discriminator's boundary, and this "
            "objective has none; set augment=diffaugment, or objective=bce"
        )
    if transfer.trunk != "frozen" and not discriminator.blocks:
        log.warning(
            f"transfer.trunk={transfer.trunk} changes nothing: no block of this discriminator is pretrained, and all "
            "that can train does; transfer.freeze_d freezes its lowest layers"
        )


def check_start(transfer: Mapping[str, Any], init_from: Mapping[str, Any]) -> None:
    """Refuse two sources of one network; warn of one that begins with random weights, and is to keep some of them.

    Args:
        transfer: the settings of the group.
        init_from: of that one, whose `generator` and `discriminator` are None without a source.

    Raises:
        ValueError: the generator has two sources.
    """
    if transfer.get("source") and init_from["generator"]:
        raise ValueError(
            f"init_from.generator={init_from['generator']}: the generator starts as a copy of "
            f"transfer.source={transfer['source']}; leave it out"
        )
    kept = {
        "generator": ("generator", "all", init_from["generator"] or transfer.get("source")),
        "freeze_d": ("discriminator", 0, init_from["discriminator"]),
    }
    for name, (network, default, source) in kept.items():
        if transfer[name] != default and not source:
            log.warning(
                f"transfer.{name}={transfer[name]}: keeps weights of a {network} that begins with random ones; set "
                f"init_from.{network}, or transfer.{name}={default}"
            )


def check_batch_size(transfer: Strategy, images: int, *, ranks: int = 1, parts: int = 1) -> None:
    """Refuse a batch that cannot be split, or of fewer images than the losses of a transfer strategy compare.

    Args:
        transfer: the strategy.
        images: in a batch, over all ranks.
        ranks: number of them.
        parts: number of parts that each rank computes its share of a batch in.

    Raises:
        ValueError: names the settings.
    """
    if parts > 1 and (images % (ranks * parts) or images < 2 * ranks * parts):
        raise ValueError(
            f"optimizer.accumulate={parts}: data.batch_size={images} over {counted(ranks, 'device')} does not split "
            "into as many parts of 2 images or more; set optimizer.accumulate=1, or another data.batch_size"
        )
    if images // parts < transfer.min_images:
        in_parts = f" in each of optimizer.accumulate={parts} parts" if parts > 1 else ""
        raise ValueError(
            f"data.batch_size={images}: this transfer compares {transfer.min_images} images or more{in_parts}; set at "
            f"least {transfer.min_images * parts}"
        )


def check_no_game(
    *,
    discriminator: Any,
    augment: Augmentation,
    transfer: Strategy,
    d_steps: int,
    extrapolation: float,
    simultaneous: bool,
    accumulate: int,
    **_others: Any,
) -> None:
    """Refuse settings that a plain variational autoencoder would ignore.

    Raises:
        ValueError: names the group or the setting, and the value that mends it.
    """
    ignored = {
        "discriminator=none": discriminator is not None,
        "augment=none": not augment.is_identity,
        "transfer=feature_extraction": transfer.has_terms,
        "optimizer.d_steps=1": d_steps != 1,
        "optimizer.extrapolation=0": extrapolation != 0,
        "optimizer.simultaneous=false": simultaneous,
        "optimizer.accumulate=1": accumulate != 1,
    }
    for name, parameter in signature(Strategy).parameters.items():
        if name != "new_classes":  # which the generator's start takes account of
            ignored[f"transfer.{name}={parameter.default}"] = getattr(transfer, name) != parameter.default
    for mend, is_set in ignored.items():
        if is_set:
            setting = mend.partition("=")[0]
            raise ValueError(f"{setting}: a plain VAE has no use for it; set {mend}, or model=vae_gan")
