"""The discriminator's and the generator's turn, in plain torch.

One batch of the alternating game, with the discriminator split into a frozen prefix and a trainable suffix:

    real features      prefix(reals), without gradients, or from the cache
    fake features      prefix(G(z)), once, with its graph
    discriminator      suffix(real features) against suffix(fake features, detached); its optimizer steps
    generator          the *updated* suffix on the same fake features; the gradient goes back through both to G

With a frozen trunk these are three trunk passes where the textbook's loop spends nine. With nothing frozen the prefix
is empty, the features are the images, and the same lines give eight instead of nine. `both_turns` takes both losses
from one pass of the suffix, and both networks step afterwards.
"""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor, nn

from transfergen.losses.adversarial import Objective
from transfergen.networks.discriminators.base import Discriminator

Features = list[Tensor]


class Turn(NamedTuple):
    """The loss of a turn, and the logits that it came from, detached."""

    loss: Tensor
    real_logits: Tensor | None
    fake_logits: Tensor


def discriminator_turn(
    d: Discriminator, objective: Objective, real: Features, fake: Features, y: Tensor | None = None
) -> Turn:
    """The discriminator's loss. Its gradients reach the suffix's weights alone. The fakes are of the reals' classes."""
    detached = [feature.detach() for feature in fake]  # this update must not move the generator
    real_logits, fake_logits = _score(d, real, detached, y)
    return Turn(_d_loss(d, objective, real_logits, fake_logits), real_logits.detach(), fake_logits.detach())


def generator_turn(
    d: Discriminator,
    objective: Objective,
    real: Features,
    fake: Features,
    real_logits: Tensor | None = None,
    y: Tensor | None = None,
) -> Turn:
    """The generator's loss. To be called, and its backward pass run, inside `without_weight_gradients`.

    The reals are not looked at unless the discriminator is `joint_batchnorm`; otherwise `real_logits` of the turn before serve.
    """
    if d.joint_batchnorm:
        real_logits, fake_logits = _score(d, real, fake, y)
    else:
        fake_logits = d.score(fake, y)
    loss = _g_loss(d, objective, real_logits, fake_logits)
    return Turn(loss, None if real_logits is None else real_logits.detach(), fake_logits.detach())


def both_turns(
    d: Discriminator, objective: Objective, real: Features, fake: Features, y: Tensor | None = None
) -> tuple[Turn, Turn]:
    """The discriminator's loss and the generator's, from the same logits.

    Gradients of the one reach the suffix's weights alone, those of the other what the fakes came from alone: so a
    backward pass of their sum, whose `inputs` are the weights of both networks, serves both.
    """
    leaves = [feature.detach().requires_grad_() for feature in fake]
    real_logits, fake_logits = _score(d, real, leaves, y)
    g_loss = _g_loss(d, objective, real_logits, fake_logits)
    gradients = torch.autograd.grad(g_loss, leaves, retain_graph=True)
    logits = real_logits.detach(), fake_logits.detach()
    d_turn = Turn(_d_loss(d, objective, real_logits, fake_logits), *logits)
    return d_turn, Turn(cast(Tensor, _WithGradients.apply(g_loss.detach(), gradients, *fake)), *logits)


class _WithGradients(torch.autograd.Function):
    """A value whose gradients with respect to other tensors are known."""

    @staticmethod
    def forward(ctx: Any, value: Tensor, gradients: Sequence[Tensor], *_others: Tensor) -> Tensor:
        ctx.save_for_backward(*gradients)
        return value.clone()

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        (factor,) = gradients
        return None, None, *(known * factor.to(known.dtype) for known in ctx.saved_tensors)


def _d_loss(d: Discriminator, objective: Objective, real_logits: Tensor, fake_logits: Tensor) -> Tensor:
    """Summed over the parts, by weight; so is the generator's."""
    losses = [weight * objective.d_loss(real_logits[:, part], fake_logits[:, part]) for part, weight in d.parts()]
    return torch.stack(losses).sum()


def _g_loss(d: Discriminator, objective: Objective, real_logits: Tensor | None, fake_logits: Tensor) -> Tensor:
    losses = [
        weight * objective.g_loss(fake_logits[:, part], None if real_logits is None else real_logits[:, part])
        for part, weight in d.parts()
    ]
    return torch.stack(losses).sum()


def _score(d: Discriminator, real: Features, fake: Features, y: Tensor | None) -> tuple[Tensor, Tensor]:
    """Logits of as many reals and fakes, of the same classes."""
    if d.joint_batchnorm:
        return d.score_jointly(real, fake, y)
    return d.score(real, y), d.score(fake, y)


def mean_logits(d: Discriminator, images: Tensor, y: Tensor | None = None) -> Tensor:
    """Images (B, 3, R, R) -> (B,): what a gradient penalty is taken of, the parts' mean logits summed by weight."""
    logits = d(images, y)
    return torch.stack([weight * logits[:, part].mean(dim=1) for part, weight in d.parts()]).sum(dim=0)


@torch.no_grad()
def clip_weights(d: Discriminator, limit: float) -> None:
    """Every weight that trains to [-limit, limit]. Arjovsky 2017, arXiv:1701.07875, algorithm 1."""
    for parameter in d.trainable_parameters():
        if parameter.requires_grad:
            parameter.clamp_(-limit, limit)


@contextmanager
def without_weight_gradients(parameters: Iterable[nn.Parameter]) -> Iterator[None]:
    """Compute no gradient of these weights: the generator's turn needs only what passes through to the images."""
    held = [p for p in parameters if p.requires_grad]
    for p in held:
        p.requires_grad_(False)
    try:
        yield
    finally:
        for p in held:
            p.requires_grad_(True)


@contextmanager
def extrapolated(parameters: Iterable[nn.Parameter], before: list[Tensor], factor: float) -> Iterator[None]:
    """Move the discriminator's weights on by `factor` times their last update, while the generator has its turn.

    So the generator answers the discriminator that will be there next, and not the one that its last batch dealt with:
    that damps how the two circle each other. Yadav 2018, arXiv:1705.07364.

    Args:
        parameters: what the last update changed.
        before: what they were before it; without any, nothing is moved.
        factor: 1 takes the same step once more.
    """
    if not before:
        yield
        return
    weights = [p.detach() for p in parameters]  # the same memory
    after = [w.clone() for w in weights]
    try:
        torch._foreach_add_(weights, torch._foreach_sub(after, before), alpha=factor)
        yield
    finally:
        torch._foreach_copy_(weights, after)


def gradient_norm(parameters: Iterable[nn.Parameter]) -> Tensor:
    """L2 norm of all gradients, a scalar on their device, not synchronised. Not finite if any of them is not."""
    return torch.nn.utils.get_total_norm([p.grad for p in parameters if p.grad is not None])
