"""The adversarial game as a LightningModule: it calls the two turns on each batch."""

from functools import partial
from typing import Any, cast

import torch
from lightning.pytorch.core.optimizer import LightningOptimizer
from torch import Tensor, nn
from torch.optim import Optimizer

from transfergen.data.store import Batch
from transfergen.losses.adversarial import Objective
from transfergen.networks.discriminators.base import Discriminator
from transfergen.networks.generators.base import Generator
from transfergen.training.adversarial_step import Draw, Played, total
from transfergen.training.augmentation import Augmentation
from transfergen.training.base_module import GenerativeModule, OptimizerFactory
from transfergen.training.compatibility import check_game
from transfergen.training.freeze_schedule import FreezeSchedule
from transfergen.training.real_features import RealFeatures
from transfergen.training.turn_losses import (
    Turn,
    both_turns,
    clip_weights,
    discriminator_turn,
    extrapolated,
    generator_turn,
    mean_logits,
    without_weight_gradients,
)
from transfergen.transfer.strategy import Pairs, Strategy

CALIBRATION_IMAGES = 128


class GAN(GenerativeModule):
    """A generator against a discriminator: on each batch one after the other, or both at once.

    Args:
        generator, discriminator: the networks.
        objective: their losses.
        augment: what reals and fakes alike go through on their way to the discriminator.
        d_optimizer, g_optimizer: functions from parameters to an optimizer.
        transfer: which pretrained weights train, when and how fast, and what else is learnt from them.
        d_steps: the discriminator is updated on every batch and the generator on every `d_steps`-th.
        extrapolation: in the generator's turn the discriminator is moved on by so much of its last update; 0: not.
        simultaneous: whether both are updated from one pass of the discriminator, neither after the other.
            With `extrapolation`, from the moved one: extrapolation from the past. Gidel 2019, arXiv:1802.10551.
        ema_halflife_images, ema_rampup, seed: see GenerativeModule.
    """

    def __init__(
        self,
        generator: Generator,
        discriminator: Discriminator,
        objective: Objective,
        augment: Augmentation,
        *,
        d_optimizer: OptimizerFactory,
        g_optimizer: OptimizerFactory,
        transfer: Strategy,
        d_steps: int = 1,
        extrapolation: float = 0.0,
        simultaneous: bool = False,
        ema_halflife_images: float = 10_000,
        ema_rampup: float = 0.05,
        seed: int = 0,
    ) -> None:
        check_game(generator, discriminator, objective, augment, transfer, d_steps, extrapolation, simultaneous)
        transfer.attach(generator, discriminator)  # may change the generator, of which the average is a copy
        super().__init__(generator, ema_halflife_images=ema_halflife_images, ema_rampup=ema_rampup, seed=seed)
        self.discriminator, self.objective, self.augment, self.transfer = discriminator, objective, augment, transfer
        self.d_optimizer, self.g_optimizer = d_optimizer, g_optimizer
        self.d_steps, self.extrapolation, self.simultaneous = d_steps, extrapolation, simultaneous
        # DistributedDataParallel never learns of a weight that is frozen when it wraps the module, so those that thaw
        # later start as trainable, and the schedule freezes them once the module is wrapped.
        discriminator.freeze(0 if transfer.trunk == "gradual" else transfer.frozen_blocks(discriminator.blocks, 0))
        transfer.freeze_lowest(discriminator)

    def configure_optimizers(self) -> list[Optimizer]:
        """The discriminator's, with a rate of its own for the pretrained trunk, and the generator's."""
        pretrained = {id(p) for backbone in self.discriminator.backbones for p in backbone.parameters()}
        others: list[nn.Parameter] = [p for p in self._d_parameters() if id(p) not in pretrained]
        trunk = [p for p in self._d_parameters() if id(p) in pretrained]
        d_optimizer = self.d_optimizer([{"params": group} for group in (others, trunk) if group])
        if trunk:
            d_optimizer.param_groups[-1]["lr"] *= self.transfer.trunk_lr_scale
        return [d_optimizer, self.g_optimizer(self._g_parameters())]

    def on_train_start(self) -> None:
        """The trunk's schedule, an empty feature cache and, in a new run, the constants measured on reals."""
        super().on_train_start()
        data = self.trainer.datamodule  # type: ignore[attr-defined]
        self._reals = RealFeatures(
            data.train_set, data.resolution, self.discriminator, self.augment, cache_mib=self.transfer.cache_mib
        )
        batch = self._order.batch_size
        self._images_at_g_step = self.images_seen - self.images_seen // batch % self.d_steps * batch
        self._last_curves: dict[str, Tensor] = {}  # of what is not computed in every step
        self._schedule = FreezeSchedule(self.discriminator, self.transfer, self._reals, seed=self.seed)
        self._schedule.update(self.images_seen, self.ema_generator)
        if not self.images_seen:
            self.discriminator.calibrate(self._reals.sample_images(CALIBRATION_IMAGES, self.seed, self.device))
            self.transfer.start(self.generator, self.discriminator)

    def training_step(self, batch: Batch, batch_idx: int) -> None:
        """Both turns on one batch."""
        images = len(batch.pixels) * self.trainer.world_size
        update = self.images_seen // images  # `batch_idx` starts anew with each epoch, which may be one batch
        g_turn_due = (update + 1) % self.d_steps == 0
        self._schedule.update(self.images_seen, self.ema_generator)
        draw = self._draw(batch, update, with_graph=g_turn_due)
        played = self._at_once(draw, images) if self.simultaneous else self._in_turns(draw, images, g_turn_due)
        if played is None:
            return
        if self.ema:
            new_images = self.images_seen - self._images_at_g_step
            self.ema.update(self.generator, images=new_images, images_seen=self.images_seen)
        self._images_at_g_step = self.images_seen

        self._last_curves |= {f"loss/{name}": term for name, term in played.terms.items()}
        if update % self.trainer.log_every_n_steps < self.d_steps:  # type: ignore[attr-defined]
            self._log_turns(played)

    def _draw(self, batch: Batch, update: int, *, with_graph: bool) -> Draw:
        real = self._reals.features(batch)
        y = batch.labels if self.generator.num_classes else None  # the fakes are of the classes of the reals
        with torch.set_grad_enabled(with_graph):
            z, generated = self._fakes(batch, y)
            shown = self.augment(generated)
            fake = self.discriminator.features(shown)
        pairs = Pairs(z, y, generated, self._reals.images(batch)) if self.transfer.has_terms else None
        return Draw(batch, update, y, shown.detach(), real, fake, pairs)

    def _in_turns(self, draw: Draw, images: int, g_turn_due: bool) -> Played | None:
        """The discriminator's update; then, if it is due, the generator's against the updated one."""
        d_optimizer, g_optimizer = cast(list[LightningOptimizer], self.optimizers())
        d_parameters = self._d_parameters()
        d_turn = discriminator_turn(self.discriminator, self.objective, draw.real, draw.fake, draw.y)
        d_terms = self._d_terms(draw)
        before = [p.detach().clone() for p in d_parameters] if self.extrapolation and g_turn_due else []
        d_norm = self._update(d_optimizer, total(d_turn.loss, d_terms), d_parameters, "discriminator")
        self._after_d_update(d_turn, images)
        if not g_turn_due:
            return None
        with without_weight_gradients(d_parameters), extrapolated(d_parameters, before, self.extrapolation):
            g_turn = generator_turn(
                self.discriminator, self.objective, draw.real, draw.fake, d_turn.real_logits, draw.y
            )
            g_terms = self._g_terms(draw)
            g_loss = total(self._adversarial_weight() * g_turn.loss, g_terms)
            g_norm = self._update(g_optimizer, g_loss, self._g_parameters(), "generator")
        return Played(d_turn, g_turn, d_norm, g_norm, d_terms | g_terms)

    def _at_once(self, draw: Draw, images: int) -> Played:
        """Both updates from one pass of the suffix, with the discriminator where its last update leads once more."""
        optimizers = cast(list[LightningOptimizer], self.optimizers())
        d_optimizer, g_optimizer = optimizers
        d_parameters = self._d_parameters()
        g_parameters = [p for p in self._g_parameters() if p.requires_grad]
        state = d_optimizer.optimizer.state  # which checkpoints hold
        before = [state[p].get("before", p.detach()) for p in d_parameters] if self.extrapolation else []
        now = [p.detach().clone() for p in d_parameters] if self.extrapolation else []
        with extrapolated(d_parameters, before, self.extrapolation):
            with without_weight_gradients(d_parameters):
                g_terms = self._g_terms(draw)
            d_turn, g_turn = both_turns(self.discriminator, self.objective, draw.real, draw.fake, draw.y)
            d_terms = self._d_terms(draw)
            d_loss = total(d_turn.loss, d_terms)
            g_loss = total(self._adversarial_weight() * g_turn.loss, g_terms)
            for optimizer in optimizers:
                optimizer.zero_grad()
            self.manual_backward(d_loss + g_loss, inputs=[*d_parameters, *g_parameters])
        d_norm = self._step(d_optimizer, d_loss, d_parameters, "discriminator")
        for p, weights in zip(d_parameters, now, strict=False):  # none, without extrapolation
            state[p]["before"] = weights
        self._after_d_update(d_turn, images)
        g_norm = self._step(g_optimizer, g_loss, g_parameters, "generator")
        return Played(d_turn, g_turn, d_norm, g_norm, d_terms | g_terms)

    def _after_d_update(self, d_turn: Turn, images: int) -> None:
        if self.objective.clip is not None:
            clip_weights(self.discriminator, self.objective.clip)  # not those of a transfer strategy's own networks
        self.images_seen += images
        assert d_turn.real_logits is not None
        self.augment.update(d_turn.real_logits[:, self._main] - (self.objective.boundary or 0.0), images)

    def _d_terms(self, draw: Draw) -> dict[str, Tensor]:
        """Weighted scalars by name, added to the discriminator's loss."""
        terms = self._penalty(draw)
        if draw.pairs:
            detached = draw.pairs._replace(fake=draw.pairs.fake.detach())
            terms |= self.transfer.discriminator_terms(self.discriminator, detached)
        return terms

    def _g_terms(self, draw: Draw) -> dict[str, Tensor]:
        """The same for the generator's."""
        pairs = draw.pairs
        terms = self.transfer.generator_terms(self.generator, self.discriminator, pairs) if pairs else {}
        return terms | self._own_terms()

    def from_files(self) -> list[str]:
        """Names of the trunks' frozen blocks, where these were read from files."""
        backbones = [backbone for backbone in self.discriminator.backbones if backbone.pretrained]
        return [f"discriminator.{name}" for backbone in backbones for name in self.discriminator.frozen_names(backbone)]

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """As usual; a trunk that the checkpoint holds came tuned from another run: later checkpoints hold it too."""
        for backbone in self.discriminator.backbones:
            names = {f"discriminator.{name}" for name in self.discriminator.frozen_names(backbone)}
            backbone.pretrained &= names.isdisjoint(checkpoint["state_dict"])
        super().on_load_checkpoint(checkpoint)

    def _d_parameters(self) -> list[nn.Parameter]:
        """What the discriminator's optimizer trains."""
        its = (p for p in self.discriminator.trainable_parameters() if p.requires_grad)
        return [*its, *self.transfer.parameters()]

    def _g_parameters(self) -> list[nn.Parameter]:
        """What the generator's optimizer trains."""
        return list(self.generator.parameters())

    def _fakes(self, batch: Batch, y: Tensor | None) -> tuple[Tensor, Tensor]:
        """Latents (B, Z) and what the generator makes of them, as many as there are reals."""
        z = self._randomness.latents(len(batch.pixels), self.generator.z_dim)
        return z, self.generator(z, y)

    def _own_terms(self) -> dict[str, Tensor]:
        """Weighted scalars by name, added to the generator's loss."""
        regularization = self.generator.regularization()
        return {} if regularization is None else {"regularization": regularization}

    def _adversarial_weight(self) -> float:
        return self.transfer.adversarial

    def _penalty(self, draw: Draw) -> dict[str, Tensor]:
        """The gradient penalty, if it is due at this update. Compiled code has no second derivatives."""
        penalty = self.objective.penalty
        if penalty is None or not penalty.due(draw.update):
            return {}
        score = partial(mean_logits, self.discriminator, y=draw.y)
        with torch.compiler.set_stance("force_eager"):
            return {"gradient_penalty": penalty(score, self.augment(self._reals.images(draw.batch)), draw.shown)}

    @property
    def _main(self) -> slice:
        """Columns of the first part's logits, which curves and adaptive augmentation go by: others may be many more."""
        return self.discriminator.parts()[0][0]

    def _log_turns(self, played: Played) -> None:
        curves = played.curves(self._main, self.objective.boundary) | {"augment/p": self.augment.p} | self._last_curves
        here: dict[str, float] = {"trunk/frozen_blocks": self.discriminator.frozen_blocks}
        self._log_curves(curves, here, {"d": "loss/discriminator", "g": "loss/generator"})
