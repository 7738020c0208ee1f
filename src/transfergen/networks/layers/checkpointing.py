"""Gradient checkpointing: less memory, since the backward pass computes a layer anew. Chen 2016, arXiv:1604.06174."""

from itertools import count
from typing import cast

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.utils.checkpoint import checkpoint


def checkpointed(network: nn.Module, *inputs: Tensor | None) -> Tensor:
    """`network(*inputs)`. The backward pass computes it anew, so only the inputs are kept until then.

    Outputs, gradients and buffers have the same bits as without checkpointing. The second pass has the random state of
    the first, and starts from copies of the buffers that the first one started from: so running statistics and power
    iterations move on once, and a spectral norm is that of the first pass.
    """
    if not torch.is_grad_enabled():
        return cast(Tensor, network(*inputs))
    buffers = {name: buffer.clone() for name, buffer in network.named_buffers()}
    passes = count()

    def run(*inputs: Tensor | None) -> Tensor:
        if next(passes) == 0:
            return cast(Tensor, network(*inputs))
        return cast(Tensor, functional_call(network, {name: b.clone() for name, b in buffers.items()}, inputs))

    return checkpoint(run, *inputs, use_reentrant=False)
