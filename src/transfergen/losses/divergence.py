"""The evidence lower bound of a variational autoencoder."""

import math
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from transfergen.distributed import mean_over_ranks
from transfergen.losses.adversarial import Objective


class Posterior(NamedTuple):
    """A Gaussian distribution with diagonal covariance over the latent of each image."""

    mean: Tensor
    """(B, Z)."""
    log_variance: Tensor
    """(B, Z)."""


def kl_divergence(posterior: Posterior) -> Tensor:
    """Kullback-Leibler divergence from N(0, 1) in each dimension, (B, Z), in nats. arXiv:1312.6114, appendix B."""
    mean, log_variance = posterior
    return (mean.square() + log_variance.exp() - 1 - log_variance) / 2


def gaussian_nll(images: Tensor, decoded: Tensor, *, sigma: float | None = None) -> Tensor:
    """Negative log-likelihood of images under a Gaussian whose mean is the decoded images, in nats per value, a scalar.

    The standard deviation is `sigma`. None: the one under which the batch is most likely, which is the root mean
    squared error over all ranks. Rybkin 2021, arXiv:2006.13202, section 3.
    """
    error = mean_over_ranks((images - decoded).float().square().mean())
    if sigma is None:
        return (error.clamp(min=1e-8).log() + 1 + math.log(2 * math.pi)) / 2
    return error / (2 * sigma**2) + math.log(sigma) + math.log(2 * math.pi) / 2


@dataclass(frozen=True, kw_only=True)
class Elbo:
    """The loss of a variational autoencoder, the negative evidence lower bound, and the weights of terms added to it.

    The bound is divided by the number of values in an image, C H W, so that one learning rate suits all resolutions.

    Args:
        beta: weight of the divergence of the posterior from N(0, 1). Higgins 2017; Burgess 2018, arXiv:1804.03599,
            eq. 2.
        free_bits: divergence in nats, averaged over the batch, that each dimension of the latent has without cost.
            Kingma 2016, arXiv:1606.04934, appendix C.8.
        warmup_images: real images over which beta grows linearly from 0. Bowman 2016, arXiv:1511.06349, section 3.1.
        sigma: standard deviation of a pixel, in [-1, 1], given the latent; None: the most likely one in each batch.
        perceptual: weight of the distance between images and decoded images in a pretrained network's features.
        adversarial: weight of the generator's adversarial loss.
        game: the losses of discriminator and generator; None: there is no discriminator.

    Raises:
        ValueError: there is a weight for an adversarial loss and no `game`.
    """

    beta: float = 1.0
    free_bits: float = 0.0
    warmup_images: int = 0
    sigma: float | None = None
    perceptual: float = 0.0
    adversarial: float = 0.0
    game: Objective | None = None

    def __post_init__(self) -> None:
        if self.adversarial and self.game is None:
            raise ValueError(f"adversarial={self.adversarial}: must be 0 unless `game` has losses for a discriminator")

    def kl_weight(self, images_seen: int) -> float:
        """Beta after `images_seen` real images, during or after the warm-up."""
        return self.beta * min(1.0, images_seen / self.warmup_images) if self.warmup_images else self.beta

    def terms(self, images: Tensor, decoded: Tensor, posterior: Posterior, images_seen: int) -> dict[str, Tensor]:
        """Weighted scalars by name, from images (B, C, H, W) in [-1, 1] and their reconstructions."""
        by_dimension = mean_over_ranks(kl_divergence(posterior).mean(dim=0)).clamp(min=self.free_bits)
        return {
            "reconstruction": gaussian_nll(images, decoded, sigma=self.sigma),
            "kl": self.kl_weight(images_seen) * by_dimension.sum() / images[0].numel(),
        }

    @torch.no_grad()
    def curves(self, reconstruction: Tensor, posterior: Posterior, values: int, images_seen: int) -> dict[str, Tensor]:
        """Scalars to log, by name.

        Args:
            reconstruction: the scalar of this name among `terms`.
            posterior: of the same batch.
            values: of an image, C H W.
            images_seen: real images.

        Returns:
            - `elbo`: the evidence lower bound, in nats per value of an image;
            - `kl/nats`: the divergence of the posterior from N(0, 1), in nats per image;
            - `kl/active`: fraction of the latent's dimensions that are active, which means that the variance of the
              posterior's mean over images is above 0.01. Burda 2016, arXiv:1509.00519, section 5;
            - `kl/weight`: the weight of the divergence.
        """
        kl = kl_divergence(posterior).sum(dim=1).mean()
        return {
            "elbo": -(reconstruction + kl / values),
            "kl/nats": kl,
            "kl/active": (posterior.mean.var(dim=0) > 0.01).float().mean(),
            "kl/weight": kl.new_full((), self.kl_weight(images_seen)),
        }
