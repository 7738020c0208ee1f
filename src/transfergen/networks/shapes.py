"""Networks built without memory and without values, to know the shapes of their tensors."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

_INITIALISE = {getattr(nn.init, name) for name in dir(nn.init) if name.endswith("_") and not name.startswith("_")}
_IN_PLACE = {Tensor.normal_, Tensor.uniform_, Tensor.erfinv_, Tensor.mul_, Tensor.add_, Tensor.clamp_, Tensor.fill_}
_KEEP_SHAPE = {*_INITIALISE, *_IN_PLACE, F.normalize}
"""Functions whose result is `out`, or has the shape of their first argument."""
_DIVIDE = {Tensor.div, Tensor.__truediv__}


@contextmanager
def shapes_only() -> Iterator[None]:
    """A context in which networks are built on the meta device, in milliseconds.

    Initial values and spectral norms are not computed. On this device torch finds the shapes of their results in
    Python, which takes seconds for the power iterations of a BigGAN; and the first result imports torch's compiler,
    which takes more than a second.
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
        given = (*args, *kwargs.values())
        if func in _KEEP_SHAPE:
            return given[0] if kwargs.get("out") is None else kwargs["out"]
        if func in _DIVIDE and given[0].is_floating_point() and not any(getattr(by, "ndim", 0) for by in given[1:]):
            return given[0]
        if func is torch.mv:
            return args[0].new_empty(len(args[0]))
        if func is torch.vdot:
            return args[0].new_empty(())
        return func(*args, **kwargs)
