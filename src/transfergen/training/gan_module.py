"""The adversarial game as a LightningModule: it builds the step, then counts, logs and saves."""

from collections.abc import Iterable, Sequence
from typing import Any, cast

from torch import Tensor, nn
from torch.optim import Optimizer

from transfergen.data.store import Batch
from transfergen.losses.adversarial import Objective
from transfergen.networks.discriminators.base import Discriminator
from transfergen.networks.generators.base import Generator
from transfergen.networks.layers.reparametrization import class_tables, resize_mixtures
from transfergen.training.adversarial_step import AdversarialStep
from transfergen.training.augmentation import Augmentation
from transfergen.training.base_module import GenerativeModule, OptimizerFactory
from transfergen.training.compatibility import check_batch_size, check_game
from transfergen.training.finite_updates import FiniteUpdates
from transfergen.training.freeze_schedule import FreezeSchedule
from transfergen.training.real_features import RealFeatures
from transfergen.training.step_records import Fakes, Generate, StepOutputs, position
from transfergen.transfer.generator_weights import select_weights
from transfergen.transfer.strategy import Strategy

CALIBRATION_IMAGES = 128


class GAN(GenerativeModule):
    """A generator against a discriminator. `adversarial_step.py` is what happens on a batch.

    Args:
        generator, discriminator: the networks.
        objective: their losses.
        augment: what reals and fakes go through before the discriminator sees them.
        d_optimizer, g_optimizer: functions from parameters to an optimizer.
        transfer: which pretrained weights train, when and how fast, and what else is learnt from them.
        d_steps, extrapolation, simultaneous, accumulate: see AdversarialStep.
        average: ema_halflife_images, ema_rampup and seed, see GenerativeModule.

    Raises:
        ValueError: these do not go together.
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
        accumulate: int = 1,
        **average: Any,
    ) -> None:
        check_game(generator, discriminator, objective, augment, transfer, d_steps, simultaneous)
        transfer.attach(generator, discriminator)  # may change the generator, of which the average is a copy
        select_weights(generator, transfer.generator, transfer.generator_last_k)
        super().__init__(generator, **average)
        self.discriminator, self.objective, self.augment, self.transfer = discriminator, objective, augment, transfer
        self.d_optimizer, self.g_optimizer = d_optimizer, g_optimizer
        self.d_steps, self.extrapolation = d_steps, extrapolation
        self.simultaneous, self.accumulate = simultaneous, accumulate
        # DistributedDataParallel never learns of a weight that is frozen when it wraps the module, so those that are
        # released later start as trainable, and the schedule freezes them once the module is wrapped.
        discriminator.freeze(0 if transfer.trunk == "gradual" else transfer.frozen_blocks(discriminator.blocks, 0))
        transfer.freeze_lowest(discriminator)

    def configure_optimizers(self) -> list[Optimizer]:
        """The discriminator's optimizer and the generator's; pretrained weights have a learning rate of their own."""
        trainable = [p for p in self.discriminator.trainable_parameters() if p.requires_grad]
        trainable += self.transfer.parameters()
        trunk = [p for backbone in self.discriminator.backbones for p in backbone.parameters()]
        classes = [p for table in class_tables(self.generator).values() for p in table.parameters()]
        pretrained = _without(self.generator.parameters(), classes) if self.transfer.generator_lr_scale != 1 else []
        return [
            _optimizer(self.d_optimizer, trainable, trunk, self.transfer.trunk_lr_scale),
            _optimizer(self.g_optimizer, self.g_parameters(), pretrained, self.transfer.generator_lr_scale),
        ]

    def on_train_start(self) -> None:
        """Build the step and the trunk's schedule; in a new run, let the discriminator measure real images."""
        super().on_train_start()
        data = self.trainer.datamodule  # type: ignore[attr-defined]
        check_batch_size(self.transfer, data.batch_size, ranks=self.trainer.world_size, parts=self.accumulate)
        shape = data.image_shape
        cache_mib = 0 if shape.channels == 4 else self.transfer.cache_mib  # trunks see alpha on random colours
        real_features = RealFeatures(data.train_set, shape.size, self.discriminator, self.augment, cache_mib=cache_mib)
        self._schedule = FreezeSchedule(
            self.generator, self.discriminator, self.transfer, real_features, seed=self.seed
        )
        self._schedule.update(self.images_seen, self.ema_generator)
        self._step = self.adversarial_step(cast(list[Optimizer], self.optimizers()), real_features, self.updates)
        if self.resumed:
            self._step.load_state_dict(self.resumed["extra"])
        else:
            images = real_features.sample_images(CALIBRATION_IMAGES, self.seed, self.device)
            self.discriminator.calibrate(images)
            self.transfer.start(self.generator, self.discriminator)
        self._last_scalars: dict[str, Tensor] = {}  # of terms that are not computed at every step, too

    def adversarial_step(
        self, optimizers: Sequence[Optimizer], real_features: RealFeatures, updates: FiniteUpdates
    ) -> AdversarialStep:
        """The step of these networks."""
        return AdversarialStep(
            self.generator,
            self.discriminator,
            self.objective,
            self.augment,
            self.transfer,
            optimizers,
            real_features=real_features,
            draw_fakes=self.draw_fakes,
            updates=updates,
            g_parameters=self.g_parameters(),
            adversarial_weight=self.adversarial_weight,
            d_steps=self.d_steps,
            extrapolation=self.extrapolation,
            simultaneous=self.simultaneous,
            accumulate=self.accumulate,
        )

    def training_step(self, batch: Batch, batch_idx: int) -> None:
        """One batch of the game."""
        images, update = position(batch, self.images_seen)
        self._schedule.update(self.images_seen, self.ema_generator)
        outputs = self._step(batch, self.images_seen, backward=self.manual_backward)
        self.images_seen += images
        if outputs.g is None:
            return
        self.update_average(self.d_steps * images)
        columns, _ = self.discriminator.logit_groups()[0]
        self._last_scalars |= scalars(outputs, columns, self.objective.boundary)
        if update % self.trainer.log_every_n_steps < self.d_steps:  # type: ignore[attr-defined]
            curves = self._last_scalars | {"augment/p": self.augment.p}
            here: dict[str, float] = {"trunk/frozen_blocks": self.discriminator.frozen_blocks}
            self._log_curves(curves, here, {"d": "loss/discriminator", "g": "loss/generator"})

    def g_parameters(self) -> list[nn.Parameter]:
        """The parameters that the generator's optimizer trains."""
        return list(self.generator.parameters())

    @property
    def adversarial_weight(self) -> float:
        """Weight of the adversarial loss in the generator's."""
        return self.transfer.adversarial

    def draw_fakes(self, batch: Batch, labels: Tensor | None, generate: Generate) -> Fakes:
        """Generate as many images as there are reals, each from a latent of its own."""
        z = self._randomness.latents(len(batch.pixels), self.generator.z_dim)
        return Fakes(z, generate(z, labels))

    def from_files(self) -> list[str]:
        """Names of the trunks' frozen blocks, where these were read from files."""
        backbones = [backbone for backbone in self.discriminator.backbones if backbone.pretrained]
        return [f"discriminator.{name}" for backbone in backbones for name in self.discriminator.frozen_names(backbone)]

    def extra_state(self) -> dict[str, Any]:
        """The state that the step keeps from batch to batch."""
        return self._step.state_dict()

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Restore a checkpoint.

        A trunk whose frozen blocks the checkpoint holds was trained in an earlier run: no file has its weights, so
        later checkpoints hold them too. Mixtures of a source's classes take as many as it holds.
        """
        held = set(checkpoint["state_dict"])
        resize_mixtures(self, checkpoint["state_dict"])
        super().on_load_checkpoint(checkpoint)
        blocks, discriminator = self.discriminator.frozen_blocks, self.discriminator
        discriminator.freeze(self.transfer.frozen_blocks(discriminator.blocks, self.images_seen))  # as it was saved
        for backbone in discriminator.backbones:
            backbone.pretrained &= held.isdisjoint(f"discriminator.{n}" for n in discriminator.frozen_names(backbone))
        discriminator.freeze(blocks)  # until the module is wrapped, see __init__


def _without(parameters: Iterable[nn.Parameter], others: Iterable[nn.Parameter]) -> list[nn.Parameter]:
    left_out = {id(p) for p in others}
    return [p for p in parameters if id(p) not in left_out]


def _optimizer(
    factory: OptimizerFactory, parameters: list[nn.Parameter], scaled: Iterable[nn.Parameter], factor: float
) -> Optimizer:
    """An optimizer whose learning rate is `factor` times as high for the `scaled` ones among its parameters."""
    others = _without(parameters, scaled)
    groups = [group for group in (others, _without(parameters, others)) if group]
    optimizer = factory([{"params": group} for group in groups])
    if groups[-1] is not others:
        optimizer.param_groups[-1]["lr"] *= factor
    return optimizer


def scalars(outputs: StepOutputs, columns: slice, boundary: float | None) -> dict[str, Tensor]:
    """Scalars of a step to log, by name.

    Args:
        outputs: of the step.
        columns: of the logits that count; a discriminator with several parts may have many more.
        boundary: the logit above which an image counts as real; without one there are no accuracies.
    """
    assert outputs.d.real_logits is not None
    real_logits, fake_logits = outputs.d.real_logits[:, columns], outputs.d.fake_logits[:, columns]
    values = {"loss/discriminator": outputs.d.loss}
    if outputs.g is not None:
        values["loss/generator"] = outputs.g.loss
    values |= {"logits/real": real_logits.mean(), "logits/fake": fake_logits.mean()}
    values |= {f"gradient_norm/{network}": norm for network, norm in outputs.gradient_norms.items()}
    if boundary is not None:
        values["accuracy/real"] = (real_logits > boundary).float().mean()
        values["accuracy/fake"] = (fake_logits < boundary).float().mean()
    return values | {f"loss/{name}": term for name, term in outputs.terms.items()} | outputs.curves
