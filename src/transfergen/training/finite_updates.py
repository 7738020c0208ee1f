"""Optimizer steps that are left out, on all ranks alike, where a loss or a gradient is not finite."""

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from transfergen.distributed import sum_over_ranks


class FiniteUpdates:
    """Steps optimizers, and keeps whether all updates so far were finite.

    Args:
        device: of the weights.
    """

    def __init__(self, device: torch.device) -> None:
        self.all_finite = torch.ones((), dtype=torch.bool, device=device)

    def step(self, optimizer: Any, loss: Tensor, parameters: Iterable[nn.Parameter], network: str) -> Tensor:
        """Step with the gradients that the parameters have, unless they or the loss are not finite on any rank.

        Returns:
            The L2 norm of all gradients, a scalar.

        Raises:
            FloatingPointError: they are not finite, and the optimizer was not stepped. On CUDA, where nothing waits for
                the device here, `raise_if_not_finite` says so later.
        """
        norm = nn.utils.get_total_norm([p.grad for p in parameters if p.grad is not None])
        finite = torch.isfinite(norm + loss.detach())
        finite = sum_over_ranks((~finite).float()) == 0
        self.all_finite &= finite
        inner = getattr(optimizer, "optimizer", optimizer)  # Lightning wraps it
        if norm.device.type == "cuda" and getattr(inner, "_step_supports_amp_scaling", False):
            inner.found_inf = (~self.all_finite).float()  # the kernel itself leaves out this update, and all after it
        else:
            self.raise_if_not_finite(network)
        optimizer.step()
        return norm

    def raise_if_not_finite(self, network: str = "discriminator or generator") -> None:
        """Raises FloatingPointError if an update had to be left out; the weights are those from before it."""
        if not self.all_finite:
            raise FloatingPointError(
                f"the {network}'s loss or gradient is not finite; stopped before the update, so that no checkpoint "
                "holds it; try a lower optimizer.discriminator.lr and optimizer.generator.lr, or "
                "trainer.precision=32-true"
            )
