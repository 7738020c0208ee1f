"""Which device a command computes on."""

import torch


def choose_device(name: str) -> torch.device:
    """The device of that name; `auto` is a GPU where there is one.

    Raises:
        ValueError: no such device here.
    """
    available = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if name == "auto":
        name = next(kind for kind, there in available.items() if there)
    if name not in available:
        raise ValueError(f"device={name}: choose auto, {', '.join(available)}")
    if not available[name]:
        raise ValueError(f"device={name}: this machine has none; choose auto or cpu")
    return torch.device(name)


def choose_devices(name: str, count: int) -> list[torch.device]:
    """So many of that kind: GPUs, or the CPU so many times over.

    Raises:
        ValueError: there are not so many.
    """
    kind = choose_device(name).type
    there = {"cuda": torch.cuda.device_count(), "mps": 1}.get(kind, count)
    if count > there:
        raise ValueError(f"devices={count}: this machine has {there} of {kind}; set devices={there}")
    return [torch.device(kind, i) if kind == "cuda" else torch.device(kind) for i in range(count)]
