"""SIGTERM, SIGINT, SIGUSR1, and SIGUSR2 where a cluster uses it: a checkpoint, and an end that its exit code tells."""

import os
import signal
from types import FrameType
from typing import Any

import torch
import torch.distributed as dist
from lightning import Callback, LightningModule, Trainer

from transfergen.errors import SignalError
from transfergen.training.base_module import GenerativeModule
from transfergen.training.callbacks.checkpointing import Checkpointing

SIGNALS = [getattr(signal, name) for name in ("SIGTERM", "SIGINT", "SIGUSR1") if hasattr(signal, name)]
_REQUEUE = getattr(signal, "SIGUSR2", None)


class Signals(Callback):
    """After the step in which a signal came, on any rank, all ranks save together and raise SignalError.

    A second SIGINT ends the process at once. A handler that stands for SIGUSR2, as submitit's does in the jobs of a
    cluster, is called once all is saved: it queues the job again and ends it.

    Args:
        files: saves.
    """

    def __init__(self, files: Checkpointing) -> None:
        self.files = files
        self._received = 0
        self._previous: dict[int, Any] = {}
        self._group: Any = None

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """From here on signals wait for the end of a step.

        Not earlier: Lightning sets its own handlers after `on_fit_start`, and its broadcast within one, wherever the
        step may be, waits for ever on a rank that is in another collective.
        """
        theirs = [_REQUEUE] if _REQUEUE and callable(signal.getsignal(_REQUEUE)) else []
        self._previous = {number: signal.signal(number, self._receive) for number in SIGNALS + theirs}
        if trainer.world_size > 1:
            self._group = dist.new_group(backend="gloo")  # flags are on the CPU: no step waits for a GPU

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Saves and raises, if any rank has a signal."""
        number = self._received
        if self._group is not None:
            agreed = torch.tensor(number)
            dist.all_reduce(agreed, dist.ReduceOp.MAX, self._group)
            number = int(agreed)
        if number:
            assert isinstance(pl_module, GenerativeModule)
            self.files.save(trainer, pl_module)
            if number == _REQUEUE:
                self._previous[number](number, None)
            raise SignalError(number, pl_module.images_seen)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """All is saved: signals do what they did before."""
        self._restore()
        if self._received:
            assert isinstance(pl_module, GenerativeModule)
            raise SignalError(self._received, pl_module.images_seen)

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Signals do what they did before."""
        self._restore()

    def _receive(self, number: int, frame: FrameType | None) -> None:
        if number == signal.SIGINT and self._received == signal.SIGINT:
            os._exit(128 + number)
        self._received = self._received or number

    def _restore(self) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)
        self._previous = {}
