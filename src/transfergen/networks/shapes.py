"""Networks of shapes alone, without memory and without values."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

_INITIALISE = {getattr(nn.init, name) for name in dir(nn.init) if name.endswith("_") and not name.startswith("_")}
_IN_PLACE = {Tensor.normal_, Tensor.uniform_, Tensor.erfinv_, Tensor.mul_, Tensor.add_, Tensor.clamp_, Tensor.fill_}
_OF_THE_FIRST = {*_INITIALISE, *_IN_PLACE, F.normalize, Tensor.div, Tensor.__truediv__}
"""Functions whose result has the shape of their first argument, or is in `out`."""


@contextmanager
def shapes_only() -> Iterator[None]:
    """Networks that are built meanwhile are on the meta device.

    Initial values and spectral norms are left out: on this device torch computes shapes in Python, which takes seconds
    for the power iterations of a BigGAN, and more than a second for the first of all, which imports its compiler.
    """
    with torch.device("meta"), _NoValues():
        yield


class _NoValues(TorchFunctionMode):
    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        if func in _OF_THE_FIRST:
            return (*args, *kwargs.values())[0] if kwargs.get("out") is None else kwargs["out"]
        if func is torch.mv:
            return args[0].new_empty(len(args[0]))
        if func is torch.vdot:
            return args[0].new_empty(())
        return func(*args, **kwargs)
