"""The base of all trainings: a count of images, a moving average, random state, curves and checkpoints."""

import time
from collections.abc import Callable
from typing import Any, cast

import torch
from lightning import LightningModule
from torch import Tensor
from torch.optim import Optimizer
from torch.optim.optimizer import ParamsT

from transfergen.distributed import all_gather_objects
from transfergen.networks.generators.base import Generator
from transfergen.runs.checkpoint import FORMAT
from transfergen.runs.resume import KEY, check_and_complete, leave_out, set_loop_progress
from transfergen.training.ema import EMA
from transfergen.training.finite_updates import FiniteUpdates
from transfergen.training.optimizer_state import check_and_regroup, optimized_names
from transfergen.training.randomness import RankRandomness

OptimizerFactory = Callable[[ParamsT], Optimizer]


class GenerativeModule(LightningModule):
    """A generator in training, by manual optimisation.

    Everything is counted in `images_seen`, the real images seen over all ranks. Lightning's own `global_step` counts
    the steps of all optimizers together.

    Args:
        generator: the network that makes images.
        ema_halflife_images: half-life of its moving average, in real images; 0 keeps no average.
        ema_rampup: the half-life is at most this fraction of the images seen; 0: no such limit.
        seed: of the latents; each rank draws its own.
    """

    def __init__(
        self, generator: Generator, *, ema_halflife_images: float = 10_000, ema_rampup: float = 0.05, seed: int = 0
    ) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.generator = generator
        self.ema = (
            EMA(generator, halflife_images=ema_halflife_images, rampup=ema_rampup) if ema_halflife_images else None
        )
        self.seed = seed
        self.images_seen = 0
        self.last_scalars: dict[str, float] = {}
        self.config: dict[str, Any] = {}
        """The config that the networks were built from, for the message if a checkpoint is of other networks."""
        self.started_from: str | None = None
        """Whose generator this one started from, and its licence, in words; None: nobody else's."""
        self.resumed: dict[str, Any] | None = None
        """Our own part of the checkpoint that this training goes on from; None for a new training."""

    @property
    def ema_generator(self) -> Generator:
        """The generator to take samples from: the moving average, or the plain one where none is kept."""
        return self.ema.network if self.ema else self.generator

    @property
    def seconds(self) -> float:
        """How long the run has trained, with its time before it was resumed."""
        before = self.resumed["seconds"] if self.resumed else 0.0
        return round(before + time.perf_counter() - self._started_at, 1)

    def on_train_start(self) -> None:
        """Set up the optimizers' settings, each rank's random state and the clock."""
        configured = cast(list[Optimizer], self.configure_optimizers())
        for optimizer, fresh in zip(self.trainer.optimizers, configured, strict=True):
            for group, ours in zip(optimizer.param_groups, fresh.param_groups, strict=True):
                group.update(ours | {"params": group["params"]})  # the config decides, not the checkpoint
        rank = self.global_rank
        self._randomness = RankRandomness(self.device, seed=self.seed, images_seen=self.images_seen, rank=rank)
        if self.resumed and len(self.resumed["rng"]) == self.trainer.world_size:
            self._randomness.restore(self.resumed["rng"][rank])
        self.updates = FiniteUpdates(self.device)
        self._started_at = time.perf_counter()
        self._clock = (self._started_at, self.images_seen)

    def manual_backward(self, loss: Tensor, *args: Any, **kwargs: Any) -> None:
        """Run a backward pass without autocast, which would take second derivatives, as of penalties, in bfloat16."""
        with torch.autocast(self.device.type, enabled=False):
            super().manual_backward(loss, *args, **kwargs)

    def update_average(self, images: int) -> None:
        """Update the moving average, when the generator was updated. `images` were seen since its last update."""
        if self.ema:
            self.ema.update(self.generator, images=images, images_seen=self.images_seen)

    @torch.no_grad()
    def _log_curves(self, curves: dict[str, Tensor], here: dict[str, float], shown: dict[str, str]) -> None:
        """Log to all loggers, over images seen.

        Args:
            curves: scalars by name, averaged over ranks; reading them is where a step waits for the device.
            here: further scalars, which are the same on all ranks.
            shown: names on the progress bar, each with the name of the curve that it shows.
        """
        self.updates.raise_if_not_finite()
        values = torch.stack([value.detach().float() for value in curves.values()])
        values = self.trainer.strategy.reduce(values, reduce_op="mean")
        scalars = dict(zip(curves, values.tolist(), strict=True))
        now, (then, images_then) = time.perf_counter(), self._clock
        scalars["images_per_second"] = (self.images_seen - images_then) / (now - then)
        scalars["threads"] = torch.get_num_threads()
        optimizers = self.trainer.optimizers
        for name, optimizer in zip(("discriminator", "generator")[-len(optimizers) :], optimizers, strict=True):
            scalars[f"learning_rate/{name}"] = optimizer.param_groups[0]["lr"]
        scalars |= here
        self._clock = (now, self.images_seen)
        for logger in self.loggers:
            logger.log_metrics(scalars, step=self.images_seen)
            logger.save()
        self.last_scalars = scalars
        on_bar = {name: scalars[curve] for name, curve in shown.items()}
        self.log_dict(on_bar | {"img/s": scalars["images_per_second"]}, prog_bar=True, logger=False)

    def from_files(self) -> list[str]:
        """Names of tensors that were read from files and never change: no checkpoint holds them."""
        return []

    def extra_state(self) -> dict[str, Any]:
        """Further state for a checkpoint. A resumed training finds it in `resumed["extra"]`."""
        return {}

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add what Lightning does not keep, and take out what comes from files."""
        self.updates.raise_if_not_finite()
        checkpoint[KEY] = {
            "format": FORMAT,
            "images_seen": self.images_seen,
            "seconds": self.seconds,
            "rng": all_gather_objects(self._randomness.state()),
            "optimized": optimized_names(self, self.trainer.optimizers),
            "optimizers": [type(optimizer).__name__ for optimizer in self.trainer.optimizers],
            "extra": self.extra_state(),
            "config": self.config,
            "started_from": self.started_from,
        }
        leave_out(checkpoint, self.from_files())

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Restore a checkpoint, and go on after its number of images.

        Raises:
            ValueError: the checkpoint is of another program, of a newer version, of other networks or optimizers.
        """
        self.resumed = check_and_complete(checkpoint, self.state_dict(), self.config)
        optimizers = cast(list[Optimizer], self.configure_optimizers())
        names = optimized_names(self, optimizers)
        check_and_regroup(checkpoint["optimizer_states"], self.resumed, optimizers, names, self.config)
        self.images_seen = self.resumed["images_seen"]
        self.started_from = self.resumed.get("started_from")  # older checkpoints lack it
        data = self.trainer.datamodule  # type: ignore[attr-defined]
        data.images_seen = self.images_seen
        set_loop_progress(
            checkpoint, self.images_seen, batch_size=data.batch_size, batches_per_epoch=data.batches_per_epoch
        )
