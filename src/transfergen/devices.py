"""The devices of this machine, the choice among them, how busy its cores are, and the precision of its GPUs."""

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch


def device_counts() -> dict[str, int]:
    """How many devices of each kind there are, the fastest kind first; for CPUs, the cores that may be used."""
    cores = len(usable_cores())
    return {"cuda": torch.cuda.device_count(), "mps": int(torch.backends.mps.is_available()), "cpu": cores}


def usable_cores() -> set[int]:
    """The numbers of the cores that this process may use."""
    return os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else set(range(os.cpu_count() or 1))


def seconds_of_others(stat: Path = Path("/proc/stat")) -> float:
    """Seconds that other processes have run on the cores that this process may use, from an unknown start on.

    Only differences of two values mean something. They include time in which a virtual machine's host took a core away.

    Args:
        stat: the times of all cores, as Linux shows them; without this file, nothing is known of other processes.
    """
    rows = [line.split() for line in stat.read_text().splitlines()] if stat.exists() else []
    ours = {f"cpu{core}" for core in usable_cores()}
    # user, nice, system, idle, waiting for a disk, two kinds of interrupts, and stolen by the host
    ticks = sum(int(row[i]) for row in rows if row and row[0] in ours for i in (1, 2, 3, 6, 7, 8))
    return ticks / os.sysconf("SC_CLK_TCK") - time.process_time() if ticks else 0.0


def choose_kind(name: str, *, setting: str = "device") -> str:
    """The kind of device that `name` means here: `auto` is the fastest there is, `gpu` is cuda or mps.

    Raises:
        ValueError: there is no such kind, or no device of it; the message names the `setting`.
    """
    counts = device_counts()
    fastest = next(kind for kind, count in counts.items() if count)
    kind = {"auto": fastest, "gpu": "mps" if counts["mps"] else "cuda"}.get(name, name)
    if kind not in counts:
        raise ValueError(f"{setting}={name}: choose auto, gpu, {', '.join(counts)}")
    if not counts[kind]:
        raise ValueError(f"{setting}={name}: this machine has none; choose auto or cpu")
    return kind


def choose_devices(name: str, count: int) -> list[torch.device]:
    """Choose devices of one kind, as many as asked for; the CPU may be used any number of times.

    Raises:
        ValueError: there is no such kind, or there are fewer devices of it.
    """
    kind = choose_kind(name)
    available = count if kind == "cpu" else device_counts()[kind]
    if count > available:
        raise ValueError(f"devices={count}: this machine has {available} of {kind}; set devices={available}")
    return [torch.device(kind, i) if kind == "cuda" else torch.device(kind) for i in range(count)]


def choose_device(name: str) -> torch.device:
    """The first device of a kind; see `choose_kind`."""
    return torch.device(choose_kind(name))


@contextmanager
def full_float32() -> Iterator[None]:
    """A context in which CUDA does not round the factors of float32 products to TF32, which has 10 bits.

    A training allows TF32 in all matrix products, and convolutions have it from the start. Gradients of what is
    computed here are computed later, as a training has them.
    """
    settings: tuple[Any, ...] = (torch.backends.cuda.matmul, torch.backends.cudnn.conv)  # type: ignore[attr-defined]
    before = [each.fp32_precision for each in settings]
    try:
        for each in settings:
            each.fp32_precision = "ieee"
        yield
    finally:
        for each, precision in zip(settings, before, strict=True):
            each.fp32_precision = precision
