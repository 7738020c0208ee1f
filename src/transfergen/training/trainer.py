"""Lightning's Trainer, its strategy and precision chosen from the devices."""

import logging
import sys
import warnings
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch
from lightning import Callback, Trainer
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.accelerators import AcceleratorRegistry
from lightning.pytorch.callbacks import LambdaCallback

from transfergen.devices import choose_kind, device_counts
from transfergen.errors import counted
from transfergen.networks.acceleration.prepared_kernel import has_kernels
from transfergen.networks.layers.sync_batchnorm import synchronize
from transfergen.runs.checkpoint import SafeCheckpointIO
from transfergen.training.callbacks import ProgressBar, StatusLine, Threads
from transfergen.training.freed_memory import keep_freed_memory

PRECISIONS = ("bf16-mixed", "bf16", "32-true", "32")
"""Not float16: the first overflow, which its scaler expects, would count as divergence."""
SLOW_BF16 = "this CPU has no instructions for bfloat16, and takes many times as long as with float32"

log = logging.getLogger(__name__)

EXPECTED = (
    ".*in eval mode at the start of training.*",  # the frozen trunk
    ".*is smaller than the logging interval.*",  # the first batch is logged, and batches count over epochs
    ".*your dataloader is not resumable.*",  # its sampler is
    ".*does not have many workers.*",  # batches come out of memory
    ".*`isinstance\\(treespec, LeafSpec\\)` is deprecated.*",  # Lightning's own affair
)
"""Warnings of Lightning that are not shown."""


class Hardware(NamedTuple):
    """The devices that a training computes on, and its precision."""

    accelerator: str
    """Its name in Lightning: cpu, cuda, mps."""
    devices: int | str | list[int]
    """Their number or indices, as Lightning takes them."""
    device_count: int
    """How many devices are used in each machine."""
    precision: str | int


def build_trainer(
    *,
    run_dir: Path,
    callbacks: Sequence[Callback],
    accelerator: str = "auto",
    devices: int | str | list[int] = "auto",
    num_nodes: int = 1,
    strategy: str = "auto",
    precision: str | int = "auto",
    threads: int | Literal["auto"] = "auto",
    sync_batchnorm: bool = True,
    **others: Any,
) -> Trainer:
    """A Trainer for alternating, manual optimisation.

    Several devices get DistributedDataParallel that looks for unused weights, since each turn uses one network's. With
    `sync_batchnorm` batch normalisation sees the whole batch there, and not a device's share of it.
    `precision=auto` is bf16-mixed on a GPU that has it and 32-true elsewhere. `threads` are those of the CPU in each
    process, see `Threads`. `others` go to Lightning as they are.

    Raises:
        ValueError: an accelerator or a device that is not there, or a combination that Lightning refuses.
    """
    accelerator, devices, count, precision = choose_hardware(accelerator, devices, precision)
    _set_up_process(accelerator, precision)
    if strategy in ("auto", "ddp") and count * num_nodes > 1:
        strategy = "ddp_find_unused_parameters_true"
    # Before the module is distributed. Lightning's own synchronization needs a GPU.
    sync = LambdaCallback(setup=lambda _trainer, module, **_: synchronize(module))
    bar: Callback = ProgressBar(leave=True) if sys.stderr.isatty() or sys.stdout.isatty() else StatusLine()
    try:
        trainer = Trainer(
            accelerator=accelerator,
            devices=devices,
            num_nodes=num_nodes,
            strategy=strategy,
            precision=precision,  # type: ignore[arg-type]
            default_root_dir=run_dir,
            callbacks=[Threads(threads), *([sync] if sync_batchnorm else []), *callbacks, bar],
            logger=False,  # rank 0 sets its loggers, once its folder is its own
            enable_progress_bar=isinstance(bar, ProgressBar),
            enable_checkpointing=False,  # Checkpointing does it, counted in images
            enable_model_summary=False,
            use_distributed_sampler=False,  # the order of samples knows of ranks
            num_sanity_val_steps=0,
            plugins=[SafeCheckpointIO()],
            **others,
        )
    except (MisconfigurationException, TypeError, ValueError) as error:
        if "Timer(" in str(error):  # which Lightning makes of max_time
            line = f"trainer.max_time: {others['max_time']} is no time; give DD:HH:MM:SS, as in 00:02:30:00"
            raise ValueError(line) from error
        raise ValueError(f"trainer: {str(error).splitlines()[0]}") from error
    # Lightning's handler of SIGTERM ends with exit code 0, and waits for ever for a rank in another collective.
    trainer._signal_connector.register_signal_handlers = lambda: None  # type: ignore[method-assign]
    return trainer


@cache  # a training builds two trainers, the first to see whether Lightning takes its settings
def _set_up_process(accelerator: str, precision: str | int) -> None:
    """Set what holds for the whole process: Lightning's messages, and how an accelerator computes."""
    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.WARNING)
    for warning in EXPECTED:
        warnings.filterwarnings("ignore", warning)
    if accelerator == "cuda":
        torch.set_float32_matmul_precision("high")  # TF32 where something stays in float32
    if accelerator == "cpu":
        keep_freed_memory()
        if "bf16" in str(precision) and not has_kernels(torch.bfloat16):
            log.warning(f"trainer.precision={precision}: {SLOW_BF16}; set trainer.precision=32-true")


def choose_hardware(
    accelerator: str = "auto", devices: int | str | list[int] = "auto", precision: str | int = "auto", **_others: Any
) -> Hardware:
    """Replace `auto` by what suits this machine; other values stay.

    Raises:
        ValueError: an accelerator or a device that is not there, or a precision that is not supported.
    """
    accelerator, available = _accelerator(accelerator)
    if devices == "auto":
        devices = 1 if accelerator == "cpu" else -1
    count, highest = _count(devices, available)
    if highest > available:
        raise ValueError(
            f"trainer.devices={devices}: this machine has {counted(available, f'{accelerator.upper()} device')}; set "
            f"trainer.devices={available}, or another trainer"
        )
    return Hardware(accelerator, devices, count, _precision(precision, accelerator))


def _precision(precision: str | int, accelerator: str) -> str | int:
    """Replace `auto` by what suits this accelerator; another value stays, if it is supported."""
    if precision == "auto":
        has_bf16 = accelerator == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)
        return "bf16-mixed" if has_bf16 else "32-true"
    if str(precision) not in PRECISIONS:
        raise ValueError(f"trainer.precision={precision}: set bf16-mixed or 32-true")
    return precision


def _accelerator(name: str) -> tuple[str, int]:
    """Name of the accelerator in Lightning, and how many devices of it there are."""
    if name not in device_counts() and name in AcceleratorRegistry.available_accelerators():
        return name, sys.maxsize  # Lightning knows more kinds, and how many there are
    kind = choose_kind(name, setting="trainer.accelerator")
    return kind, device_counts()[kind]


def _count(devices: int | str | list[int], available: int) -> tuple[int, int]:
    """How many devices are asked for, and how many there must be for that."""
    if isinstance(devices, list):
        return len(devices), max(devices, default=0) + 1
    if devices in (-1, "-1"):
        return available, available
    try:
        count = int(devices)
    except ValueError:
        raise ValueError(f"trainer.devices={devices}: give a number, a list of indices, or auto") from None
    if count < 1:
        raise ValueError(f"trainer.devices={devices}: at least 1")
    return count, count
