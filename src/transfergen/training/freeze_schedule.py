"""When blocks of the two networks freeze or thaw, and when a discriminator grows, by the number of images seen."""

import torch

from transfergen.networks.discriminators.base import Discriminator
from transfergen.networks.generators.base import Generator, sample
from transfergen.training.real_features import RealFeatures
from transfergen.transfer.generator_weights import release_blocks
from transfergen.transfer.strategy import Strategy

GROWTH_IMAGES = 512
"""Reals, and fakes, by which a growing discriminator chooses what it takes in."""


def update_blocks(
    images_seen: int,
    generator: Generator,
    discriminator: Discriminator,
    transfer: Strategy,
    reals: RealFeatures,
    *,
    ema_generator: Generator,
    seed: int,
) -> None:
    """Freeze, thaw and grow what is due after `images_seen` images.

    Args:
        images_seen: real images, over all ranks.
        generator: some of whose blocks may be frozen.
        discriminator: likewise, and it may grow.
        transfer: says how many of their blocks are frozen.
        reals: source of real images; its cache is cleared when the frozen blocks change.
        ema_generator: makes the fakes that a growing discriminator looks at.
        seed: of these fakes, and of the reals. So all ranks, and a resumed run, see the same images.
    """
    if transfer.generator == "gradual":
        release_blocks(generator, images_seen // transfer.unfreeze_every_images)
    frozen = transfer.frozen_blocks(discriminator.blocks, images_seen)
    if frozen != discriminator.frozen_blocks:
        discriminator.freeze(frozen)
        reals.clear_cache()
    while images_seen >= discriminator.grows_at:
        device = next(ema_generator.parameters()).device
        real = reals.sample_images(GROWTH_IMAGES, seed, device)
        with torch.no_grad(), torch.autocast(device.type, enabled=False):
            discriminator.grow(real, sample(ema_generator, range(seed, seed + len(real)), device))
        reals.clear_cache()
