"""The evidence lower bound of a variational autoencoder."""

import math
from typing import NamedTuple

import torch
from torch import Tensor

from transfergen.losses.adversarial import Objective


class Posterior(NamedTuple):
    """A Gaussian with independent numbers for each image's latent."""

    mean: Tensor
    """(B, Z)."""
    log_variance: Tensor
    """(B, Z)."""


def kl_divergence(posterior: Posterior) -> Tensor:
    """From N(0, 1), for each number of each latent, (B, Z), in nats. Kingma 2014, arXiv:1312.6114, appendix B."""
    mean, log_variance = posterior
    return (mean.square() + log_variance.exp() - 1 - log_variance) / 2


def gaussian_nll(images: Tensor, decoded: Tensor, *, sigma: float | None = None) -> Tensor:
    """Negative log-likelihood of images under a Gaussian around the decoded ones, a scalar: nats a value, averaged.

    With `sigma` None, the standard deviation is the one that makes the batch most likely: the root of the mean squared
    error. Rybkin 2021, arXiv:2006.13202, section 3.
    """
    error = (images - decoded).float().square().mean()
    if sigma is None:
        return (error.clamp(min=1e-8).log() + 1 + math.log(2 * math.pi)) / 2
    return error / (2 * sigma**2) + math.log(sigma) + math.log(2 * math.pi) / 2


class Elbo:
    """What a variational autoencoder minimises, and the weights of what may come on top.

    Everything is per value of an image (3 R R of them), so that the learning rate need not follow the resolution.

    Args:
        beta: weight of the divergence of latents from N(0, 1). Higgins 2017; Burgess 2018, arXiv:1804.03599, eq. 2.
        free_bits: nats of divergence, averaged over the batch, below which a number of the latent costs nothing more.
            Kingma 2016, arXiv:1606.04934, appendix C.8.
        warmup_images: beta grows linearly from 0 over so many real images. Bowman 2016, arXiv:1511.06349, section 3.1.
        sigma: standard deviation of a pixel in [-1, 1] given its latent; None: the best for each batch.
        perceptual: weight of the distance between images and what is decoded, in a pretrained network's features.
        adversarial: weight of the generator's loss in `game`.
        game: the losses of the game with a discriminator; None: there is none.

    Raises:
        ValueError: a number out of range.
    """

    def __init__(
        self,
        *,
        beta: float = 1.0,
        free_bits: float = 0.0,
        warmup_images: int = 0,
        sigma: float | None = None,
        perceptual: float = 0.0,
        adversarial: float = 0.0,
        game: Objective | None = None,
    ) -> None:
        numbers = {"beta": beta, "free_bits": free_bits, "warmup_images": warmup_images, "perceptual": perceptual}
        for name, value in (numbers | {"adversarial": adversarial}).items():
            if value < 0:
                raise ValueError(f"objective.{name}={value}: 0 or more")
        if sigma is not None and sigma <= 0:
            raise ValueError(f"objective.sigma={sigma}: above 0, or null")
        if adversarial and game is None:
            raise ValueError(f"objective.adversarial={adversarial}: there is no game; set objective=vae_gan")
        self.beta, self.free_bits, self.warmup_images, self.sigma = beta, free_bits, warmup_images, sigma
        self.perceptual, self.adversarial, self.game = perceptual, adversarial, game

    def kl_weight(self, images_seen: int) -> float:
        """Beta as it is after so many real images."""
        return self.beta * min(1.0, images_seen / self.warmup_images) if self.warmup_images else self.beta

    def terms(self, images: Tensor, decoded: Tensor, posterior: Posterior, images_seen: int) -> dict[str, Tensor]:
        """Weighted scalars by name: images (B, 3, R, R) in [-1, 1], and as decoded from a draw of their latents."""
        by_dimension = kl_divergence(posterior).mean(dim=0).clamp(min=self.free_bits)
        return {
            "reconstruction": gaussian_nll(images, decoded, sigma=self.sigma),
            "kl": self.kl_weight(images_seen) * by_dimension.sum() / images[0].numel(),
        }

    @torch.no_grad()
    def curves(self, images: Tensor, decoded: Tensor, posterior: Posterior, images_seen: int) -> dict[str, Tensor]:
        """What to watch: the bound itself, in nats a value; the divergence, in nats an image; how much of Z is in use.

        A number of the latent is active where its mean varies by more than 0.01 over images: Burda 2016,
        arXiv:1509.00519, section 5.
        """
        kl = kl_divergence(posterior).sum(dim=1).mean()
        nll = gaussian_nll(images, decoded, sigma=self.sigma)
        return {
            "elbo": -(nll + kl / images[0].numel()),
            "kl/nats": kl,
            "kl/active": (posterior.mean.var(dim=0) > 0.01).float().mean(),
            "kl/weight": kl.new_full((), self.kl_weight(images_seen)),
        }
