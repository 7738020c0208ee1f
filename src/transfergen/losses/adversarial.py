"""What the discriminator and the generator minimise, as functions of logits."""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

from torch import Tensor
from torch.nn import functional as F


class Objective(NamedTuple):
    """A pair of losses. Relativistic generator losses need the reals' logits too, so every one is handed both."""

    d_loss: Callable[[Tensor, Tensor], Tensor]
    """(real_logits, fake_logits) -> scalar."""
    g_loss: Callable[[Tensor, Tensor | None], Tensor]
    """(fake_logits, real_logits) -> scalar."""


def bce_d(real_logits: Tensor, fake_logits: Tensor) -> Tensor:
    """Binary cross-entropy, reals 1 and fakes 0; 2 log 2 at equilibrium. Goodfellow 2014, arXiv:1406.2661, eq. 1."""
    return F.softplus(-real_logits).mean() + F.softplus(fake_logits).mean()


def bce_g(fake_logits: Tensor, real_logits: Tensor | None = None, *, saturating: bool = False) -> Tensor:
    """The generator's side: -log D(G(z)), or log(1 - D(G(z))) if saturating. arXiv:1406.2661, section 3."""
    return -F.softplus(fake_logits).mean() if saturating else F.softplus(-fake_logits).mean()


def bce(*, saturating: bool = False) -> Objective:
    """The reference objective."""
    return Objective(bce_d, partial(bce_g, saturating=saturating))


def hinge_d(real_logits: Tensor, fake_logits: Tensor) -> Tensor:
    """Hinge loss, 2 where all logits are 0. Lim and Ye 2017, arXiv:1705.02894; arXiv:1802.05957, eq. 16."""
    return F.relu(1 - real_logits).mean() + F.relu(1 + fake_logits).mean()


def hinge_g(fake_logits: Tensor, real_logits: Tensor | None = None) -> Tensor:
    """The generator's side: the negative mean of the fakes' logits. arXiv:1802.05957, eq. 17."""
    return -fake_logits.mean()


def hinge() -> Objective:
    """The objective of SNGAN and of the projected discriminators."""
    return Objective(hinge_d, hinge_g)
