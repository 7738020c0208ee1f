"""What goes into the two turns on a batch, and what comes out of them."""

from typing import NamedTuple

import torch
from torch import Tensor

from transfergen.data.store import Batch
from transfergen.training.turn_losses import Features, Turn
from transfergen.transfer.strategy import Pairs


class Draw(NamedTuple):
    """A batch, and what the discriminator is shown beside it."""

    batch: Batch
    update: int
    y: Tensor | None
    shown: Tensor
    real: Features
    fake: Features
    pairs: Pairs | None


class Played(NamedTuple):
    """What became of it: the turns, the norms of their gradients, and the terms that were added to their losses."""

    d: Turn
    g: Turn
    d_norm: Tensor
    g_norm: Tensor
    terms: dict[str, Tensor]

    def curves(self, columns: slice, boundary: float | None) -> dict[str, Tensor]:
        """Scalars by name, of which those of logits are of some `columns`.

        Accuracies are there if the objective has a `boundary` between what is called real and what is not.
        """
        assert self.d.real_logits is not None
        real_logits, fake_logits = self.d.real_logits[:, columns], self.d.fake_logits[:, columns]
        curves = {
            "loss/discriminator": self.d.loss,
            "loss/generator": self.g.loss,
            "logits/real": real_logits.mean(),
            "logits/fake": fake_logits.mean(),
            "gradient_norm/discriminator": self.d_norm,
            "gradient_norm/generator": self.g_norm,
        }
        if boundary is not None:
            curves["accuracy/real"] = (real_logits > boundary).float().mean()
            curves["accuracy/fake"] = (fake_logits < boundary).float().mean()
        return curves


def total(loss: Tensor, terms: dict[str, Tensor]) -> Tensor:
    """A turn's loss, and the weighted terms that are added to it."""
    return torch.stack([loss, *terms.values()]).sum() if terms else loss
