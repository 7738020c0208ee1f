import copy

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from trunks import trunk

from transfergen.losses.adversarial import bce, relativistic
from transfergen.networks.backbones.vgg import VGG
from transfergen.networks.discriminators.dcgan import DCGANDiscriminator
from transfergen.networks.discriminators.projected import ProjectedDiscriminator
from transfergen.networks.discriminators.vgg import VGGDiscriminator
from transfergen.networks.discriminators.vision_aided import VisionAidedDiscriminator
from transfergen.networks.generators.dcgan import DCGAN
from transfergen.training.real_features import FeatureCache
from transfergen.training.turn_losses import (
    both_turns,
    discriminator_turn,
    extrapolated,
    generator_turn,
    gradient_norm,
    without_weight_gradients,
)

STEPS, BATCH = 3, 4


def networks(dropout=0.0):
    discriminator = VGGDiscriminator(
        VGG(arch="vgg11", cut="relu3_2", weights="random"), resolution=32, hidden=16, dropout=dropout
    )
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


def sgd(parameters):
    # Adam would divide rounding errors of vanishing gradients by themselves.
    return torch.optim.SGD(parameters, lr=2e-3, momentum=0.5)


def plain_loop(generator, discriminator, reals, noise, parts):
    """The algorithm as a textbook writes it: no shared pass, probabilities from whole networks."""
    d_optimizer, g_optimizer = sgd(discriminator.trainable_parameters()), sgd(generator.parameters())

    def cross_entropy(images, target):
        p = discriminator(images).sigmoid()
        targets = torch.full_like(p, target)
        return sum(weight * F.binary_cross_entropy(p[:, part], targets[:, part]) for part, weight in parts)

    for real, z in zip(reals, noise, strict=True):
        fake = generator(z)
        d_optimizer.zero_grad()
        (cross_entropy(real, 1.0) + cross_entropy(fake.detach(), 0.0)).backward()
        d_optimizer.step()
        g_optimizer.zero_grad()
        cross_entropy(fake, 1.0).backward()
        g_optimizer.step()


def fast_loop(generator, discriminator, reals, noise, cache=None):
    d_parameters = list(discriminator.trainable_parameters())
    d_optimizer, g_optimizer = sgd(d_parameters), sgd(generator.parameters())
    for i, (real, z) in enumerate(zip(reals, noise, strict=True)):
        if cache is None:
            real_features = discriminator.features(real)
        else:
            positions = torch.arange(i * BATCH, (i + 1) * BATCH) % cache.size
            real_features = cache.get(positions, lambda missing, real=real: discriminator.features(real[missing]))
        fake_features = discriminator.features(generator(z))
        d_optimizer.zero_grad()
        discriminator_turn(discriminator, bce(), real_features, fake_features).loss.backward()
        d_optimizer.step()
        g_optimizer.zero_grad()
        with without_weight_gradients(d_parameters):
            generator_turn(discriminator, bce(), real_features, fake_features).loss.backward()
        g_optimizer.step()


def assert_equal_training(generator, discriminator, *, cached, parts):
    # The last batch repeats the first, so that the cache answers from memory.
    reals = [torch.rand(BATCH, 3, 32, 32) * 2 - 1 for _ in range(STEPS - 1)]
    reals.append(reals[0])
    noise = [torch.randn(BATCH, 8) for _ in range(STEPS)]
    cache = FeatureCache((STEPS - 1) * BATCH, max_mib=64) if cached else None

    start = generator, discriminator
    plain, fast = copy.deepcopy(start), copy.deepcopy(start)
    plain_loop(*plain, reals, noise, parts)
    fast_loop(*fast, reals, noise, cache)

    for before, plainly, fastly in zip(start, plain, fast, strict=True):
        moved = 0.0
        expected, found = dict(plainly.named_parameters()), dict(fastly.named_parameters())
        for name, parameter in before.named_parameters():
            torch.testing.assert_close(
                found[name], expected[name], rtol=1e-4, atol=1e-5, msg=lambda text, name=name: f"{name}: {text}"
            )
            moved += (expected[name] - parameter).abs().sum().item()
        assert moved > 1e-2
        for (name, a), b in zip(plainly.named_buffers(), fastly.buffers(), strict=True):  # statistics, power iterations
            torch.testing.assert_close(b, a, rtol=1e-4, atol=1e-5, msg=lambda text, name=name: f"{name}: {text}")


@pytest.mark.parametrize("cached", [False, True])
@pytest.mark.parametrize("frozen_blocks", [0, 2, 3])
def test_fast_step_trains_to_the_weights_of_the_plain_loop(frozen_blocks, cached):
    generator, discriminator = networks()
    discriminator.freeze(frozen_blocks)
    assert_equal_training(generator, discriminator, cached=cached and frozen_blocks, parts=WHOLE)


@pytest.mark.parametrize("cached", [False, True])
@pytest.mark.parametrize("name", OTHERS)
def test_fast_step_of_every_discriminator_is_the_plain_one(name, cached):
    """Spectral norm iterates, and batch norm averages, at each pass of a head: three a step, in one order, in both."""
    build, parts = OTHERS[name]
    assert_equal_training(DCGAN(resolution=32, z_dim=8, width=8), build(), cached=cached, parts=parts)


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


@pytest.mark.parametrize("factor", [0.5, 1.0])
def test_a_predicted_discriminator_has_taken_its_last_step_once_more_and_goes_back(factor):
    weights = nn.Parameter(torch.randn(5))
    before, optimizer = weights.detach().clone(), torch.optim.SGD([weights], lr=0.1)
    weights.grad = torch.randn(5)
    optimizer.step()
    after = weights.detach().clone()
    with extrapolated([weights], [before], factor):
        torch.testing.assert_close(weights.detach(), before - (1 + factor) * 0.1 * weights.grad)
    assert torch.equal(weights, after)


@pytest.mark.parametrize("name", ["vgg", "projected", "vision_aided"])
def test_frozen_trunk_runs_three_passes_at_first_and_two_once_reals_are_known(name):
    generator, discriminator = networks()
    if name in OTHERS:
        discriminator = OTHERS[name][0]()
    discriminator.freeze(discriminator.blocks)
    passes = []
    for backbone in discriminator.backbones:
        backbone.blocks[0].register_forward_hook(lambda module, *_: passes.append(module))
    real, z = torch.rand(BATCH, 3, 32, 32), torch.randn(BATCH, 8)
    cache = FeatureCache(BATCH, max_mib=64)
    for forward_passes in (2, 3):  # forward; one more is the backward one
        fast_loop(generator, discriminator, [real], [z], cache)
        assert [passes.count(backbone.blocks[0]) for backbone in discriminator.backbones] == [forward_passes] * len(
            discriminator.backbones
        )


def test_cache_computes_each_image_once_and_keeps_the_order_asked_for():
    table, asked = torch.randn(6, 2), []

    def get(indices):
        def compute(positions):
            asked.extend(indices[positions].tolist())
            return [table[indices[positions]]]

        return cache.get(indices, compute)[0]

    cache = FeatureCache(6, max_mib=1)
    for indices in ([3, 1], [1, 5, 3], [5, 3, 1]):
        assert torch.equal(get(torch.tensor(indices)), table[indices])
    assert sorted(asked) == [1, 3, 5]
    cache.clear()
    get(torch.tensor([3]))
    assert sorted(asked) == [1, 3, 3, 5]


def test_cache_keeps_nothing_that_would_not_fit():
    cache, calls = FeatureCache(1000, max_mib=1), []
    for _ in range(2):
        cache.get(torch.tensor([0]), lambda positions: [calls.append(1) or torch.zeros(len(positions), 300)])
    assert len(calls) == 2


def test_gradient_norm_is_that_of_all_gradients_together_and_shows_what_is_not_finite():
    a, b = nn.Parameter(torch.zeros(2)), nn.Parameter(torch.zeros(1))
    a.grad, b.grad = torch.tensor([1.0, 2.0]), torch.tensor([2.0])
    assert gradient_norm([a, b]).item() == 3.0
    b.grad = torch.tensor([float("inf")])
    assert not torch.isfinite(gradient_norm([a, b]))
