"""One batch of the adversarial game, in plain torch.

The discriminator is split into a frozen prefix, whose output is called features, and a trainable suffix:

    real features      prefix(reals), without gradients, or from the cache
    fake features      prefix(G(z)), once, with its graph
    discriminator      suffix(real features) against suffix(fake features, detached); its optimizer steps
    generator          the *updated* suffix on the same fake features; the gradient goes back through both to G

A textbook's loop takes nine passes through the discriminator: reals, fakes and, in the generator's turn, fakes again,
each of them forward and backward, where the backward pass counts twice, for inputs and for weights. Here a frozen trunk
has three: forward for reals, forward and backward for fakes. With nothing frozen the features are the images, and there
are eight, since the generator's turn computes no gradients of weights.

A batch may be computed in parts, whose gradients are summed before an update. In turns, all parts are drawn before the
discriminator's update, and what leads to their features is computed anew in the generator's backward pass.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import KW_ONLY, dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from transfergen.data.store import Batch
from transfergen.losses.adversarial import Objective
from transfergen.networks.discriminators.base import Discriminator
from transfergen.networks.generators.base import Generator
from transfergen.networks.layers.checkpointing import checkpointed
from transfergen.training import turn_losses
from transfergen.training.augmentation import Augmentation
from transfergen.training.finite_updates import FiniteUpdates
from transfergen.training.real_features import RealFeatures
from transfergen.training.step_records import (
    Fakes,
    Generate,
    StepInputs,
    StepOutputs,
    joined,
    mean_of,
    position,
)
from transfergen.training.turn_losses import Turn, extrapolated, without_weight_gradients
from transfergen.transfer.strategy import Pairs, Strategy


@dataclass(eq=False)
class AdversarialStep:
    """One batch of the game: the discriminator's update and the generator's, in turns or from one pass.

    What it remembers from batch to batch is `previous_weights` and nothing else: the discriminator's weights before its
    last update, for a `simultaneous` step with `extrapolation`. `state_dict` saves them.

    Args:
        generator, discriminator: the networks.
        objective: their losses.
        augmentation: what reals and fakes go through before the discriminator sees them.
        strategy: which pretrained weights train, and losses of its own.
        optimizers: the discriminator's and the generator's.
        real_features: the discriminator's features of real images.
        draw_fakes: (batch, labels, generate) -> Fakes, as many as there are reals, made by `generate`.
        updates: steps the optimizers, unless something is not finite.
        g_parameters: what the generator's optimizer trains, if that is more than the generator.
        adversarial_weight: of the adversarial loss in the generator's.
        d_steps: the discriminator is updated on every batch and the generator on every `d_steps`-th.
        extrapolation: the generator plays against the discriminator moved on by this fraction of its last update.
            Yadav 2018, arXiv:1705.07364.
        simultaneous: both are updated from one pass of the discriminator, extrapolated or not. Gidel 2019,
            arXiv:1802.10551, extrapolates the generator, too.
        accumulate: number of parts that a batch is computed in, one after the other. It takes less memory, and gives
            the same update unless there are batch normalisation, spectral normalisation or terms that compare images.
    """

    generator: Generator
    discriminator: Discriminator
    objective: Objective
    augmentation: Augmentation
    strategy: Strategy
    optimizers: Sequence[Any]
    _: KW_ONLY
    real_features: RealFeatures
    draw_fakes: Callable[[Batch, Tensor | None, Generate], Fakes]
    updates: FiniteUpdates
    g_parameters: Sequence[nn.Parameter] = ()
    adversarial_weight: float = 1.0
    d_steps: int = 1
    extrapolation: float = 0.0
    simultaneous: bool = False
    accumulate: int = 1

    def __post_init__(self) -> None:
        self.d_optimizer, self.g_optimizer = self.optimizers
        self.g_parameters = list(self.g_parameters) or list(self.generator.parameters())
        self.previous_weights: dict[nn.Parameter, Tensor] = {}

    def __call__(self, batch: Batch, images_seen: int, *, backward: Callable[..., None]) -> StepOutputs:
        """Update the discriminator and, if it is due, the generator.

        Args:
            batch: this rank's reals.
            images_seen: real images that the discriminator has seen before, over all ranks.
            backward: (loss, inputs=None), such as `Tensor.backward`.

        Raises:
            FloatingPointError: a loss or a gradient is not finite; the update was left out.
        """
        images, update = position(batch, images_seen)
        g_turn_due = (update + 1) % self.d_steps == 0
        parts = (self._draw(part, update, g_turn_due) for part in batch.split(self.accumulate))
        if self.simultaneous:
            return self._both_at_once(parts, images, backward)
        return self._one_after_the_other(list(parts), images, g_turn_due, backward)

    def _draw(self, batch: Batch, update: int, g_turn_due: bool) -> StepInputs:
        """The features of a part's reals, and as many fakes and theirs, with a graph if the generator is updated."""
        generate: Generate = self.generator
        features = self.discriminator.features
        if self.accumulate > 1 and not self.simultaneous:
            generate = partial(checkpointed, self.generator)
            features = partial(checkpoint, features, use_reentrant=False)
        labels = batch.labels if self.generator.num_classes else None
        real = self.real_features.of_batch(batch)
        with torch.set_grad_enabled(g_turn_due):
            fakes = self.draw_fakes(batch, labels, generate)
            shown = self.augmentation(fakes.images)
            fake = features(shown)
        pairs = None
        if self.strategy.has_terms:
            pairs = Pairs(fakes.z, labels, fakes.images, self.real_features.images(batch))
        return StepInputs(batch, update, labels, real, fake, shown.detach(), fakes, pairs)

    def _one_after_the_other(
        self, parts: Sequence[StepInputs], images: int, g_turn_due: bool, backward: Callable[..., None]
    ) -> StepOutputs:
        """The discriminator's update; then the generator's, against the updated discriminator."""
        d_parameters, d_turns, g_turns = self.d_parameters(), [], []
        before = [p.detach().clone() for p in d_parameters] if self.extrapolation and g_turn_due else []
        self.d_optimizer.zero_grad()
        for part in parts:
            turn = turn_losses.discriminator_turn(self.discriminator, self.objective, part.real, part.fake, part.labels)
            d_turns.append(turn._replace(terms=self._d_terms(part)))
            backward(d_turns[-1].total() / len(parts))
        d = joined(d_turns)
        norms = {"discriminator": self.updates.step(self.d_optimizer, d.total(), d_parameters, "discriminator")}
        self._after_d_update(d, images)
        if not g_turn_due:
            return StepOutputs(d, None, norms, {})

        with without_weight_gradients(d_parameters), extrapolated(d_parameters, before, self.extrapolation):
            self.g_optimizer.zero_grad()
            for part, d_turn in zip(parts, d_turns, strict=True):
                turn = turn_losses.generator_turn(
                    self.discriminator, self.objective, part.real, part.fake, d_turn.real_logits, part.labels
                )
                g_turns.append(turn._replace(terms=self._g_terms(part)))
                backward(g_turns[-1].total(self.adversarial_weight) / len(parts))
            g = joined(g_turns)
            g_loss = g.total(self.adversarial_weight)
            norms["generator"] = self.updates.step(self.g_optimizer, g_loss, self.g_parameters, "generator")
        return StepOutputs(d, g, norms, mean_of([part.fakes.curves for part in parts]))

    def _both_at_once(self, parts: Iterable[StepInputs], images: int, backward: Callable[..., None]) -> StepOutputs:
        """Both updates from one pass of the suffix, with the discriminator moved on by its last update."""
        d_parameters, d_turns, g_turns, curves = self.d_parameters(), [], [], []
        inputs = [*d_parameters, *(p for p in self.g_parameters if p.requires_grad)]
        now = [p.detach().clone() for p in d_parameters] if self.extrapolation else []
        before = [self.previous_weights.get(p, p.detach()) for p in d_parameters] if self.extrapolation else []
        self.d_optimizer.zero_grad()
        self.g_optimizer.zero_grad()
        with extrapolated(d_parameters, before, self.extrapolation):
            for part in parts:
                with without_weight_gradients(d_parameters):
                    g_terms = self._g_terms(part)
                d, g = turn_losses.both_turns(self.discriminator, self.objective, part.real, part.fake, part.labels)
                d_turns.append(d._replace(terms=self._d_terms(part)))
                g_turns.append(g._replace(terms=g_terms))
                total = d_turns[-1].total() + g_turns[-1].total(self.adversarial_weight)
                backward(total / self.accumulate, inputs=inputs)
                curves.append(part.fakes.curves)
        d, g = joined(d_turns), joined(g_turns)
        norms = {"discriminator": self.updates.step(self.d_optimizer, d.total(), d_parameters, "discriminator")}
        self.previous_weights = dict(zip(d_parameters, now, strict=bool(now)))
        self._after_d_update(d, images)
        g_loss = g.total(self.adversarial_weight)
        norms["generator"] = self.updates.step(self.g_optimizer, g_loss, self.g_parameters, "generator")
        return StepOutputs(d, g, norms, mean_of(curves))

    def _after_d_update(self, d_turn: Turn, images: int) -> None:
        if self.objective.clip is not None:
            turn_losses.clip_weights(self.discriminator, self.objective.clip)  # not those of a strategy's own networks
        assert d_turn.real_logits is not None
        columns, _ = self.discriminator.logit_groups()[0]
        self.augmentation.update(d_turn.real_logits[:, columns] - (self.objective.boundary or 0.0), images)

    def _d_terms(self, inputs: StepInputs) -> dict[str, Tensor]:
        """Weighted scalars added to the discriminator's loss: a gradient penalty, and the strategy's own."""
        terms = {}
        penalty = self.objective.penalty
        if penalty is not None and penalty.due(inputs.update):
            scores = turn_losses.penalty_scores(self.discriminator, inputs.real, inputs.fake, inputs.labels)
            reals = self.augmentation(self.real_features.images(inputs.batch))
            terms["gradient_penalty"] = penalty(scores[0], reals, inputs.shown, fake_score=scores[1])
        if inputs.pairs:
            detached = inputs.pairs._replace(fake=inputs.pairs.fake.detach())
            terms |= self.strategy.discriminator_terms(self.discriminator, detached)
        return terms

    def _g_terms(self, inputs: StepInputs) -> dict[str, Tensor]:
        """Weighted scalars added to the generator's loss: the strategy's, the network's own, and those of the fakes."""
        pairs = inputs.pairs
        terms = self.strategy.generator_terms(self.generator, self.discriminator, pairs) if pairs else {}
        if (regularization := self.generator.regularization()) is not None:
            terms |= {"regularization": regularization}
        return terms | inputs.fakes.terms

    def d_parameters(self) -> list[nn.Parameter]:
        """The parameters that the discriminator's optimizer trains at present."""
        return [p for p in self.discriminator.trainable_parameters() if p.requires_grad] + [*self.strategy.parameters()]

    def state_dict(self) -> dict[str, Tensor]:
        """The weights before the discriminator's last update, by their number among all parameters, frozen or not."""
        return {str(i): w for i, p in self._numbered() if (w := self.previous_weights.get(p)) is not None}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Restore the output of `state_dict`."""
        self.previous_weights = {p: state[str(i)].to(p.device) for i, p in self._numbered() if str(i) in state}

    def _numbered(self) -> Iterator[tuple[int, nn.Parameter]]:
        return enumerate([*self.discriminator.parameters(), *self.strategy.parameters()])
