"""The size of the networks and the memory of a step, told before there is one."""

import logging

import torch
from lightning import Callback, LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_only

from transfergen.training.base_module import GenerativeModule
from transfergen.training.step_report import gib, report_step

log = logging.getLogger(__name__)


class MemoryReport(Callback):
    """Says how many parameters train, how much memory a step takes on a device, and which settings it takes less with.

    Args:
        batch_size: images in a step, over all devices.
    """

    def __init__(self, batch_size: int) -> None:
        self.batch_size = batch_size

    @rank_zero_only
    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Tell of the memory, and warn where a CUDA device has less."""
        assert isinstance(pl_module, GenerativeModule)
        device, ranks = trainer.strategy.root_device, trainer.world_size
        report = report_step(
            pl_module, batch_size=self.batch_size, ranks=ranks, device=device, precision=trainer.precision
        )
        log.info(str(report))
        if device.type == "cuda" and report.memory:
            free, needed = torch.cuda.mem_get_info(device)[0], report.memory.total
            if needed > free:
                advice = f"; set {report.less}" if report.less else ""
                log.warning(f"{device} has {gib(free)} GiB free, and a step takes {gib(needed)}{advice}")
