"""Which of a discriminator's blocks are frozen, and when it grows, as images are seen."""

import torch

from transfergen.networks.discriminators.base import Discriminator
from transfergen.networks.generators.base import Generator, sample
from transfergen.training.real_features import RealFeatures
from transfergen.transfer.strategy import Strategy

GROWTH_IMAGES = 512


class FreezeSchedule:
    """Freezes, thaws and grows a discriminator.

    Args:
        discriminator: whose blocks they are.
        transfer: tells how many of them are frozen.
        reals: a growing discriminator looks at some; features of blocks that are others now are forgotten.
        seed: of the reals and the fakes that it looks at.
    """

    def __init__(self, discriminator: Discriminator, transfer: Strategy, reals: RealFeatures, *, seed: int) -> None:
        self._discriminator, self._transfer, self._reals, self._seed = discriminator, transfer, reals, seed

    def update(self, images_seen: int, sampler: Generator) -> None:
        """Do what is due after so many images; fakes to look at are the `sampler`'s."""
        frozen = self._transfer.frozen_blocks(self._discriminator.blocks, images_seen)
        if frozen != self._discriminator.frozen_blocks:
            self._discriminator.freeze(frozen)
            self._reals.clear_cache()
        while images_seen >= self._discriminator.grows_at:
            self._grow(sampler)

    @torch.no_grad()
    def _grow(self, sampler: Generator) -> None:
        """The same on all ranks, and the same whether the run was resumed or not: no autocast, no new statistics."""
        device = next(sampler.parameters()).device
        real = self._reals.sample_images(GROWTH_IMAGES, self._seed, device)
        with torch.autocast(device.type, enabled=False):
            fake = sample(sampler, range(self._seed, self._seed + len(real)), device)
            self._discriminator.grow(real, fake)
        self._reals.clear_cache()
