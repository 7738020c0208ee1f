"""The devices of this machine, and the choice among them."""

import os

import torch


def device_counts() -> dict[str, int]:
    """How many devices of each kind there are, the fastest kind first; for CPUs, the cores that may be used."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return {"cuda": torch.cuda.device_count(), "mps": int(torch.backends.mps.is_available()), "cpu": cores}


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
    """As many devices of one kind as asked for; the CPU may be used any number of times.

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
