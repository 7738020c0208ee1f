"""The number of threads of a training, fewer where other processes use the cores."""

import time
from typing import Any, Literal

import torch
from lightning import Callback, LightningModule, Trainer

from transfergen.devices import seconds_of_others, usable_cores


class Threads(Callback):
    """Sets the number of threads in which torch computes on the CPU.

    A kernel ends with the slowest of its threads. If one of them waits for a core that another process uses, all the
    others wait too, at each of hundreds of kernels in a step; fewer threads are faster then. So `auto` looks at the
    machine at intervals, and takes as many threads as there are cores that other processes leave free: at least one,
    and at most as many as torch had. Where the system does not tell of other processes, and in a training of several
    ranks, the number stays.

    Args:
        count: auto, or a number that stays.
        every_s: seconds from one look at the machine to the next.
    """

    def __init__(self, count: int | Literal["auto"] = "auto", *, every_s: float = 2.0) -> None:
        self.count, self.every_s = count, every_s
        self._seen, self._most = (time.perf_counter(), seconds_of_others()), torch.get_num_threads()

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Set the number that stays."""
        self._most = torch.get_num_threads()  # Lightning has divided the cores among ranks
        if self.count != "auto":
            torch.set_num_threads(self.count)

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """Set the number of this step, if it is time to look."""
        (then, before), now = self._seen, time.perf_counter()
        if self.count != "auto" or trainer.world_size > 1 or now - then < self.every_s:
            return
        self._seen = now, seconds_of_others()
        free = len(usable_cores()) - (self._seen[1] - before) / (now - then)
        torch.set_num_threads(max(1, min(self._most, round(free))))

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Leave torch as it was, for another training in this process."""
        torch.set_num_threads(self._most)

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Leave torch as it was, for another training in this process."""
        torch.set_num_threads(self._most)
