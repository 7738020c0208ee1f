"""When blocks of the two networks are frozen, and when a discriminator grows, by the number of images seen."""

import torch

from transfergen.networks.discriminators.base import Discriminator
from transfergen.networks.generators.base import Generator, sample
from transfergen.training.real_features import RealFeatures
from transfergen.transfer.generator_weights import release_blocks
from transfergen.transfer.strategy import Strategy

GROWTH_IMAGES = 512
"""Reals, and fakes, by which a growing discriminator chooses what it takes in."""


class FreezeSchedule:
    """Freezes and unfreezes blocks of a generator and of a discriminator, which it also grows.

    Args:
        generator, discriminator: the networks.
        transfer: says how many of their blocks are frozen.
        reals: source of real images; its cache is cleared when the frozen blocks change.
        seed: of the reals and the fakes that a growing discriminator looks at.
    """

    def __init__(
        self,
        generator: Generator,
        discriminator: Discriminator,
        transfer: Strategy,
        reals: RealFeatures,
        *,
        seed: int,
    ) -> None:
        self._generator, self._discriminator, self._transfer = generator, discriminator, transfer
        self._reals, self._seed = reals, seed

    def update(self, images_seen: int, ema_generator: Generator) -> None:
        """Do what is due after `images_seen` images. A growing discriminator looks at fakes of `ema_generator`."""
        if self._transfer.generator == "gradual":
            release_blocks(self._generator, images_seen // self._transfer.unfreeze_every_images)
        frozen = self._transfer.frozen_blocks(self._discriminator.blocks, images_seen)
        if frozen != self._discriminator.frozen_blocks:
            self._discriminator.freeze(frozen)
            self._reals.clear_cache()
        while images_seen >= self._discriminator.grows_at:
            self._grow(ema_generator)

    @torch.no_grad()
    def _grow(self, generator: Generator) -> None:
        """Let the discriminator grow. Seeds are fixed and autocast is off, so all ranks and a resumed run agree."""
        device = next(generator.parameters()).device
        real = self._reals.sample_images(GROWTH_IMAGES, self._seed, device)
        with torch.autocast(device.type, enabled=False):
            fake = sample(generator, range(self._seed, self._seed + len(real)), device)
            self._discriminator.grow(real, fake)
        self._reals.clear_cache()
