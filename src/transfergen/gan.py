"""The adversarial game as a LightningModule: it calls the two turns, counts images and logs."""

import time
from collections.abc import Callable, Iterable
from typing import Any, cast

import torch
import torch.distributed as dist
from lightning import LightningModule
from lightning.pytorch.core.optimizer import LightningOptimizer
from torch import Tensor, nn
from torch.optim import Optimizer

from transfergen.data.store import Batch
from transfergen.discriminators.vgg import VGGDiscriminator
from transfergen.ema import EMA
from transfergen.generators.base import Generator
from transfergen.images import to_float
from transfergen.losses.adversarial import Objective
from transfergen.randomness import RankRandomness
from transfergen.step import (
    FeatureCache,
    Features,
    Turn,
    discriminator_turn,
    generator_turn,
    gradient_norm,
    without_weight_gradients,
)
from transfergen.transfer.trunk import TrunkSchedule

CALIBRATION_IMAGES = 128

OptimizerFactory = Callable[[Iterable[nn.Parameter]], Optimizer]


class GAN(LightningModule):
    """A generator against a discriminator, alternating on each batch.

    Everything is counted in `images_seen`, the reals shown to the discriminator over all ranks: Lightning's own
    `global_step` counts the steps of both optimizers.

    Args:
        generator, discriminator: the networks.
        objective: their losses.
        d_optimizer, g_optimizer: functions from parameters to an optimizer.
        trunk: which of the discriminator's pretrained blocks train, and when.
        d_steps: the discriminator is updated on every batch and the generator on every `d_steps`-th.
        ema_halflife_images: half-life of the generator's moving average; 0 keeps none.
        ema_rampup: the half-life is at most this fraction of the images seen.
        seed: of the latents; each rank draws its own.
    """

    def __init__(
        self,
        generator: Generator,
        discriminator: VGGDiscriminator,
        objective: Objective,
        *,
        d_optimizer: OptimizerFactory,
        g_optimizer: OptimizerFactory,
        trunk: TrunkSchedule,
        d_steps: int = 1,
        ema_halflife_images: float = 10_000,
        ema_rampup: float = 0.05,
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.automatic_optimization = False
        if d_steps < 1:
            raise ValueError(f"gan.d_steps={d_steps}: the discriminator is updated at least once for each update of G")
        self.generator, self.discriminator, self.objective = generator, discriminator, objective
        self.ema = (
            EMA(generator, halflife_images=ema_halflife_images, rampup=ema_rampup) if ema_halflife_images else None
        )
        self.d_optimizer, self.g_optimizer = d_optimizer, g_optimizer
        self.trunk, self.d_steps, self.seed = trunk, d_steps, seed
        self.images_seen = 0
        self.last_scalars: dict[str, float] = {}
        self._saved_rng: list[dict[str, Tensor]] | None = None
        self._saved_names: list[list[str]] | None = None
        blocks = len(discriminator.backbone.blocks)
        # DistributedDataParallel never learns of a weight that is frozen when it wraps the module, so those that thaw
        # later start as trainable, and `_follow_schedule` freezes them once the module is wrapped.
        discriminator.freeze(0 if trunk.trunk == "gradual" else trunk.frozen_blocks(blocks, 0))

    @property
    def sampler(self) -> Generator:
        """The generator to take samples from: the moving average, or the plain one where none is kept."""
        return self.ema.network if self.ema else self.generator

    def configure_optimizers(self) -> list[Optimizer]:
        """The discriminator's and the generator's."""
        return [
            self.d_optimizer(list(self.discriminator.trainable_parameters())),
            self.g_optimizer(list(self.generator.parameters())),
        ]

    def on_train_start(self) -> None:
        """Per-rank random state, the trunk's schedule, and an empty feature cache.

        Raises:
            ValueError: a resumed checkpoint's optimizers, which are restored by position, hold other weights.
        """
        if self._saved_names not in (None, [self._optimized_names(i) for i in range(2)]):
            raise ValueError(
                "resume: the checkpoint's optimizers hold other weights than this run's; resume with the run's own "
                "generator, discriminator, backbone and transfer settings"
            )
        for optimizer in self.trainer.optimizers:
            for group in optimizer.param_groups:
                group.update(optimizer.defaults)  # the checkpoint brought its own; this run's config decides
        rank, images_seen = self.global_rank, self.images_seen
        self._randomness = RankRandomness(self.device, seed=self.seed, images_seen=images_seen, rank=rank)
        if self._saved_rng is not None and len(self._saved_rng) == self.trainer.world_size:
            self._randomness.restore(self._saved_rng[rank])
        train_set = self.trainer.datamodule.train_set  # type: ignore[attr-defined]
        self._cache = FeatureCache(len(train_set), self.trunk.cache_mib)
        self._resolution = self.trainer.datamodule.resolution  # type: ignore[attr-defined]
        self._all_finite = torch.ones((), dtype=torch.bool, device=self.device)
        self._clock = (time.perf_counter(), self.images_seen)
        self._images_at_g_step = self.images_seen
        self._follow_schedule()
        if not self.images_seen:
            some = train_set.some(CALIBRATION_IMAGES, self.seed).pixels.to(self.device)  # the same on all ranks
            self.discriminator.calibrate(to_float(some, self._resolution))

    def training_step(self, batch: Batch, batch_idx: int) -> None:
        """Both turns on one batch."""
        d_optimizer, g_optimizer = cast(list[LightningOptimizer], self.optimizers())
        images = len(batch.pixels) * self.trainer.world_size
        batches_seen = self.images_seen // images  # `batch_idx` starts anew with each epoch, which may be one batch
        g_turn_due = (batches_seen + 1) % self.d_steps == 0
        self._follow_schedule()
        real = self._real_features(batch)
        latents = self._randomness.latents(len(batch.pixels), self.generator.z_dim)
        with torch.set_grad_enabled(g_turn_due):
            fake = self.discriminator.features(self.generator(latents))

        d_parameters = list(self.discriminator.trainable_parameters())
        d_turn = discriminator_turn(self.discriminator, self.objective, real, fake)
        d_norm = self._update(d_optimizer, d_turn, d_parameters, "discriminator")
        self.images_seen += images
        if not g_turn_due:
            return
        with without_weight_gradients(d_parameters):
            g_turn = generator_turn(self.discriminator, self.objective, fake, d_turn.real_logits)
            g_norm = self._update(g_optimizer, g_turn, list(self.generator.parameters()), "generator")
        if self.ema:
            new_images = self.images_seen - self._images_at_g_step
            self.ema.update(self.generator, images=new_images, images_seen=self.images_seen)
        self._images_at_g_step = self.images_seen

        if batches_seen % self.trainer.log_every_n_steps < self.d_steps:  # type: ignore[attr-defined]
            self.raise_if_not_finite()
            self._log(d_turn, g_turn, d_norm, g_norm)

    def _real_features(self, batch: Batch) -> Features:
        def compute(positions: Tensor | None) -> Features:
            pixels = batch.pixels if positions is None else batch.pixels[positions.to(batch.pixels.device)]
            return self.discriminator.features(to_float(pixels, self._resolution))

        if self.discriminator.frozen_blocks == 0:
            return compute(None)
        return self._cache.get(torch.from_numpy(batch.indices), compute)

    def _follow_schedule(self) -> None:
        frozen = self.trunk.frozen_blocks(len(self.discriminator.backbone.blocks), self.images_seen)
        if frozen != self.discriminator.frozen_blocks:
            self.discriminator.freeze(frozen)
            self._cache.clear()

    def _update(self, optimizer: LightningOptimizer, turn: Turn, parameters: list[nn.Parameter], who: str) -> Tensor:
        """Step, unless the loss or a gradient is not finite, on any rank. Returns the norm of the gradients."""
        optimizer.zero_grad()
        self.manual_backward(turn.loss)
        norm = gradient_norm(parameters)
        finite = torch.isfinite(norm + turn.loss.detach())
        if self.trainer.world_size > 1:
            agreed = finite.float()
            dist.all_reduce(agreed, dist.ReduceOp.MIN)
            finite = agreed.bool()
        self._all_finite &= finite
        if self.device.type == "cuda" and getattr(optimizer.optimizer, "_step_supports_amp_scaling", False):
            # The kernel itself leaves out the update: nothing waits for the device. The flag is read when logging.
            optimizer.optimizer.found_inf = (~finite).float()  # type: ignore[attr-defined]
        else:
            self.raise_if_not_finite(who)
        optimizer.step()
        return norm

    def raise_if_not_finite(self, who: str = "discriminator or generator") -> None:
        """Raises FloatingPointError if an update had to be left out; the weights are those from before it."""
        if not self._all_finite:
            raise FloatingPointError(
                f"the {who}'s loss or gradient is not finite after {self.images_seen:,} images; stopped before the "
                "update, and the last checkpoint is good; try a lower optimizer.discriminator.lr and "
                "optimizer.generator.lr, or trainer.precision=32-true"
            )

    @torch.no_grad()
    def _log(self, d: Turn, g: Turn, d_norm: Tensor, g_norm: Tensor) -> None:
        assert d.real_logits is not None
        names = {
            "loss/discriminator": d.loss,
            "loss/generator": g.loss,
            "logits/real": d.real_logits.mean(),
            "logits/fake": d.fake_logits.mean(),
            "accuracy/real": (d.real_logits > 0).float().mean(),
            "accuracy/fake": (d.fake_logits < 0).float().mean(),
            "gradient_norm/discriminator": d_norm,
            "gradient_norm/generator": g_norm,
        }
        values = torch.stack([value.detach().float() for value in names.values()])
        values = self.trainer.strategy.reduce(values, reduce_op="mean")
        scalars = dict(zip(names, values.tolist(), strict=True))
        now, (then, images_then) = time.perf_counter(), self._clock
        scalars["images_per_second"] = (self.images_seen - images_then) / (now - then)
        scalars["trunk/frozen_blocks"] = self.discriminator.frozen_blocks
        self._clock = (now, self.images_seen)
        for logger in self.loggers:
            logger.log_metrics(scalars, step=self.images_seen)
            logger.save()
        self.last_scalars = scalars
        shown = {"d": scalars["loss/discriminator"], "g": scalars["loss/generator"]}
        self.log_dict(shown | {"img/s": scalars["images_per_second"]}, prog_bar=True, logger=False)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Adds what Lightning does not keep: the count, every rank's random state, and which weights were optimised."""
        self.raise_if_not_finite()
        names = [self._optimized_names(i) for i in range(2)]
        states = self._randomness.states_of_all_ranks()
        checkpoint["transfergen"] = {"images_seen": self.images_seen, "rng": states, "optimized": names}

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Takes it back.

        Raises:
            ValueError: the checkpoint is of another program.
        """
        if "transfergen" not in checkpoint:
            raise ValueError("resume: the checkpoint was not written by transfergen's GAN")
        own = checkpoint["transfergen"]
        self.images_seen, self._saved_rng, self._saved_names = own["images_seen"], own["rng"], own["optimized"]

    def _optimized_names(self, index: int) -> list[str]:
        names = {id(parameter): name for name, parameter in self.named_parameters()}
        return [names[id(p)] for group in self.trainer.optimizers[index].param_groups for p in group["params"]]
