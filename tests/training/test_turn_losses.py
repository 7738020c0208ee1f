from typing import ClassVar

import pytest
import torch
from torch import nn
from trunks import trunk

from transfergen.losses.adversarial import bce, relativistic
from transfergen.networks.backbones.vgg import VGG
from transfergen.networks.discriminators.dcgan import DCGANDiscriminator
from transfergen.networks.discriminators.projected import ProjectedDiscriminator
from transfergen.networks.discriminators.single_head import SingleHeadDiscriminator
from transfergen.networks.discriminators.vision_aided import VisionAidedDiscriminator
from transfergen.networks.generators.dcgan import DCGAN
from transfergen.training.turn_losses import (
    both_turns,
    discriminator_turn,
    extrapolated,
    generator_turn,
    without_weight_gradients,
)

BATCH = 4


def networks():
    trunk = VGG(arch="vgg11", cut="relu3_2", weights="random")
    discriminator = SingleHeadDiscriminator(trunk, resolution=32, hidden=16)
    discriminator.calibrate(torch.rand(8, 3, 32, 32) * 2 - 1)
    return DCGAN(resolution=32, z_dim=8, width=8), discriminator


def projected():
    return ProjectedDiscriminator(trunk(), resolution=32, channels=4, width=4)


def vision_aided():
    ordinary = DCGANDiscriminator(resolution=32, width=4)
    d = VisionAidedDiscriminator(
        ordinary, {"a": trunk(), "b": trunk((4,))}, resolution=32, weight=0.5, channels=4, width=4
    )
    d.joined = ["b", "a"]
    return d


WHOLE = [(slice(None), 1.0)]
OTHERS = {
    "dcgan": (lambda: DCGANDiscriminator(resolution=32, width=4), WHOLE),
    "projected": (projected, WHOLE),
    "vision_aided": (vision_aided, [(slice(0, 1), 1.0), (slice(1, 2), 0.5), (slice(2, 5), 0.5)]),
}


@pytest.mark.parametrize("name", OTHERS)
def test_a_joint_discriminator_normalises_reals_and_fakes_by_the_statistics_of_both(name):
    discriminator = OTHERS[name][0]().eval()  # spectral norm stands still
    for module in discriminator.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.train()
    real, fake = torch.rand(BATCH, 3, 32, 32), torch.rand(BATCH, 3, 32, 32) - 1
    features = [discriminator.features(images) for images in (real, fake)]
    both = discriminator(torch.cat([real, fake]))
    apart = [discriminator.score(part) for part in features]
    assert (torch.cat(apart) - both).abs().max() > 1e-2
    for joint, expected in ((False, apart), (True, both.chunk(2))):
        discriminator.joint_batchnorm = joint
        turn = discriminator_turn(discriminator, bce(), *features)
        torch.testing.assert_close(turn.real_logits, expected[0], rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(turn.fake_logits, expected[1], rtol=1e-4, atol=1e-5)
        turn = generator_turn(discriminator, bce(), *features)
        torch.testing.assert_close(turn.fake_logits, expected[1], rtol=1e-4, atol=1e-5)
        if joint:  # as they are after the discriminator's update, beside these fakes
            torch.testing.assert_close(turn.real_logits, expected[0], rtol=1e-4, atol=1e-5)


def test_discriminators_turn_leaves_the_generator_without_gradients():
    generator, discriminator = networks()
    discriminator.freeze(3)
    fake = discriminator.features(generator(torch.randn(BATCH, 8)))
    discriminator_turn(discriminator, bce(), [f.detach() for f in fake], fake).loss.backward()
    assert all(p.grad is None for p in generator.parameters())
    assert all(p.grad is not None for p in discriminator.head.parameters())


@pytest.mark.parametrize("frozen_blocks", [0, 3])
def test_generators_turn_computes_no_weight_gradient_of_the_discriminator(frozen_blocks):
    generator, discriminator = networks()
    discriminator.freeze(frozen_blocks)
    parameters = list(discriminator.trainable_parameters())
    fake = discriminator.features(generator(torch.randn(BATCH, 8)))
    with without_weight_gradients(parameters):
        generator_turn(discriminator, bce(), [], fake).loss.backward()
    assert all(p.grad is None for p in discriminator.parameters())
    assert all(p.grad.abs().sum() > 0 for p in generator.parameters())
    assert all(p.requires_grad for p in parameters)


@pytest.mark.parametrize("joint", [False, True])
@pytest.mark.parametrize("name", OTHERS)
def test_both_turns_have_the_gradients_of_each_turn_at_the_same_weights(name, joint):
    discriminator = OTHERS[name][0]().eval()  # spectral norm stands still
    discriminator.joint_batchnorm = joint
    generator, real = DCGAN(resolution=32, z_dim=8, width=8), torch.rand(BATCH, 3, 32, 32) * 2 - 1
    weights = {"d": list(discriminator.trainable_parameters()), "g": list(generator.parameters())}
    fake, real = (discriminator.features(images) for images in (generator(torch.randn(BATCH, 8)), real))
    turns = {
        "d": discriminator_turn(discriminator, relativistic(), real, fake),
        "g": generator_turn(discriminator, relativistic(), real, fake, discriminator.score(real)),
    }
    at_once = dict(zip(turns, both_turns(discriminator, relativistic(), real, fake), strict=True))
    expected = [g for who in turns for g in torch.autograd.grad(turns[who].loss, weights[who], retain_graph=True)]
    (at_once["d"].loss + 3 * at_once["g"].loss).backward(inputs=[*weights["d"], *weights["g"]])
    for turn, same in zip(turns.values(), at_once.values(), strict=True):
        torch.testing.assert_close(same.loss.detach(), turn.loss.detach())
        torch.testing.assert_close(same.fake_logits, turn.fake_logits)
    for parameter, gradient in zip(weights["d"] + weights["g"], expected, strict=True):
        factor = 1 if any(parameter is p for p in weights["d"]) else 3
        torch.testing.assert_close(parameter.grad, factor * gradient, rtol=1e-4, atol=1e-7)


class Backward(torch.autograd.Function):
    """Remembers whether autocast is on in a backward pass."""

    seen: ClassVar[list[bool]] = []

    @staticmethod
    def forward(ctx, x):
        return x.clone()

    @staticmethod
    def backward(ctx, gradient):
        Backward.seen.append(torch.is_autocast_enabled("cpu"))
        return gradient


def test_the_backward_pass_within_both_turns_is_without_autocast(monkeypatch):
    discriminator = DCGANDiscriminator(resolution=32, width=4, norm="none")
    score = discriminator.score
    monkeypatch.setattr(discriminator, "score", lambda features, y: score([Backward.apply(features[0])], y))
    monkeypatch.setattr(Backward, "seen", [])
    fake = torch.rand(BATCH, 3, 32, 32, requires_grad=True)
    with torch.autocast("cpu", torch.bfloat16):
        both_turns(discriminator, bce(), [torch.rand(BATCH, 3, 32, 32)], [fake])
    assert Backward.seen == [False]


@pytest.mark.parametrize("factor", [0.5, 1.0])
def test_an_extrapolated_discriminator_has_taken_its_last_step_once_more_and_goes_back(factor):
    weights = nn.Parameter(torch.randn(5))
    before, optimizer = weights.detach().clone(), torch.optim.SGD([weights], lr=0.1)
    weights.grad = torch.randn(5)
    optimizer.step()
    after = weights.detach().clone()
    with extrapolated([weights], [before], factor):
        torch.testing.assert_close(weights.detach(), before - (1 + factor) * 0.1 * weights.grad)
    assert torch.equal(weights, after)
