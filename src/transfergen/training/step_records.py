"""Records of a training step: its place in the training, the images and features that it gets, the losses it gives."""

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from transfergen.data.store import Batch
from transfergen.distributed import rank_and_world_size
from transfergen.training.turn_losses import Features, Turn
from transfergen.transfer.strategy import Pairs

Generate = Callable[[Tensor, Tensor | None], Tensor]
"""Latents (B, Z), and classes (B,) or None -> images (B, C, H, W): a generator."""


class Position(NamedTuple):
    """The place of a batch in a training."""

    images: int
    """Real images in the batch, over all ranks."""
    update: int
    """Batches before it. Lightning's `batch_idx` starts anew with each epoch, which may be one batch."""


def position(batch: Batch, images_seen: int) -> Position:
    """The place of a batch, of which this rank has a share, after `images_seen` real images over all ranks."""
    images = len(batch.pixels) * rank_and_world_size()[1]
    return Position(images, images_seen // images)


class Fakes(NamedTuple):
    """A batch of generated images, and further terms of the generator's loss on it."""

    z: Tensor
    """Latents (B, Z)."""
    images: Tensor
    """(B, C, H, W) in [-1, 1], with their graph if the generator is to be updated."""
    terms: dict[str, Tensor] = {}
    """Weighted scalars by name, added to the generator's loss."""
    curves: dict[str, Tensor] = {}
    """Scalars to log by name."""


class StepInputs(NamedTuple):
    """A batch of reals and a batch of fakes, as both players see them."""

    batch: Batch
    update: int
    """Updates of the discriminator before this one."""
    labels: Tensor | None
    """Classes (B,) of the reals, and so of the fakes; None for an unconditional generator."""
    real: Features
    fake: Features
    shown: Tensor
    """The augmented fakes (B, C, H, W), detached."""
    fakes: Fakes
    pairs: Pairs | None
    """Reals and fakes for a transfer strategy's own losses; None if it has none."""


class StepOutputs(NamedTuple):
    """The losses of one batch, the logits that they came from, and the norms of the gradients; without their graphs."""

    d: Turn
    g: Turn | None
    """None where the generator was not updated."""
    gradient_norms: dict[str, Tensor]
    curves: dict[str, Tensor]
    """Scalars to log by name."""

    @property
    def terms(self) -> dict[str, Tensor]:
        """The terms of both turns."""
        return {**self.d.terms, **(self.g.terms if self.g else {})}


def joined(parts: Sequence[Turn]) -> Turn:
    """One player's turn on a whole batch, from its turns on equally large parts; without graphs."""
    real = [part.real_logits for part in parts if part.real_logits is not None]
    loss = torch.stack([part.loss.detach() for part in parts]).mean()
    fake_logits = torch.cat([part.fake_logits for part in parts])
    return Turn(loss, torch.cat(real) if real else None, fake_logits, mean_of([part.terms for part in parts]))


def mean_of(parts: Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor]:
    """The mean of each scalar over the parts of a batch, which all have the same names; without graphs."""
    return {name: torch.stack([part[name].detach() for part in parts]).mean() for name in parts[0]}
