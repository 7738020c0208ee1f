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

from transfergen.data.sampler import BatchOrder
from transfergen.distributed import all_gather_objects
from transfergen.networks.generators.base import Generator
from transfergen.runs.checkpoint import FORMAT, differing, place, tensors_digest
from transfergen.training.ema import EMA
from transfergen.training.randomness import RankRandomness
from transfergen.training.turn_losses import gradient_norm

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
        self.config: dict[str, Any] = {}
        """What the networks were built of, for the message where a checkpoint is of others."""
        self._seconds_before = 0.0
        self._saved_position: dict[str, int] | None = None
        self._saved_rng: list[dict[str, Tensor]] | None = None
        self._saved_names: list[list[str]] | None = None

    @property
    def ema_generator(self) -> Generator:
        """The generator to take samples from: the moving average, or the plain one where none is kept."""
        return self.ema.network if self.ema else self.generator

    @property
    def seconds(self) -> float:
        """How long the run has trained, all that is due at intervals included, with its time before it was resumed."""
        return round(self._seconds_before + time.perf_counter() - self._started_at, 1)

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
        self._begin_epoch()
        rank, images_seen = self.global_rank, self.images_seen
        self._randomness = RankRandomness(self.device, seed=self.seed, images_seen=images_seen, rank=rank)
        if self._saved_rng is not None and len(self._saved_rng) == self.trainer.world_size:
            self._randomness.restore(self._saved_rng[rank])
        self._all_finite = torch.ones((), dtype=torch.bool, device=self.device)
        self._started_at = time.perf_counter()
        self._clock = (self._started_at, self.images_seen)

    @property
    def _order(self) -> BatchOrder:
        return cast(BatchOrder, self.trainer.train_dataloader.sampler)  # type: ignore[union-attr]

    @property
    def resumes_at(self) -> int:
        """How many batches of its first epoch a resumed run has seen before."""
        return 0 if self._saved_position is None else self._saved_position["batch"]

    def _begin_epoch(self) -> None:
        """Where the first epoch began, of which a resumed run has seen a part.

        Raises:
            ValueError: it is not the epoch that it was.
        """
        order, saved = self._order, self._saved_position
        if saved is not None and saved["batch"]:
            there, here = (saved["batches"], saved["batch_size"]), (len(order), order.batch_size)
            if there != here:
                raise ValueError(
                    "resume: the checkpoint is from the middle of an epoch of {} batches of {} images, and here are {} "
                    "of {}; resume with the run's own data and data.batch_size".format(*there, *here)
                )
        self._epochs = 0 if saved is None else saved["epoch"]
        self._epoch_began_at = self.images_seen - self.resumes_at * order.batch_size

    def on_train_epoch_end(self) -> None:
        """The next epoch begins here, unless the training ends within this one."""
        batches = (self.images_seen - self._epoch_began_at) // self._order.batch_size
        if batches >= self.trainer.num_training_batches:
            self._epochs, self._epoch_began_at = self._epochs + 1, self.images_seen

    def _update(self, optimizer: LightningOptimizer, loss: Tensor, parameters: list[nn.Parameter], who: str) -> Tensor:
        """Step, unless the loss or a gradient is not finite, on any rank. Returns the norm of the gradients."""
        optimizer.zero_grad()
        self.manual_backward(loss)
        return self._step(optimizer, loss, parameters, who)

    def _step(self, optimizer: LightningOptimizer, loss: Tensor, parameters: list[nn.Parameter], who: str) -> Tensor:
        """As above, with the gradients that the parameters have."""
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

    def from_files(self) -> list[str]:
        """Names of tensors that were read from files and never change: no checkpoint holds them."""
        return []

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Adds what Lightning does not keep, and takes out what comes from elsewhere."""
        self.raise_if_not_finite()
        state: dict[str, Any] = checkpoint["state_dict"]
        left_out = [name for name in self.from_files() if name in state]
        digest = tensors_digest((name, state[name]) for name in left_out)
        checkpoint["state_dict"] = {name: value for name, value in state.items() if name not in set(left_out)}
        order, an_epoch = self._order, int(self.trainer.num_training_batches)
        more, batch = divmod((self.images_seen - self._epoch_began_at) // order.batch_size, an_epoch)
        place(checkpoint, epoch=self._epochs + more, batch=batch, an_epoch=an_epoch)
        checkpoint["transfergen"] = {
            "format": FORMAT,
            "images_seen": self.images_seen,
            "seconds": self.seconds,
            "position": {
                "epoch": self._epochs + more,
                "batch": batch,
                "batches": len(order),
                "batch_size": order.batch_size,
            },
            "rng": all_gather_objects(self._randomness.state()),
            "optimized": self._optimized_names(),
            "left_out": {"names": left_out, "sha256": digest},
            "config": self.config,
        }

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Takes it back.

        Raises:
            ValueError: the checkpoint is of another program, of a newer version, or of other networks.
        """
        own = checkpoint.get("transfergen")
        if own is None or "format" not in own:
            raise ValueError("resume: the checkpoint was not written by transfergen, or by a version before 0.1.0")
        if own["format"] > FORMAT:
            raise ValueError(
                f"resume: the checkpoint's format is {own['format']}, newer than {FORMAT}; update transfergen"
            )
        state, mine = checkpoint["state_dict"], self.state_dict()
        left_out = [name for name in own["left_out"]["names"] if name in mine]
        if tensors_digest((name, mine[name]) for name in left_out) != own["left_out"]["sha256"]:
            raise ValueError(
                "resume: the frozen trunk's weights are not those that the run was trained with; resume with the run's "
                "own backbone.weights"
            )
        state |= {name: mine[name] for name in left_out}
        shapes = {name: tensor.shape for name, tensor in mine.items() if isinstance(tensor, Tensor)}
        its = {name: tensor.shape for name, tensor in state.items() if isinstance(tensor, Tensor)}
        if shapes != its:
            names = [name for name in (shapes | its) if shapes.get(name) != its.get(name)]
            raise ValueError(
                f"resume: the checkpoint is of other networks: {len(names)} of {len(its)} tensors differ, "
                f"{names[0]} first; resume with the run's own {differing(own['config'], self.config)}"
            )
        self.images_seen, self._saved_rng, self._saved_names = own["images_seen"], own["rng"], own["optimized"]
        self._saved_position = own["position"]
        self._seconds_before = own.get("seconds", 0.0)

    def _optimized_names(self) -> list[list[str]]:
        names = {id(parameter): name for name, parameter in self.named_parameters()}
        return [
            [names[id(p)] for group in optimizer.param_groups for p in group["params"]]
            for optimizer in self.trainer.optimizers
        ]
