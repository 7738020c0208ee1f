"""From a config to the networks and the module that trains them."""

from typing import Any

import torch
from omegaconf import DictConfig

from transfergen.config import instantiate
from transfergen.losses.divergence import Elbo
from transfergen.training.base_module import GenerativeModule
from transfergen.training.gan_module import GAN
from transfergen.training.vae_module import VAE, VAEGAN
from transfergen.transfer.initialisation import initialise


def build_module(config: DictConfig, *, fresh: bool = True) -> GenerativeModule:
    """The networks, with the weights that a `fresh` run starts from, and how they learn."""
    generator, discriminator = instantiate(config.generator), instantiate(config.discriminator) or None
    if generator.resolution != config.data.resolution:
        raise ValueError(
            f"images are {config.data.resolution} px and the generator makes {generator.resolution}; set "
            f"data.resolution={generator.resolution} or generator.resolution={config.data.resolution}"
        )
    if fresh:
        initialise(generator, discriminator, config.init_from)
    objective, encoder = instantiate(config.objective), instantiate(config.encoder)
    average: dict[str, Any] = {
        "ema_halflife_images": config.ema.halflife_images,
        "ema_rampup": config.ema.rampup,
        "seed": config.seed,
    }
    game: dict[str, Any] = {
        "discriminator": discriminator,
        "augment": instantiate(config.augment),
        "d_optimizer": instantiate(config.optimizer.discriminator),
        "g_optimizer": instantiate(config.optimizer.generator),
        "transfer": instantiate(config.transfer),
        "d_steps": config.optimizer.d_steps,
        "extrapolation": config.optimizer.extrapolation,
        "simultaneous": config.optimizer.simultaneous,
    }
    module: GenerativeModule
    if isinstance(objective, Elbo):
        trunk = instantiate(config.backbone) if objective.perceptual else None
        if objective.game is not None:
            module = VAEGAN(generator, encoder, objective, backbone=trunk, **game, **average)
        else:
            _check_no_game(game)
            optimizer = game["g_optimizer"]
            module = VAE(generator, encoder, objective, backbone=trunk, g_optimizer=optimizer, **average)
    elif encoder:
        raise ValueError("encoder: a GAN has none; set encoder=none, or objective=elbo or vae_gan")
    else:
        module = GAN(generator, objective=objective, **game, **average)
    if config.channels_last:
        module.to(memory_format=torch.channels_last)
    return module


def _check_no_game(game: dict[str, Any]) -> None:
    """Raises ValueError for what a plain autoencoder would not look at."""
    unused = {
        "discriminator": game["discriminator"] is not None,
        "augment": not game["augment"].is_identity,
        "transfer": game["transfer"].has_terms,
    }
    for group, is_set in unused.items():
        if is_set:
            default = "feature_extraction" if group == "transfer" else "none"
            raise ValueError(f"{group}: a plain VAE has no use for it; set {group}={default}, or model=vae_gan")


def set_num_classes(config: DictConfig, count: int) -> None:
    """Tell the networks that ask for it, with `num_classes: null`, how many classes the pictures have."""
    networks = {name: config[name] for name in ("generator", "discriminator")}
    networks["ordinary discriminator"] = config.discriminator.get("ordinary") or {}
    asking = {name: network for name, network in networks.items() if network.get("num_classes", 0) is None}
    if asking and not count:
        raise ValueError(
            f"data.path={config.data.path}: these pictures have no classes, and the {next(iter(asking))} is "
            "conditional; set data.num_classes=0, or put the pictures of each class in a folder of their own"
        )
    for network in asking.values():
        network.num_classes = count
