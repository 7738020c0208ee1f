"""Records of a training step: its place in the training, the images and features that it gets, the losses it gives."""

from collections.abc import Callable, Sequence
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
    terms: dict[str, Tensor]
    """Weighted scalars, added to the two losses."""
    curves: dict[str, Tensor]
    """Scalars to log by name."""


class Play(NamedTuple):
    """One player's turn on a part of a batch."""

    turn: Turn
    terms: dict[str, Tensor]
    """Weighted scalars, added to the turn's loss."""
    weight: float = 1.0
    """Factor of the turn's loss."""

    @property
    def loss(self) -> Tensor:
        """The weighted loss and the terms, a scalar."""
        loss = self.weight * self.turn.loss
        return torch.stack([loss, *self.terms.values()]).sum() if self.terms else loss


def joined(parts: Sequence[Play]) -> Play:
    """One player's turn on a whole batch, from its turns on equally large parts; without graphs."""
    turns = [part.turn for part in parts]
    real = [turn.real_logits for turn in turns if turn.real_logits is not None]
    loss = torch.stack([turn.loss.detach() for turn in turns]).mean()
    turn = Turn(loss, torch.cat(real) if real else None, torch.cat([turn.fake_logits for turn in turns]))
    return Play(turn, mean_of([part.terms for part in parts]), parts[0].weight)


def mean_of(parts: Sequence[dict[str, Tensor]]) -> dict[str, Tensor]:
    """The mean of each scalar over the parts of a batch, which all have the same names; without graphs."""
    return {name: torch.stack([part[name].detach() for part in parts]).mean() for name in parts[0]}
