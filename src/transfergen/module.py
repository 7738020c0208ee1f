"""What every training has: a count of images, a moving average, random state, safe updates, curves, checkpoints."""

import time
from collections.abc import Callable
from typing import Any, cast

import torch
import torch.distributed as dist
from lightning import LightningModule
from lightning.pytorch.core.optimizer import LightningOptimizer
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.optimizer import ParamsT

from transfergen.ema import EMA
from transfergen.generators.base import Generator
from transfergen.randomness import RankRandomness
from transfergen.ranks import of_all_ranks
from transfergen.step import gradient_norm

OptimizerFactory = Callable[[ParamsT], Optimizer]


class GenerativeModule(LightningModule):
    """A generator in training, by manual optimisation.

    Everything is counted in `images_seen`, real images over all ranks: Lightning's own `global_step` counts the steps
    of all optimizers together.

    Args:
        generator: the network that makes images.
        ema_halflife_images: half-life of its moving average; 0 keeps none.
        ema_rampup: the half-life is at most this fraction of the images seen.
        seed: of the latents; each rank draws its own.
    """

    def __init__(self, generator: Generator, *, ema_halflife_images: float, ema_rampup: float, seed: int) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.generator = generator
        self.ema = (
            EMA(generator, halflife_images=ema_halflife_images, rampup=ema_rampup) if ema_halflife_images else None
        )
        self.seed = seed
        self.images_seen = 0
        self.last_scalars: dict[str, float] = {}
        self._saved_rng: list[dict[str, Tensor]] | None = None
        self._saved_names: list[list[str]] | None = None

    @property
    def sampler(self) -> Generator:
        """The generator to take samples from: the moving average, or the plain one where none is kept."""
        return self.ema.network if self.ema else self.generator

    def on_train_start(self) -> None:
        """Per-rank random state.

        Raises:
            ValueError: a resumed checkpoint's optimizers, which are restored by position, hold other weights.
        """
        if self._saved_names not in (None, self._optimized_names()):
            raise ValueError(
                "resume: the checkpoint's optimizers hold other weights than this run's; resume with the run's own "
                "generator, discriminator, backbone and transfer settings"
            )
        configured = cast(list[Optimizer], self.configure_optimizers())
        for optimizer, fresh in zip(self.trainer.optimizers, configured, strict=True):
            for group, ours in zip(optimizer.param_groups, fresh.param_groups, strict=True):
                group.update(ours | {"params": group["params"]})  # the checkpoint's are of another config
        rank, images_seen = self.global_rank, self.images_seen
        self._randomness = RankRandomness(self.device, seed=self.seed, images_seen=images_seen, rank=rank)
        if self._saved_rng is not None and len(self._saved_rng) == self.trainer.world_size:
            self._randomness.restore(self._saved_rng[rank])
        self._all_finite = torch.ones((), dtype=torch.bool, device=self.device)
        self._clock = (time.perf_counter(), self.images_seen)

    def _update(self, optimizer: LightningOptimizer, loss: Tensor, parameters: list[nn.Parameter], who: str) -> Tensor:
        """Step, unless the loss or a gradient is not finite, on any rank. Returns the norm of the gradients."""
        optimizer.zero_grad()
        self.manual_backward(loss)
        norm = gradient_norm(parameters)
        finite = torch.isfinite(norm + loss.detach())
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
    def _log_curves(self, curves: dict[str, Tensor], here: dict[str, float], shown: dict[str, str]) -> None:
        """To all loggers, over images seen.

        Args:
            curves: scalars by name, averaged over ranks; the one place of a step that waits for the device.
            here: the same on all ranks.
            shown: names on the progress bar, and whose curve stands there.
        """
        self.raise_if_not_finite()
        values = torch.stack([value.detach().float() for value in curves.values()])
        values = self.trainer.strategy.reduce(values, reduce_op="mean")
        scalars = dict(zip(curves, values.tolist(), strict=True))
        now, (then, images_then) = time.perf_counter(), self._clock
        scalars["images_per_second"] = (self.images_seen - images_then) / (now - then)
        scalars |= here
        self._clock = (now, self.images_seen)
        for logger in self.loggers:
            logger.log_metrics(scalars, step=self.images_seen)
            logger.save()
        self.last_scalars = scalars
        on_bar = {name: scalars[curve] for name, curve in shown.items()}
        self.log_dict(on_bar | {"img/s": scalars["images_per_second"]}, prog_bar=True, logger=False)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Adds what Lightning does not keep: the count, every rank's random state, and which weights were optimised."""
        self.raise_if_not_finite()
        states = of_all_ranks(self._randomness.state())
        own = {"images_seen": self.images_seen, "rng": states, "optimized": self._optimized_names()}
        checkpoint["transfergen"] = own

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Takes it back.

        Raises:
            ValueError: the checkpoint is of another program.
        """
        if "transfergen" not in checkpoint:
            raise ValueError("resume: the checkpoint was not written by transfergen")
        mine = {name: tensor.shape for name, tensor in self.state_dict().items() if isinstance(tensor, Tensor)}
        its = {name: tensor.shape for name, tensor in checkpoint["state_dict"].items() if isinstance(tensor, Tensor)}
        if mine != its:
            differing = [name for name in (mine | its) if mine.get(name) != its.get(name)]
            raise ValueError(
                f"resume: the checkpoint is of other networks: {len(differing)} of {len(its)} tensors differ, "
                f"{differing[0]} first; resume with the run's own generator, discriminator, backbone and augment"
            )
        own = checkpoint["transfergen"]
        self.images_seen, self._saved_rng, self._saved_names = own["images_seen"], own["rng"], own["optimized"]

    def _optimized_names(self) -> list[list[str]]:
        names = {id(parameter): name for name, parameter in self.named_parameters()}
        return [
            [names[id(p)] for group in optimizer.param_groups for p in group["params"]]
            for optimizer in self.trainer.optimizers
        ]
