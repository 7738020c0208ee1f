"""Signals in a training: a checkpoint first, and an end that its exit code tells."""

import signal
from typing import Any

import torch
import torch.distributed as dist
from lightning import LightningModule, Trainer

from transfergen.errors import SignalError, SignalHandler
from transfergen.training.base_module import GenerativeModule
from transfergen.training.callbacks.checkpointing import Checkpointing
from transfergen.training.callbacks.interval import BatchCallback

_REQUEUE = getattr(signal, "SIGUSR2", None)


class Signals(BatchCallback):
    """After the step in which a signal came, on any rank, all ranks save together and raise SignalError.

    A second SIGINT ends the process at once. A handler that stands for SIGUSR2, as submitit's does in the jobs of a
    cluster, is called once all is saved: it queues the job again and ends it.

    Args:
        files: saves.
    """

    def __init__(self, files: Checkpointing) -> None:
        self.files = files
        self._handler = SignalHandler(raises=False)
        self._group: Any = None

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """From here on signals wait for the end of a step, on all ranks: the new group is made when all are here."""
        if trainer.world_size > 1:
            self._group = dist.new_group(backend="gloo")  # flags are on the CPU: no step waits for a GPU
        self._handler.install(*([_REQUEUE] if _REQUEUE and callable(signal.getsignal(_REQUEUE)) else []))

    def after_batch(self, trainer: Trainer, module: GenerativeModule) -> None:
        """Saves and raises, if any rank has a signal."""
        number = self._handler.received
        if self._group is not None:
            agreed = torch.tensor(number)
            dist.all_reduce(agreed, dist.ReduceOp.MAX, self._group)
            number = int(agreed)
        if number:
            self.files.act(trainer, module)
            if number == _REQUEUE:
                self._handler.previous[number](number, None)
            raise SignalError(number, module.images_seen)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """All is saved: signals do what they did before."""
        self._handler.restore()
        if self._handler.received:
            assert isinstance(pl_module, GenerativeModule)
            raise SignalError(self._handler.received, pl_module.images_seen)

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Signals do what they did before."""
        self._handler.restore()
