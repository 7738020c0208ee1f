"""Penalties on the gradient of a discriminator's score with respect to the images that it is shown."""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

Score = Callable[[Tensor], Tensor]
"""Images (B, 3, R, R) -> one number each, (B,)."""


def gradient_norms(score: Score, images: Tensor) -> Tensor:
    """Euclidean norms of the scores' gradients at the images (B, 3, R, R), (B,), differentiable by the weights.

    The scores of a batch are summed, so that each image's gradient is its own only where a score depends on its own
    image alone. Batch normalisation breaks that, and what comes out is the gradient of the sum.
    """
    images = images.detach().requires_grad_(True)
    (gradients,) = torch.autograd.grad(score(images).sum(), images, create_graph=True)
    norms: Tensor = gradients.flatten(1).norm(dim=1)
    return norms


def interpolated(score: Score, real: Tensor, fake: Tensor, *, target: float = 1.0) -> Tensor:
    """E (|grad| - target)^2, a scalar, at one random point between each real and fake image, (B, 3, R, R) both.

    Gulrajani 2017, arXiv:1704.00028, algorithm 1. The points are drawn from the global generator of their device.
    """
    share = torch.rand(len(real), 1, 1, 1, device=real.device, dtype=real.dtype)
    return (gradient_norms(score, real.lerp(fake, share)) - target).square().mean()


def zero_centred(score: Score, images: Tensor) -> Tensor:
    """E |grad|^2 / 2 at the images (B, 3, R, R), a scalar: R1 at reals, R2 at fakes. Mescheder 2018, arXiv:1801.04406.

    Equation 9 there; its gamma is the weight that this is to be multiplied by.
    """
    return gradient_norms(score, images).square().mean() / 2


class GradientPenalty:
    """A weighted sum of gradient penalties, computed at every `every`-th update of the discriminator and times `every`.

    That saves most of the cost of R1, whose gradients change little from batch to batch: lazy regularization, Karras
    2020, arXiv:1912.04958, appendix B. All is computed in float32, with autocast off: gradients of gradients lose too
    much in bfloat16. `scaled_dot_product_attention` has second derivatives in its plain form alone, which is chosen.

    Args:
        interpolated: weight of WGAN-GP's penalty, at points between reals and fakes; the paper has 10.
        r1: weight (gamma) of the zero-centred penalty at reals.
        r2: the same at fakes.
        every: in updates.

    Raises:
        ValueError: a number out of range.
    """

    def __init__(self, *, interpolated: float = 0.0, r1: float = 0.0, r2: float = 0.0, every: int = 1) -> None:
        for name, value in {"interpolated": interpolated, "r1": r1, "r2": r2}.items():
            if value < 0:
                raise ValueError(f"objective.penalty.{name}={value}: a weight is 0 or more")
        if every < 1:
            raise ValueError(f"objective.penalty.every={every}: in updates, at least 1")
        self.interpolated, self.r1, self.r2, self.every = interpolated, r1, r2, every

    def due(self, update: int) -> bool:
        """Whether update number `update`, from 0 on, has a penalty."""
        return bool(self.interpolated or self.r1 or self.r2) and update % self.every == 0

    def __call__(self, score: Score, real: Tensor, fake: Tensor) -> Tensor:
        """Images (B, 3, R, R) in [-1, 1], reals and fakes -> a scalar, for the discriminator's loss."""
        real, fake = (images.to(torch.promote_types(images.dtype, torch.float32)) for images in (real, fake))
        terms = []
        with torch.autocast(real.device.type, enabled=False), sdpa_kernel(SDPBackend.MATH):
            if self.interpolated:
                terms.append(self.interpolated * interpolated(score, real, fake))
            if self.r1:
                terms.append(self.r1 * zero_centred(score, real))
            if self.r2:
                terms.append(self.r2 * zero_centred(score, fake))
        return self.every * torch.stack(terms).sum()
