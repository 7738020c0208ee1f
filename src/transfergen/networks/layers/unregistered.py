"""Frozen networks that a module uses and does not own."""

from collections.abc import Callable
from typing import Any, TypeVar

from torch import nn

Network = TypeVar("Network", bound=nn.Module)


class UnregisteredModules(nn.Module):
    """A module that can use networks without having them in its weights: a teacher, a trunk of features."""

    _unregistered: tuple[nn.Module, ...] = ()

    def add_frozen(self, network: Network) -> Network:
        """Freeze a network for good: in eval mode, neither saved nor trained with this module, but moved with it."""
        self._unregistered = (*self._unregistered, network.eval().requires_grad_(False))
        return network

    def _apply(self, fn: Callable[[Any], Any], recurse: bool = True) -> "UnregisteredModules":
        for network in self._unregistered:
            network._apply(fn, recurse)  # type: ignore[no-untyped-call]
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        return self
