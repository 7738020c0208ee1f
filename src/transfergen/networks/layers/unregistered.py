"""Frozen networks that a module uses and does not own."""

from collections.abc import Callable
from typing import Any, TypeVar

from torch import nn

Network = TypeVar("Network", bound=nn.Module)


class Hides(nn.Module):
    """A module that can use networks without having them in its weights: a teacher, a trunk of features."""

    _hidden: tuple[nn.Module, ...] = ()

    def hide(self, network: Network) -> Network:
        """Freeze a network for good: in eval mode, neither saved nor trained with this module, but moved with it."""
        self._hidden = (*self._hidden, network.eval().requires_grad_(False))
        return network

    def _apply(self, fn: Callable[[Any], Any], recurse: bool = True) -> "Hides":
        for network in self._hidden:
            network._apply(fn, recurse)  # type: ignore[no-untyped-call]
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        return self
