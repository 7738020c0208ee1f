import csv
from types import SimpleNamespace
from unittest import mock

import numpy as np
import pytest
import torch
from runs import ANY_MODEL, SMALL_MODELS, train
from trunks import trunk

from transfergen.data.store import Batch
from transfergen.images import to_float
from transfergen.losses import divergence
from transfergen.losses.adversarial import bce
from transfergen.losses.divergence import Elbo
from transfergen.losses.perceptual import perceptual_distance
from transfergen.networks.discriminators.dcgan import DCGANDiscriminator
from transfergen.networks.encoders.dcgan import DCGANEncoder
from transfergen.networks.generators.base import sample
from transfergen.networks.generators.dcgan import DCGAN
from transfergen.runs import artefacts
from transfergen.runs.generator_files import load_generator
from transfergen.training.augmentation import Augmentation
from transfergen.training.vae_module import VAE as VAEModule
from transfergen.training.vae_module import VAEGAN as VAEGANModule
from transfergen.transfer.strategy import Strategy

VAE = [*ANY_MODEL, *SMALL_MODELS["vae"]]
VAE_GAN = [*ANY_MODEL, *SMALL_MODELS["vae_gan"]]


def run(run_dir, *overrides):
    code, _, err = train(run_dir, *overrides, small=False)
    assert code == 0, err
    return torch.load(run_dir / artefacts.LAST_CHECKPOINT, weights_only=True)["state_dict"]


def curve(run_dir, name):
    with next((run_dir / "csv").rglob("metrics.csv")).open() as file:
        return [float(row[name]) for row in csv.DictReader(file) if row.get(name)]


def test_a_vae_learns_its_images_and_its_generator_is_a_run_like_any(tmp_path):
    state = run(tmp_path, *VAE, "optimizer.generator.lr=2e-3", "max_images=640", "objective.warmup_images=320")
    elbo, reconstruction = curve(tmp_path, "elbo"), curve(tmp_path, "loss/reconstruction")
    assert sum(elbo[-5:]) / 5 > sum(elbo[:5]) / 5 + 0.2
    assert reconstruction[-1] < reconstruction[0]
    assert curve(tmp_path, "kl/weight")[::20] == pytest.approx([0, 0.5, 1, 1])
    assert any(name.startswith("encoder.") for name in state)
    images = sample(load_generator(tmp_path), range(2), "cpu")
    assert images.shape == (2, 3, 32, 32)


def test_the_trunk_of_the_perceptual_term_is_neither_trained_nor_saved(tmp_path):
    state = run(tmp_path, *VAE_GAN, "max_images=16")
    assert {name.partition(".")[0] for name in state} == {"generator", "ema", "encoder", "encoder_ema", "discriminator"}
    for name in ("reconstruction", "kl", "perceptual"):
        assert len(curve(tmp_path, f"loss/{name}")) == 2


@pytest.mark.parametrize("model", [VAE, VAE_GAN])
def test_a_resumed_run_ends_where_an_unbroken_one_does(tmp_path, model):
    whole = run(tmp_path / "whole", *model, "max_images=128")
    run(tmp_path / "parts", *model, "max_images=64")
    parts = run(tmp_path / "parts", f"resume={tmp_path / 'parts'}", "max_images=128")
    assert all(torch.equal(value, parts[name]) for name, value in whole.items() if isinstance(value, torch.Tensor))


def test_encoder_and_decoder_in_use_are_both_moving_averages():
    generator, encoder = DCGAN(resolution=32, z_dim=8, width=4), DCGANEncoder(resolution=32, z_dim=8, width=4)
    module = VAEModule(generator, encoder, Elbo(), g_optimizer=torch.optim.SGD, ema_halflife_images=64, ema_rampup=1)
    images = torch.rand(2, 3, 32, 32)
    before = module.encode(images)
    with torch.no_grad():
        for parameter in module.encoder.parameters():
            parameter.add_(0.1)
    assert torch.equal(module.encode(images), before)
    module.images_seen = 64
    module.update_average(64)
    averaged = dict(module.encoder_ema.network.named_parameters())
    for name, parameter in module.encoder.named_parameters():
        torch.testing.assert_close(averaged[name], parameter - 0.05)
    assert not torch.equal(module.encode(images), before)


def networks():
    return DCGAN(resolution=32, z_dim=8, width=4), DCGANEncoder(resolution=32, z_dim=8, width=4)


def batch_of(count):
    pixels = torch.randint(0, 256, (count, 3, 32, 32), dtype=torch.uint8)
    return Batch(pixels, torch.zeros(count, dtype=torch.long), np.arange(count))


def drawing(module):
    """Let a module draw its latents one batch after the other from the noise that is returned."""
    noise = torch.randn(2, 4, 8)
    given = iter(noise)
    module._randomness = SimpleNamespace(latents=lambda count, z_dim: next(given))
    return noise


def as_pixels(z, y=None):
    """A generator of plain images, each as bright as the first number of its latent."""
    return z[:, 0].view(-1, 1, 1, 1).expand(-1, 3, 32, 32)


def drawn(encoder, batch, noise):
    """The latents that the noise gives by the distributions of a batch's images."""
    mean, log_variance = encoder(to_float(batch.pixels))
    return mean + log_variance.exp().sqrt() * noise


@torch.no_grad()
def test_a_vae_decodes_a_draw_from_the_distribution_of_each_image():
    module, batch = VAEModule(*networks(), Elbo(), g_optimizer=torch.optim.SGD, ema_halflife_images=0), batch_of(4)
    noise = drawing(module)
    coding = module._encode_and_decode(batch, as_pixels)
    torch.testing.assert_close(coding.decoded, as_pixels(drawn(module.encoder, batch, noise[0])))


@torch.no_grad()
def test_half_of_the_fakes_are_decoded_and_half_are_sampled():
    game = {"discriminator": DCGANDiscriminator(resolution=32, width=4), "transfer": Strategy()}
    game |= {"augment": Augmentation(), "d_optimizer": torch.optim.SGD, "g_optimizer": torch.optim.SGD}
    module, batch = VAEGANModule(*networks(), Elbo(game=bce()), **game, ema_halflife_images=0), batch_of(4)
    noise = drawing(module)
    fakes = module.draw_fakes(batch, None, as_pixels)
    decoded = as_pixels(drawn(module.encoder, batch, noise[0]))
    torch.testing.assert_close(fakes.images, torch.cat([decoded[:2], as_pixels(noise[1, 2:])]))
    torch.testing.assert_close(fakes.images, as_pixels(fakes.z))  # each image belongs to its latent


@torch.no_grad()
def test_the_bound_is_logged_without_comparing_the_images_again(monkeypatch):
    module = VAEModule(*networks(), Elbo(), g_optimizer=torch.optim.SGD, ema_halflife_images=0)
    drawing(module)
    coding = module._encode_and_decode(batch_of(4), as_pixels)
    compared = mock.Mock(side_effect=divergence.gaussian_nll)
    monkeypatch.setattr(divergence, "gaussian_nll", compared)
    terms = module._elbo_terms(coding)
    curves = module._elbo_curves(coding, terms)
    assert compared.call_count == 1
    torch.testing.assert_close(curves["elbo"], -terms["reconstruction"] - terms["kl"])  # beta is 1


@torch.no_grad()
def test_the_perceptual_term_is_its_weight_times_the_distance_in_the_trunks_features():
    elbo = Elbo(perceptual=3.0)
    module = VAEModule(*networks(), elbo, backbone=trunk(), g_optimizer=torch.optim.SGD, ema_halflife_images=0)
    drawing(module)
    coding = module._encode_and_decode(batch_of(4), as_pixels)
    features = [module._trunk(images) for images in (coding.decoded, coding.images)]
    torch.testing.assert_close(module._elbo_terms(coding)["perceptual"], 3 * perceptual_distance(*features))


@torch.no_grad()
def test_the_loss_of_a_vae_is_the_sum_of_its_terms_and_of_the_generators_regularization(monkeypatch):
    module = VAEModule(*networks(), Elbo(beta=2.0), g_optimizer=torch.optim.SGD, ema_halflife_images=0)
    monkeypatch.setattr(module.generator, "regularization", lambda: torch.tensor(5.0))
    drawing(module)
    _, terms, loss = module.loss(batch_of(4))
    assert list(terms) == ["reconstruction", "kl"]
    torch.testing.assert_close(loss, terms["reconstruction"] + terms["kl"] + 5)


def test_adversarial_loss_counts_by_its_weight(tmp_path):
    without = run(tmp_path / "without", *VAE_GAN, "objective.adversarial=0", "max_images=8")
    heavy = run(tmp_path / "heavy", *VAE_GAN, "objective.adversarial=100", "max_images=8")
    name = "generator.layers.0.weight"
    assert not torch.equal(without[name], heavy[name])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ([*VAE[:-1], "encoder=none"], "a VAE needs an encoder; set encoder=dcgan"),
        ([*VAE, "encoder.z_dim=5"], "encoder.z_dim=5: the generator's latents have 100 numbers"),
        (
            [*VAE_GAN, "backbone.input_size=2"],
            "less than 1x1 of 2 px; choose for the backbone input_size=",
        ),
        ([*VAE, "objective.perceptual=1"], "set backbone=vgg19_multiscale, or objective.perceptual=0"),
        (
            [*ANY_MODEL, "model=dcgan", "discriminator=none"],
            "this objective needs a discriminator; set discriminator=dcgan",
        ),
        ([*ANY_MODEL, *SMALL_MODELS["dcgan"], "encoder=dcgan"], "encoder: a GAN has none; set encoder=none"),
    ],
)
def test_parts_that_do_not_go_together_are_one_line_with_the_override(tmp_path, options, message):
    code, _, err = train(tmp_path, *options, small=False)
    assert code == 2
    assert message in err
    assert err.count("\n") == 1
