"""Elastic weight consolidation: weights that matter for what was learnt before move less."""

from collections.abc import Sequence

import torch
from torch import Tensor

from transfergen.networks.generators.base import Generator, latents

BATCHES, BATCH = 32, 32


def fisher_information(generator: Generator, *, seed: int = 0) -> list[Tensor]:
    """The diagonal of the Fisher information of each of the generator's weights, in their shapes and order.

    Of a model whose pixels are the generator's with unit Gaussian noise, averaged over latents and pixels: the mean of
    (dx / dw)^2 over pixels x. So sum(F (w - w0)^2) is, to first order and without the products of different weights,
    the mean squared change of a pixel. It is estimated without bias from gradients of randomly signed sums of pixels.
    Li 2020, arXiv:2012.02780, section 3.2, has the discriminator's loss as the likelihood, and so needs the source's.

    Args:
        generator: in eval mode.
        seed: of latents, classes and signs, so that all ranks find the same.
    """
    weights = list(generator.parameters())
    device = weights[0].device
    total = [torch.zeros_like(weight) for weight in weights]
    draw = torch.Generator().manual_seed(seed)
    with torch.enable_grad():
        for batch in range(BATCHES):
            first = seed + batch * BATCH
            z = latents(range(first, first + BATCH), generator.z_dim).to(device)
            y = (
                torch.randint(generator.num_classes, (BATCH,), generator=draw).to(device)
                if generator.num_classes
                else None
            )
            images = generator(z, y)
            signs = 2.0 * torch.randint(2, images.shape, generator=draw) - 1
            gradients = torch.autograd.grad((images * signs.to(images)).sum(), weights)
            torch._foreach_add_(total, [gradient.square() for gradient in gradients])
    return [squares / (BATCHES * images.numel()) for squares in total]


def consolidation(weights: Sequence[Tensor], anchors: Sequence[Tensor], fisher: Sequence[Tensor]) -> Tensor:
    """Sum of F (w - w0)^2 over all weights, a scalar. Kirkpatrick 2017, arXiv:1612.00796, eq. 3 without its 1/2."""
    terms = [(f * (w - w0).square()).sum() for w, w0, f in zip(weights, anchors, fisher, strict=True)]
    return torch.stack(terms).sum()
