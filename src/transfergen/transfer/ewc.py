"""Elastic weight consolidation: weights that matter for a source generator's images change less."""

from collections.abc import Sequence

import torch
from torch import Tensor

from transfergen.networks.generators.base import Generator, latents

BATCHES, BATCH_SIZE = 32, 32


def fisher_information(generator: Generator, *, seed: int = 0) -> list[Tensor]:
    """The diagonal of the Fisher information of the generator's weights, in their order and shapes.

    It is that of a model whose pixels are the generator's plus unit Gaussian noise, averaged over latents and pixels:
    the mean of (dx / dw)^2 over all pixels x. Hence sum(F (w - w0)^2) is, to first order and without the products of
    different weights, the mean squared change of a pixel. The gradients of randomly signed sums of pixels give an
    unbiased estimate. Li 2020, arXiv:2012.02780, section 3.2, takes the discriminator's loss as the likelihood, for
    which the source's discriminator is needed.

    Args:
        generator: in eval mode.
        seed: of latents, classes and signs, so that all ranks get the same result.
    """
    weights = list(generator.parameters())
    device = weights[0].device
    total = [torch.zeros_like(weight) for weight in weights]
    rng = torch.Generator().manual_seed(seed)
    with torch.enable_grad():
        for batch in range(BATCHES):
            first = seed + batch * BATCH_SIZE
            z = latents(range(first, first + BATCH_SIZE), generator.z_dim).to(device)
            y = None
            if generator.num_classes:
                y = torch.randint(generator.num_classes, (BATCH_SIZE,), generator=rng).to(device)
            images = generator(z, y)
            signs = 2.0 * torch.randint(2, images.shape, generator=rng) - 1
            gradients = torch.autograd.grad((images * signs.to(images)).sum(), weights)
            torch._foreach_add_(total, [gradient.square() for gradient in gradients])
    return [squares / (BATCHES * images.numel()) for squares in total]


def ewc_penalty(weights: Sequence[Tensor], source_weights: Sequence[Tensor], fisher: Sequence[Tensor]) -> Tensor:
    """sum(F (w - w0)^2) over all weights, a scalar. Kirkpatrick 2017, arXiv:1612.00796, eq. 3 without the 1/2."""
    terms = [(f * (w - w0).square()).sum() for w, w0, f in zip(weights, source_weights, fisher, strict=True)]
    return torch.stack(terms).sum()
