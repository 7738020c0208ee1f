"""Muon: momentum whose updates are orthogonalised. Jordan 2024."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer
from torch.optim.optimizer import ParamsT

COEFFICIENTS = (3.4445, -4.7750, 2.0315)  # Jordan 2024: five times x -> a x + b x^3 + c x^5 take 0.01 to 1 near 1
ITERATIONS = 5
MOST_ROWS = 128  # the time grows with the square of their number
MOST_CHANNELS = 4  # of an image
ADAMS_RMS = 0.2  # of an update at rate 1. Liu 2025, arXiv:2502.16982, section 2.2


class Muon(Optimizer):
    """Momentum whose singular values are all made nearly equal. Jordan 2024, https://kellerjordan.github.io/posts/muon.

    A convolution's kernel is flattened to a matrix: its first dimension by all others. Matrices whose rows are a
    multiple of 128 are cut into matrices of 128 rows, which is faster and which Jordan's does not do. Jordan leaves a
    network's first and last layers to Adam, and here they have Muon, too, but for `fallback_output`. Biases and
    normalisations are updated by Adam without a first moment. `torch.optim.Muon` takes matrices alone.

    Args:
        params: tensors, or groups of them.
        lr: rate of the matrices; their updates have the root mean square of Adam's.
        momentum: decay of the average of gradients, and weight of that average in the update (Nesterov).
        fallback_lr_scale: learning rate of biases and normalisations, as a multiple of `lr`.
        fallback_output: whether kernels that lead to 4 channels or fewer, or from so few, are updated like biases. That
            is the layer that makes the pixels, grey to RGBA, and an encoder's first. Muon moves such a kernel by as
            much in all directions, those that make a dither included.
        beta2: decay of Adam's second moment.
        eps: is added to the root of the second moment.
    """

    _step_supports_amp_scaling = True
    """As in torch's fused optimizers, a step changes no weight if there is a `found_inf`, on the device, that is 1."""

    def __init__(
        self,
        params: ParamsT,
        *,
        lr: float = 4e-3,
        momentum: float = 0.5,
        fallback_lr_scale: float = 0.125,
        fallback_output: bool = False,
        beta2: float = 0.99,
        eps: float = 1e-8,
    ) -> None:
        defaults = {"lr": lr, "momentum": momentum, "fallback_lr_scale": fallback_lr_scale, "beta2": beta2, "eps": eps}
        defaults["fallback_output"] = fallback_output
        super().__init__(params, defaults)

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """Update every parameter that has a gradient."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is not None:
                    beside_pixels = p.ndim == 4 and min(p.shape[:2]) <= MOST_CHANNELS
                    is_matrix = p.ndim > 1 and not (group["fallback_output"] and beside_pixels)
                    update = self._update_of_matrix if is_matrix else self._update_of_vector
                    update(p, p.grad, self.state[p], **group)
        return loss

    def _or_zeros(self, x: Tensor) -> Tensor:
        """The tensor, or zeros if `found_inf` says that an update is to change nothing."""
        found_inf: Tensor | None = getattr(self, "found_inf", None)
        return x if found_inf is None else x.masked_fill(found_inf > 0, 0)

    def _update_of_matrix(
        self, p: Tensor, gradient: Tensor, state: dict[str, Any], *, lr: float, momentum: float, **_others: Any
    ) -> None:
        if not state:
            state["average"] = torch.zeros_like(p)
        average = state["average"].lerp_(gradient, 1 - momentum)
        as_in_memory = (0, *sorted(range(1, p.ndim), key=p.stride, reverse=True))  # a view; columns may have any order
        update = self._or_zeros(gradient.lerp(average, momentum)).permute(as_in_memory).flatten(1)
        rows = MOST_ROWS if len(update) % MOST_ROWS == 0 else len(update)
        update = update.reshape(-1, rows, update.shape[1])
        rate = lr * ADAMS_RMS * max(update.shape[-2:]) ** 0.5
        p.permute(as_in_memory).view(update.shape).sub_(orthogonalised(update), alpha=rate)

    def _update_of_vector(
        self,
        p: Tensor,
        gradient: Tensor,
        state: dict[str, Any],
        *,
        lr: float,
        fallback_lr_scale: float,
        beta2: float,
        eps: float,
        **_others: Any,
    ) -> None:
        if not state:
            # A state of this name keeps its precision and stays on the CPU when it is loaded.
            state |= {"second_moment": torch.zeros_like(p), "step": torch.zeros(())}
        state["step"] += 1
        gradient = self._or_zeros(gradient)
        moment = state["second_moment"].lerp_(gradient.square(), 1 - beta2)
        root = (moment / (1 - beta2 ** state["step"])).sqrt_().add_(eps)
        p.addcdiv_(gradient, root, value=-lr * fallback_lr_scale)


def orthogonalised(matrices: Tensor) -> Tensor:
    """(K, M, N) -> (K, M, N): the same singular vectors, with singular values near 1 but for the smallest.

    The iteration is x -> (a + b x x' + c (x x')^2) x. Its factors are polynomials of the first x x': so they are
    multiplied with each other, M by M, and once with the N columns. In float32 at least, since coarser rounding makes
    eigenvalues of x x' negative, and such ones grow.
    """
    if matrices.shape[-2] > matrices.shape[-1]:
        return orthogonalised(matrices.mT).mT
    with torch.autocast(matrices.device.type, enabled=False):
        gram = _gram(matrices)
        scale = gram.diagonal(dim1=-2, dim2=-1).sum(-1)[..., None, None].clamp(min=1e-30)
        gram = gram / scale
        a, b, c = COEFFICIENTS
        product: Tensor | None = None
        for i in range(ITERATIONS):
            factor = torch.baddbmm(gram, gram, gram, beta=b, alpha=c)
            factor.diagonal(dim1=-2, dim2=-1).add_(a)
            product = factor if product is None else torch.bmm(factor, product)
            if i < ITERATIONS - 1:
                gram = torch.bmm(torch.bmm(factor, gram), factor)
        assert product is not None
        product = product / scale.sqrt()
        return torch.bmm(product.bfloat16(), matrices.bfloat16()).to(matrices.dtype)


def _gram(matrices: Tensor) -> Tensor:
    """(K, M, N) -> the products of their rows (K, M, M), summed in float32 at least."""
    if matrices.is_cuda:  # there, float32 may be TF32
        return torch.bmm(matrices.double(), matrices.double().mT)
    settings: Any = torch.backends.mkldnn.matmul  # type: ignore[attr-defined]
    before = settings.fp32_precision
    settings.fp32_precision = "bf16"  # rounds the matrices, whose products are then exact
    try:
        return torch.bmm(matrices.float(), matrices.float().mT)
    finally:
        settings.fp32_precision = before
