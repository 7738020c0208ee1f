"""Gradient penalties: on the gradient of a discriminator's score with respect to its input images."""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

Score = Callable[[Tensor], Tensor]
"""Images (B, C, H, W) -> a score for each, (B,)."""


def gradient_norms(score: Score, images: Tensor) -> Tensor:
    """Euclidean norms (B,) of the scores' gradients with respect to images (B, C, H, W). They can be differentiated.

    It is the gradient of the sum of all scores. This is each score's own gradient only if the score depends on its own
    image alone, which is not so with batch normalisation: there it tells how all scores change with an image.
    """
    images = images.detach().requires_grad_(True)
    (gradients,) = torch.autograd.grad(score(images).sum(), images, create_graph=True)
    norms: Tensor = gradients.flatten(1).norm(dim=1)
    return norms


def interpolated(score: Score, real: Tensor, fake: Tensor, *, target: float = 1.0) -> Tensor:
    """WGAN-GP's penalty E (|grad| - target)^2, a scalar, at random points between real and fake images (B, C, H, W).

    Gulrajani 2017, arXiv:1704.00028, algorithm 1. The points are drawn from the device's global random generator.
    """
    share = torch.rand(len(real), 1, 1, 1, device=real.device, dtype=real.dtype)
    return (gradient_norms(score, real.lerp(fake, share)) - target).square().mean()


def zero_centred(score: Score, images: Tensor) -> Tensor:
    """The penalty E |grad|^2 / 2 at images (B, C, H, W), a scalar: R1 for real images, R2 for fake ones.

    Mescheder 2018, arXiv:1801.04406, equation 9, without the factor gamma.
    """
    return gradient_norms(score, images).square().mean() / 2


class GradientPenalty:
    """A weighted sum of gradient penalties, computed in every `every`-th update of the discriminator, times `every`.

    Penalties in few updates cost less, and the gradients of R1 change little from batch to batch: lazy regularization,
    Karras 2020, arXiv:1912.04958, appendix B. All is computed in float32 without autocast, since second derivatives in
    bfloat16 are too inexact, and with the only kernel of `scaled_dot_product_attention` that has second derivatives.

    Args:
        interpolated: weight of WGAN-GP's penalty at points between reals and fakes, 10 in the paper.
        r1: weight (gamma) of the zero-centred penalty at reals.
        r2: weight (gamma) of the zero-centred penalty at fakes.
        every: number of updates from one penalty to the next.
    """

    def __init__(self, *, interpolated: float = 0.0, r1: float = 0.0, r2: float = 0.0, every: int = 1) -> None:
        self.interpolated, self.r1, self.r2, self.every = interpolated, r1, r2, every

    def due(self, update: int) -> bool:
        """Whether update number `update`, counted from 0, has a penalty."""
        return bool(self.interpolated or self.r1 or self.r2) and update % self.every == 0

    def __call__(self, score: Score, real: Tensor, fake: Tensor, *, fake_score: Score | None = None) -> Tensor:
        """Real and fake images (B, C, H, W) in [-1, 1] -> a scalar, to be added to the discriminator's loss.

        `score` is of reals and `fake_score`, if it is another function, of fakes and of the points between.
        """
        fake_score = fake_score or score
        real, fake = (images.to(torch.promote_types(images.dtype, torch.float32)) for images in (real, fake))
        terms = []
        with torch.autocast(real.device.type, enabled=False), sdpa_kernel(SDPBackend.MATH):
            if self.interpolated:
                terms.append(self.interpolated * interpolated(fake_score, real, fake))
            if self.r1:
                terms.append(self.r1 * zero_centred(score, real))
            if self.r2:
                terms.append(self.r2 * zero_centred(fake_score, fake))
        return self.every * torch.stack(terms).sum()
