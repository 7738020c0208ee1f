"""Adversarial losses of the discriminator and the generator, as functions of logits."""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

from torch import Tensor
from torch.nn import functional as F

from transfergen.losses.penalties import GradientPenalty


class Objective(NamedTuple):
    """The losses of a discriminator and a generator.

    All generator losses take the reals' logits, which few use; the others may get None for them.
    """

    d_loss: Callable[[Tensor, Tensor], Tensor]
    """(real_logits, fake_logits) -> scalar."""
    g_loss: Callable[[Tensor | None, Tensor], Tensor]
    """(real_logits, fake_logits) -> scalar."""
    boundary: float | None = 0.0
    """The logit above which an image is classified as real; None if only differences between logits matter."""
    penalty: GradientPenalty | None = None
    """Added to the discriminator's loss."""
    clip: float | None = None
    """The discriminator's weights are clipped to [-clip, clip] after each of its updates; None: they are not."""


def bce_d(real_logits: Tensor, fake_logits: Tensor) -> Tensor:
    """Binary cross-entropy, reals 1 and fakes 0; 2 log 2 at equilibrium. Goodfellow 2014, arXiv:1406.2661, eq. 1."""
    return F.softplus(-real_logits).mean() + F.softplus(fake_logits).mean()


def bce_g(real_logits: Tensor | None, fake_logits: Tensor, *, saturating: bool = False) -> Tensor:
    """The generator's loss: -log D(G(z)), or log(1 - D(G(z))) if saturating. arXiv:1406.2661, section 3."""
    return -F.softplus(fake_logits).mean() if saturating else F.softplus(-fake_logits).mean()


def bce(*, saturating: bool = False, penalty: GradientPenalty | None = None) -> Objective:
    """The objective of the original GAN: binary cross-entropy. Goodfellow 2014, arXiv:1406.2661."""
    return Objective(bce_d, partial(bce_g, saturating=saturating), penalty=penalty)


def least_squares_d(real_logits: Tensor, fake_logits: Tensor) -> Tensor:
    """Half the squared distances of reals from 1 and of fakes from 0; 1/4 at equilibrium.

    Mao 2017, arXiv:1611.04076, eq. 2 with a = 0 and b = 1.
    """
    return ((real_logits - 1).square().mean() + fake_logits.square().mean()) / 2


def least_squares_g(real_logits: Tensor | None, fake_logits: Tensor) -> Tensor:
    """The generator's loss: half the squared distance of fakes from 1. arXiv:1611.04076, eq. 2 with c = 1."""
    return (fake_logits - 1).square().mean() / 2


def least_squares(*, penalty: GradientPenalty | None = None) -> Objective:
    """The objective of LSGAN. Mao 2017, arXiv:1611.04076."""
    return Objective(least_squares_d, least_squares_g, boundary=0.5, penalty=penalty)


def hinge_d(real_logits: Tensor, fake_logits: Tensor) -> Tensor:
    """The hinge loss; 2 if all logits are 0. Lim and Ye 2017, arXiv:1705.02894; arXiv:1802.05957, eq. 16."""
    return F.relu(1 - real_logits).mean() + F.relu(1 + fake_logits).mean()


def hinge_g(real_logits: Tensor | None, fake_logits: Tensor) -> Tensor:
    """The generator's loss: the negative mean of the fakes' logits. arXiv:1802.05957, eq. 17.

    It is WGAN's, too: the negative mean of the fakes' scores. arXiv:1701.07875, algorithm 1.
    """
    return -fake_logits.mean()


def hinge(*, penalty: GradientPenalty | None = None) -> Objective:
    """The objective of SNGAN and of Projected GAN. Lim and Ye 2017, arXiv:1705.02894."""
    return Objective(hinge_d, hinge_g, penalty=penalty)


def wasserstein_d(real_logits: Tensor, fake_logits: Tensor) -> Tensor:
    """The negative of the estimated Wasserstein-1 distance, if the critic is 1-Lipschitz. arXiv:1701.07875, eq. 2."""
    return fake_logits.mean() - real_logits.mean()


def wasserstein(*, clip: float | None = None, penalty: GradientPenalty | None = None) -> Objective:
    """The objective of WGAN. `clip` or `penalty` keeps the critic Lipschitz. Arjovsky 2017, arXiv:1701.07875."""
    return Objective(wasserstein_d, hinge_g, boundary=None, penalty=penalty, clip=clip)


def relativistic_d(real_logits: Tensor, fake_logits: Tensor, *, drift: float = 0.0) -> Tensor:
    """Cross-entropy for telling which of a real and a fake image is real; log 2 at equilibrium.

    Jolicoeur-Martineau 2018, arXiv:1807.00734, eq. 3. It sees only differences of logits, so a discriminator without
    batch normalisation may let them all grow until rounding hides these. `drift` is the weight of their mean square,
    which keeps them near 0. Karras 2018, arXiv:1710.10196, appendix A.1, has that of the reals alone.
    """
    loss = F.softplus(fake_logits - real_logits).mean()
    if drift:
        loss = loss + drift * (real_logits.square().mean() + fake_logits.square().mean()) / 2
    return loss


def relativistic_g(real_logits: Tensor | None, fake_logits: Tensor) -> Tensor:
    """The generator's loss: `relativistic_d` with reals and fakes exchanged. arXiv:1807.00734, eq. 4."""
    assert real_logits is not None, "the relativistic loss compares fakes with reals"
    return F.softplus(real_logits - fake_logits).mean()


def relativistic(*, drift: float = 0.0, penalty: GradientPenalty | None = None) -> Objective:
    """The objective of R3GAN, whose penalties are R1 and R2. Huang 2024, arXiv:2501.05441.

    `drift` is that of `relativistic_d`.
    """
    return Objective(partial(relativistic_d, drift=drift), relativistic_g, boundary=None, penalty=penalty)
