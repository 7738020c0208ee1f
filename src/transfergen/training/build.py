"""Builds the networks of a config, the module that trains them, and the callbacks around it."""

from pathlib import Path
from typing import Any

import torch
from lightning import Callback
from omegaconf import DictConfig, OmegaConf

from transfergen.config import instantiate
from transfergen.image_shape import image_shape
from transfergen.losses.divergence import Elbo
from transfergen.training.base_module import GenerativeModule
from transfergen.training.callbacks import (
    Checkpointing,
    CollapseWarning,
    DistillationReport,
    Evaluation,
    LinearLRDecay,
    MemoryReport,
    Reconstructions,
    SampleGrid,
    Signals,
    Snapshots,
    StopAtImages,
)
from transfergen.training.compatibility import (
    check_generator_shape,
    check_no_game,
    check_shape,
    check_start,
)
from transfergen.training.gan_module import GAN
from transfergen.training.vae_module import VAE, VAEGAN, Autoencoding
from transfergen.transfer.distillation import Distillation
from transfergen.transfer.generator_weights import mix_classes
from transfergen.transfer.initialisation import initialise
from transfergen.transfer.public_sources import public_source, started_from


def build_module(config: DictConfig, *, fresh: bool = True) -> GenerativeModule:
    """The networks in the module that trains them.

    Args:
        config: as composed.
        fresh: whether the networks start from the weights that `init_from` names; a checkpoint follows otherwise.

    Raises:
        ValueError: settings that do not go together.
    """
    data = config.data
    shape = image_shape(data.resolution, data.get("aspect", (1, 1)), data.get("channels", 3))  # a saved one lacks them
    check_shape(shape, {name: config[name] for name in ("generator", "discriminator", "encoder")})
    if fresh:
        check_start(config.transfer, config.init_from)
    generator, discriminator = instantiate(config.generator), instantiate(config.discriminator) or None
    check_generator_shape(generator, shape)
    mixture = config.transfer.new_classes == "mixture"
    if fresh:
        settings: Any = OmegaConf.to_container(config.generator, resolve=True)
        initialise(generator, discriminator, config.init_from, settings=settings, mixture=mixture)
    elif mixture:
        mix_classes(generator, None)
    objective, encoder = instantiate(config.objective), instantiate(config.encoder)
    average = {
        "ema_halflife_images": config.ema.halflife_images,
        "ema_rampup": config.ema.rampup,
        "seed": config.seed,
    }
    game = {
        "discriminator": discriminator,
        "augment": instantiate(config.augment),
        "d_optimizer": instantiate(config.optimizer.discriminator),
        "g_optimizer": instantiate(config.optimizer.generator),
        "transfer": instantiate(config.transfer),
        "d_steps": config.optimizer.d_steps,
        "extrapolation": config.optimizer.extrapolation,
        "simultaneous": config.optimizer.simultaneous,
        "accumulate": config.optimizer.accumulate,
    }
    module: GenerativeModule
    if isinstance(objective, Elbo):
        trunk = instantiate(config.backbone) if objective.perceptual else None
        if objective.game is not None:
            module = VAEGAN(generator, encoder, objective, backbone=trunk, **game, **average)
        else:
            check_no_game(**game)
            optimizer = game["g_optimizer"]
            module = VAE(generator, encoder, objective, backbone=trunk, g_optimizer=optimizer, **average)
    elif encoder:
        raise ValueError("encoder: a GAN has none; set encoder=none, or objective=elbo or vae_gan")
    else:
        module = GAN(generator, objective=objective, **game, **average)
    if fresh:
        module.started_from = started_from(config.init_from, config.transfer.get("source"))
    generator.checkpointing = config.generator_checkpointing
    if config.channels_last:
        module.to(memory_format=torch.channels_last)
    return module


def build_callbacks(
    config: dict[str, Any],
    run_dir: Path,
    module: GenerativeModule,
    files: Checkpointing,
    evaluation: Evaluation,
    signals: Signals,
) -> list[Callback]:
    """The callbacks of a training, in the order in which they act after each step."""
    callbacks: list[Callback] = [
        SampleGrid(run_dir, **config["samples"]),
        CollapseWarning(),
        files,
        evaluation,  # after the run's files, which are then saved whatever it raises
    ]
    if config["snapshot_every_images"] is not None:
        callbacks.append(Snapshots(run_dir, config["generator"], every_images=config["snapshot_every_images"]))
    if config["memory_report"]:
        callbacks.append(MemoryReport(config["data"]["batch_size"]))
    if config["max_images"] is not None:
        callbacks.append(StopAtImages(config["max_images"]))
    if config["lr_decay"]["start_images"] is not None:
        ends = {"max_images": config["max_images"], "max_epochs": config["trainer"]["max_epochs"]}
        callbacks.append(LinearLRDecay(**config["lr_decay"], **ends))
    if isinstance(module, Autoencoding):
        callbacks.append(Reconstructions(run_dir, every_images=config["samples"]["every_images"]))
    if isinstance(module, GAN) and isinstance(module.transfer, Distillation):
        callbacks.append(DistillationReport(run_dir, evaluation))
    callbacks.append(signals)  # last, so that everything due at a step is done before a signal ends the run
    return callbacks


def set_num_classes(config: DictConfig, count: int) -> None:
    """Tell the networks that ask for it, with `num_classes: null`, how many classes the pictures have."""
    networks = {name: config[name] for name in ("generator", "discriminator")}
    networks["ordinary discriminator"] = config.discriminator.get("ordinary") or {}
    asking = {name: network for name, network in networks.items() if network.get("num_classes", 0) is None}
    if asking and not count and public_source("generator", config.init_from):
        count = 1  # all pictures are one class, whose embedding starts from the mean of the source's
    if asking and not count:
        raise ValueError(
            f"data.path={config.data.path}: these pictures have no classes, and the {next(iter(asking))} is "
            "conditional; set data.num_classes=0, or 1 for a pretrained generator with classes, or put the pictures of "
            "each class in a folder of their own"
        )
    for network in asking.values():
        network.num_classes = count
