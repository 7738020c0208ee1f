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
