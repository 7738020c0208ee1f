"""The losses of the discriminator's turn and of the generator's, in plain torch."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor, nn

from transfergen.losses.adversarial import Objective
from transfergen.losses.penalties import Score
from transfergen.networks.discriminators.base import Discriminator

Features = list[Tensor]
"""The output of a discriminator's frozen prefix: one tensor (B, ...) a scale, or the images themselves."""


class Turn(NamedTuple):
    """The loss of one player's turn, the logits it was computed from, and what is added to it."""

    loss: Tensor
    """A scalar, with its graph while the turn lasts."""
    real_logits: Tensor | None
    """(B, N), detached; None where the loss did not need them."""
    fake_logits: Tensor
    """(B, N), detached."""
    terms: Mapping[str, Tensor] = {}
    """Weighted scalars by name."""

    def total(self, weight: float = 1.0) -> Tensor:
        """The loss times its weight, plus the terms: a scalar."""
        loss = weight * self.loss
        return torch.stack([loss, *self.terms.values()]).sum() if self.terms else loss


def discriminator_turn(
    d: Discriminator, objective: Objective, real: Features, fake: Features, y: Tensor | None = None
) -> Turn:
    """The discriminator's loss on features of reals and fakes, both of the classes `y` (B,).

    Its gradients reach the weights of the discriminator's trainable suffix and nothing else.
    """
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
    """The generator's loss on the features of its images. Call it and its backward in `without_weight_gradients`.

    With joint batch normalisation the reals are scored again, together with the fakes. Otherwise `real_logits`, those
    of the discriminator's turn, serve losses that compare fakes with reals.
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
    """The discriminator's loss and the generator's, from one pass of the suffix.

    Gradients of the discriminator's loss reach the suffix's weights alone. Those of the generator's loss reach the
    fakes' features, and through them the generator, but no weight of the suffix. So one backward pass of their sum
    serves both, if its `inputs` are the weights of the suffix and of the generator.
    """
    leaves = [feature.detach().requires_grad_() for feature in fake]
    real_logits, fake_logits = _score(d, real, leaves, y)
    g_loss = _g_loss(d, objective, real_logits, fake_logits)
    with torch.autocast(g_loss.device.type, enabled=False):  # as in other backward passes
        gradients = torch.autograd.grad(g_loss, leaves, retain_graph=True)
    logits = real_logits.detach(), fake_logits.detach()
    d_turn = Turn(_d_loss(d, objective, real_logits, fake_logits), *logits)
    return d_turn, Turn(cast(Tensor, _WithGradients.apply(g_loss.detach(), gradients, *fake)), *logits)


class _WithGradients(torch.autograd.Function):
    """A scalar whose gradients with respect to some tensors are given: it goes on from them in the backward pass."""

    @staticmethod
    def forward(ctx: Any, value: Tensor, gradients: Sequence[Tensor], *_inputs: Tensor) -> Tensor:
        ctx.save_for_backward(*gradients)
        return value.clone()

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor | None, ...]:
        (factor,) = grad_outputs
        return None, None, *(gradient * factor.to(gradient.dtype) for gradient in ctx.saved_tensors)


def _d_loss(d: Discriminator, objective: Objective, real_logits: Tensor, fake_logits: Tensor) -> Tensor:
    """The weighted sum of the discriminator's losses over its groups of logits."""
    losses = [weight * objective.d_loss(real_logits[:, i], fake_logits[:, i]) for i, weight in d.logit_groups()]
    return torch.stack(losses).sum()


def _g_loss(d: Discriminator, objective: Objective, real_logits: Tensor | None, fake_logits: Tensor) -> Tensor:
    """The weighted sum of the generator's losses over the discriminator's groups of logits."""
    losses = [
        weight * objective.g_loss(None if real_logits is None else real_logits[:, i], fake_logits[:, i])
        for i, weight in d.logit_groups()
    ]
    return torch.stack(losses).sum()


def _score(d: Discriminator, real: Features, fake: Features, y: Tensor | None) -> tuple[Tensor, Tensor]:
    """Logits of the reals and of the fakes, of which there are equally many of the same classes."""
    if d.joint_batchnorm:
        return d.score_jointly(real, fake, y)
    return d.score(real, y), d.score(fake, y)


def penalty_scores(d: Discriminator, real: Features, fake: Features, y: Tensor | None = None) -> tuple[Score, Score]:
    """Functions for gradient penalties, of reals and of fakes: images (B, C, H, W) -> scores (B,).

    A score is the weighted sum of each group's mean logit, in the batch that the discriminator trains on: with joint
    batch normalisation reals are scored together with `fake`, and fakes together with `real`.
    """

    def mean(logits: Tensor) -> Tensor:
        return torch.stack([weight * logits[:, i].mean(dim=1) for i, weight in d.logit_groups()]).sum(dim=0)

    if not d.joint_batchnorm:
        return (lambda images: mean(d(images, y)),) * 2
    real, fake = ([f.detach().float() for f in features] for features in (real, fake))
    return (
        lambda images: mean(d.score_jointly(d.features(images), fake, y)[0]),
        lambda images: mean(d.score_jointly(real, d.features(images), y)[1]),
    )


@torch.no_grad()
def clip_weights(d: Discriminator, limit: float) -> None:
    """Clip every trainable weight to [-limit, limit]. Arjovsky 2017, arXiv:1701.07875, algorithm 1."""
    for parameter in d.trainable_parameters():
        if parameter.requires_grad:
            parameter.clamp_(-limit, limit)


@contextmanager
def without_weight_gradients(parameters: Iterable[nn.Parameter]) -> Iterator[None]:
    """Compute no gradients of these weights: the generator's turn needs only those that pass through to the images."""
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
    """Move weights on by `factor` times their last update, and move them back at the end.

    The generator then answers the discriminator that will be there next, which damps how the two circle each other.
    Yadav 2018, arXiv:1705.07364.

    Args:
        parameters: what the last update changed.
        before: their values before that update; if empty, nothing is moved.
        factor: 1 repeats the last update once.
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
