"""Signals in a training: a checkpoint first, and an end that its exit code tells."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.distributed as dist
from lightning import LightningModule, Trainer

from transfergen.errors import SignalError
from transfergen.signal_handler import SignalHandler
from transfergen.training.base_module import GenerativeModule
from transfergen.training.callbacks.checkpointing import Checkpointing
from transfergen.training.callbacks.interval import BatchCallback

_REQUEUE = getattr(signal, "SIGUSR2", None)
_TIME_IS_UP = getattr(signal, "SIGUSR1", None)


class Signals(BatchCallback):
    """After the step in which a signal came, on any rank, all ranks save together and raise SignalError.

    A signal in the last step or later waits for the results, since a run is not resumed for what is measured and
    written at its end.

    A second SIGINT ends the process at once. If SIGUSR2 has a handler, as submitit's in the jobs of a cluster, that is
    called once all is saved: it queues the job again and ends it. Whoever trains writes the results in `finishing`.

    Args:
        files: saves.
    """

    def __init__(self, files: Checkpointing) -> None:
        self.files = files
        self._handler = SignalHandler(raises=False)
        self._group: Any = None

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Let signals wait for the end of a step from now on. All ranks make the process group for it together."""
        if trainer.world_size > 1:
            self._group = dist.new_group(backend="gloo")  # flags are on the CPU: no step waits for a GPU
        self._handler.install(*([_REQUEUE] if _REQUEUE and callable(signal.getsignal(_REQUEUE)) else []))

    def after_batch(self, trainer: Trainer, module: GenerativeModule) -> None:
        """Saves and raises, if any rank has a signal and this was not the last step."""
        number = self._handler.received
        if self._group is not None:
            agreed = torch.tensor(number)
            dist.all_reduce(agreed, dist.ReduceOp.MAX, self._group)
            number = int(agreed)
        if number and not _is_last_step(trainer):
            self.files.act(trainer, module)
            if number == _REQUEUE:
                self._handler.previous[number](number, None)
            raise SignalError(number, module.images_seen, self.files.run_dir)

    @contextmanager
    def finishing(self, images_seen: int) -> Iterator[None]:
        """A context for what is written after the training. At its end the earlier handlers are put back.

        A job that is done is not to be queued again: SIGUSR1, by which a cluster tells that its time is nearly up, and
        SIGUSR2 change nothing any more.

        Raises:
            SignalError: another signal came in the last step or after it.
        """
        try:
            yield
        finally:
            self._handler.restore()
        if self._handler.received not in (0, _REQUEUE, _TIME_IS_UP):
            raise SignalError(self._handler.received, images_seen, self.files.run_dir)

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Put the earlier handlers back."""
        self._handler.restore()


def _is_last_step(trainer: Trainer) -> bool:
    """Whether the training ends after this step, which a callback has stopped or `max_epochs` ends."""
    return trainer.should_stop or (trainer.is_last_batch and trainer.current_epoch + 1 == trainer.max_epochs)
