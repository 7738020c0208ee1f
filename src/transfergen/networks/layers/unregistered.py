"""Frozen networks that a module uses without saving or training them."""

from collections.abc import Callable
from typing import Any, TypeVar

from torch import nn

Network = TypeVar("Network", bound=nn.Module)


class UnregisteredModules(nn.Module):
    """A module that uses frozen networks, such as a teacher, which its state dict and parameters do not contain."""

    _unregistered: tuple[nn.Module, ...] = ()

    def add_frozen(self, network: Network) -> Network:
        """Freeze a network in eval mode, and let it move between devices and dtypes along with this module."""
        self._unregistered = (*self._unregistered, network.eval().requires_grad_(False))
        return network

    def _apply(self, fn: Callable[[Any], Any], recurse: bool = True) -> "UnregisteredModules":
        for network in self._unregistered:
            network._apply(fn, recurse)  # type: ignore[no-untyped-call]
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        return self
