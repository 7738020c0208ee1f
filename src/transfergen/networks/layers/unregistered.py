"""Frozen networks that a module uses without saving or training them."""

from collections.abc import Callable
from typing import Any

from torch import nn


class UnregisteredModules(nn.Module):
    """A module that uses frozen networks, such as a teacher, which its state dict and parameters do not contain."""

    _unregistered: tuple[nn.Module, ...] = ()

    def add_frozen(self, name: str, network: nn.Module) -> None:
        """Freeze a network in eval mode, as an attribute that moves to other devices and dtypes with this module."""
        self._unregistered = (*self._unregistered, network.eval().requires_grad_(False))
        object.__setattr__(self, name, network)  # nn.Module's own would register it

    def _apply(self, fn: Callable[[Any], Any], recurse: bool = True) -> "UnregisteredModules":
        for network in self._unregistered:
            network._apply(fn, recurse)  # type: ignore[no-untyped-call]
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        return self
