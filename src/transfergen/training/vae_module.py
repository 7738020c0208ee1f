"""Variational autoencoders as LightningModules: alone, and in a game with a discriminator."""

from typing import Any, NamedTuple, cast

import torch
from lightning.pytorch.core.optimizer import LightningOptimizer
from torch import Tensor, nn
from torch.optim import Optimizer

from transfergen.data.store import Batch
from transfergen.images import to_float, to_rgb
from transfergen.losses.divergence import Elbo, Posterior
from transfergen.losses.perceptual import perceptual_distance
from transfergen.networks.acceleration.folding import fold_batchnorm
from transfergen.networks.backbones.base import Backbone
from transfergen.networks.generators.base import Generator
from transfergen.networks.layers.unregistered import UnregisteredModules
from transfergen.training.base_module import GenerativeModule, OptimizerFactory
from transfergen.training.ema import EMA
from transfergen.training.gan_module import GAN
from transfergen.training.step_records import Fakes, Generate, position


class Coding(NamedTuple):
    """Images, the distributions of their latents, and the images decoded from one draw of each."""

    images: Tensor
    """(B, C, H, W) in [-1, 1]."""
    posterior: Posterior
    z: Tensor
    """The draws (B, Z)."""
    decoded: Tensor
    """(B, C, H, W) in [-1, 1]."""


class Autoencoding(UnregisteredModules, GenerativeModule):
    """The base of VAE and VAEGAN: an encoder before the generator, which decodes, and the terms of the bound."""

    encoder: nn.Module
    encoder_ema: EMA[nn.Module] | None
    """The encoder's moving average, which belongs to the generator's."""
    elbo: Elbo
    _trunk: Backbone | None = None
    """The frozen network whose features the perceptual term compares; None if the weight of that term is 0."""

    def _take_encoder(self, encoder: object, elbo: Elbo, backbone: object) -> None:
        """Check and keep the encoder, the bound and the trunk of its perceptual term.

        Raises:
            ValueError: no encoder, one of other latents, or no trunk for the perceptual term.
        """
        if not isinstance(encoder, nn.Module):  # the nothing that encoder=none leaves
            raise ValueError("a VAE needs an encoder; set encoder=dcgan")
        if encoder.z_dim != self.generator.z_dim:
            raise ValueError(
                f"encoder.z_dim={encoder.z_dim}: the generator's latents have {self.generator.z_dim} numbers; set "
                f"encoder.z_dim={self.generator.z_dim}"
            )
        if elbo.perceptual:
            if not isinstance(backbone, Backbone):
                raise ValueError(
                    f"objective.perceptual={elbo.perceptual}: there is no pretrained trunk to compare features of; set "
                    "backbone=vgg19_multiscale, or objective.perceptual=0"
                )
            self.add_frozen("_trunk", backbone)
            fold_batchnorm(backbone, self.generator.image_shape.size)
        self.encoder, self.elbo = encoder, elbo
        self.encoder_ema = (
            EMA(encoder, halflife_images=self.ema.halflife_images, rampup=self.ema.rampup) if self.ema else None
        )

    def _encode_and_decode(self, batch: Batch, generate: Generate) -> Coding:
        """Encode each image and decode one draw of its latent. Kingma 2014, arXiv:1312.6114, equation 10."""
        images = to_float(batch.pixels, self.generator.image_shape.size)
        posterior = Posterior(*self.encoder(images))
        noise = self._randomness.latents(len(images), self.generator.z_dim)
        z = posterior.mean + (posterior.log_variance / 2).exp() * noise
        return Coding(images, posterior, z, generate(z, batch.labels if self.generator.num_classes else None))

    def _elbo_terms(self, coding: Coding) -> dict[str, Tensor]:
        images, posterior, _, decoded = coding
        terms = self.elbo.terms(images, decoded, posterior, self.images_seen)
        if self._trunk is not None:
            with torch.no_grad():
                wanted = self._trunk(to_rgb(images))
            terms["perceptual"] = self.elbo.perceptual * perceptual_distance(self._trunk(to_rgb(decoded)), wanted)
        return terms

    def _elbo_curves(self, coding: Coding, terms: dict[str, Tensor]) -> dict[str, Tensor]:
        values = coding.images[0].numel()
        return self.elbo.curves(terms["reconstruction"], coding.posterior, values, self.images_seen)

    def update_average(self, images: int) -> None:
        """Update the moving averages of both networks."""
        super().update_average(images)
        if self.encoder_ema:
            self.encoder_ema.update(self.encoder, images=images, images_seen=self.images_seen)

    def encode(self, images: Tensor) -> Tensor:
        """Images (B, C, H, W) in [-1, 1] -> means of their latents (B, Z), by the encoder's average if it has one."""
        encoder = self.encoder_ema.network if self.encoder_ema else self.encoder
        return cast(Tensor, _in_eval_mode(encoder, images.to(self.device))[0])

    def decode(self, z: Tensor, y: Tensor | None = None) -> Tensor:
        """Latents (B, Z), and classes (B,) -> images (B, C, H, W), by the generator's average if it has one."""
        return cast(Tensor, _in_eval_mode(self.ema_generator, z, y))


@torch.no_grad()
def _in_eval_mode(network: nn.Module, *inputs: Tensor | None) -> Any:
    was_training = network.training
    outputs = network.eval()(*inputs)
    network.train(was_training)
    return outputs


class VAE(Autoencoding):
    """A variational autoencoder. Kingma 2014, arXiv:1312.6114; Rezende 2014, arXiv:1401.4082.

    Args:
        generator: decodes.
        encoder: images -> mean and log-variance of their latents.
        objective: the bound.
        backbone: trunk of the perceptual term, if that has a weight.
        g_optimizer: a function from parameters to an optimizer, for both networks.
        average: ema_halflife_images, ema_rampup and seed, see GenerativeModule.

    Raises:
        ValueError: no encoder, one of other latents, or no trunk for the perceptual term.
    """

    def __init__(
        self,
        generator: Generator,
        encoder: nn.Module,
        objective: Elbo,
        *,
        backbone: Backbone | None = None,
        g_optimizer: OptimizerFactory,
        **average: Any,
    ) -> None:
        super().__init__(generator, **average)
        self._take_encoder(encoder, objective, backbone)
        self.g_optimizer = g_optimizer

    def configure_optimizers(self) -> list[Optimizer]:
        """One optimizer for both networks."""
        return [self.g_optimizer([*self.generator.parameters(), *self.encoder.parameters()])]

    def loss(self, batch: Batch) -> tuple[Coding, dict[str, Tensor], Tensor]:
        """The coding of a batch, the weighted terms of its loss, and their sum with the generator's regularization."""
        coding = self._encode_and_decode(batch, self.generator)
        terms = self._elbo_terms(coding)
        loss = torch.stack(list(terms.values())).sum()
        if (regularization := self.generator.regularization()) is not None:
            loss = loss + regularization
        return coding, terms, loss

    def training_step(self, batch: Batch, batch_idx: int) -> None:
        """One update of both networks."""
        optimizer = cast(LightningOptimizer, self.optimizers())
        images, update = position(batch, self.images_seen)
        coding, terms, loss = self.loss(batch)
        optimizer.zero_grad()
        self.manual_backward(loss)
        parameters = [*self.generator.parameters(), *self.encoder.parameters()]
        norm = self.updates.step(optimizer, loss, parameters, "VAE")
        curves = self._elbo_curves(coding, terms)
        self.images_seen += images
        self.update_average(images)
        if update % self.trainer.log_every_n_steps == 0:  # type: ignore[attr-defined]
            curves |= {"loss/generator": loss, "gradient_norm/generator": norm}
            curves |= {f"loss/{name}": term for name, term in terms.items()}
            self._log_curves(curves, {}, {"loss": "loss/generator", "elbo": "elbo"})


class VAEGAN(Autoencoding, GAN):
    """A variational autoencoder whose generator also plays against a discriminator. Larsen 2016, arXiv:1512.09300.

    Half of the fakes are decoded from latents of the batch's images, half from N(0, 1). Two deviations from the paper:
    the adversarial gradient reaches the encoder, too; and images are compared both by their pixels and in the features
    of a pretrained network, where the paper has the discriminator's features alone.

    Args:
        encoder: images -> mean and log-variance of their latents.
        elbo: the bound, and the weights of the other terms.
        backbone: trunk of the perceptual term, if that has a weight.
        game: the arguments of GAN.

    Raises:
        ValueError: see VAE and GAN; or a transfer strategy with losses of its own.
    """

    def __init__(
        self, generator: Generator, encoder: nn.Module, elbo: Elbo, *, backbone: Backbone | None = None, **game: Any
    ) -> None:
        assert elbo.game is not None
        GAN.__init__(self, generator, objective=elbo.game, **game)
        if self.transfer.has_terms:
            raise ValueError(
                "transfer: this strategy has losses of its own, which a VAE has no place for; set "
                "transfer=feature_extraction or transfer=fine_tuning"
            )
        self._take_encoder(encoder, elbo, backbone)

    def draw_fakes(self, batch: Batch, labels: Tensor | None, generate: Generate) -> Fakes:
        """Images decoded from the latents of the first half of the reals, and as many from N(0, 1)."""
        coding = self._encode_and_decode(batch, generate)
        half = len(batch.pixels) // 2
        noise = self._randomness.latents(len(batch.pixels), self.generator.z_dim)[half:]
        sampled = generate(noise, None if labels is None else labels[half:])
        z, images = torch.cat([coding.z[:half], noise]), torch.cat([coding.decoded[:half], sampled])
        if not torch.is_grad_enabled():  # the generator is not updated on this batch
            return Fakes(z, images)
        terms = self._elbo_terms(coding)
        return Fakes(z, images, terms, self._elbo_curves(coding, terms))

    @property
    def adversarial_weight(self) -> float:
        """Weight of the adversarial loss in the generator's."""
        return self.elbo.adversarial

    def g_parameters(self) -> list[nn.Parameter]:
        """The parameters of the generator and of the encoder."""
        return [*self.generator.parameters(), *self.encoder.parameters()]
