"""One batch of the game, against the algorithm as a textbook writes it."""

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode
from trunks import trunk

from transfergen.data.store import Batch
from transfergen.images import to_float
from transfergen.losses.adversarial import bce, relativistic, wasserstein
from transfergen.losses.penalties import GradientPenalty
from transfergen.networks.backbones.vgg import VGG
from transfergen.networks.discriminators.dcgan import DCGANDiscriminator
from transfergen.networks.discriminators.projected import ProjectedDiscriminator
from transfergen.networks.discriminators.single_head import SingleHeadDiscriminator
from transfergen.networks.discriminators.vgg import VGGDiscriminator
from transfergen.networks.discriminators.vision_aided import VisionAidedDiscriminator
from transfergen.networks.generators.dcgan import DCGAN
from transfergen.training import real_features
from transfergen.training.adversarial_step import AdversarialStep
from transfergen.training.augmentation import AdaptiveAugmentation, Augmentation
from transfergen.training.finite_updates import FiniteUpdates
from transfergen.training.real_features import RealFeatures
from transfergen.training.step_records import Fakes
from transfergen.transfer.strategy import Strategy

STEPS, BATCH = 3, 4


def single_head():
    d = SingleHeadDiscriminator(
        VGG(arch="vgg11", cut="relu3_2", weights="random"), resolution=32, hidden=16, dropout=0.0
    )
    d.calibrate(torch.rand(8, 3, 32, 32) * 2 - 1)
    return d


def vgg():
    backbone = VGG(arch="vgg11", cut="relu3_2", taps=("relu1_1",), weights="random")
    d = VGGDiscriminator(backbone, resolution=32, width=4, hidden=8, joint_batchnorm=False)
    d.calibrate(torch.rand(8, 3, 32, 32) * 2 - 1)
    return d


def vision_aided():
    ordinary = DCGANDiscriminator(resolution=32, width=4)
    d = VisionAidedDiscriminator(
        ordinary, {"a": trunk(), "b": trunk((4,))}, resolution=32, weight=0.5, channels=4, width=4
    )
    d.joined = ["b", "a"]
    return d


WHOLE = [(slice(None), 1.0)]
DISCRIMINATORS = {  # and the parts of their logits, each with its weight
    "dcgan": (lambda: DCGANDiscriminator(resolution=32, width=4), WHOLE),
    "projected": (lambda: ProjectedDiscriminator(trunk(), resolution=32, channels=4, width=4), WHOLE),
    "vision_aided": (vision_aided, [(slice(0, 1), 1.0), (slice(1, 2), 0.5), (slice(2, 5), 0.5)]),
    "vgg": (vgg, WHOLE),
    "single_head": (single_head, WHOLE),
}


def sgd(parameters):
    # Adam would divide rounding errors of vanishing gradients by themselves.
    return torch.optim.SGD(parameters, lr=2e-3, momentum=0.5)


def batch(number=0):
    source = torch.Generator().manual_seed(number)
    pixels = torch.randint(0, 256, (BATCH, 3, 32, 32), dtype=torch.uint8, generator=source)
    indices = torch.arange(number * BATCH, (number + 1) * BATCH).numpy()
    return Batch(pixels, torch.zeros(BATCH, dtype=torch.long), indices)


def game(discriminator, *, generator=None, noise=(), objective=None, augment=None, cache_mib=64, strategy=None, **more):
    """A step whose n-th batch of fakes is made from the n-th noise, and the generator that it trains."""
    generator = generator or DCGAN(resolution=32, z_dim=8, width=8)
    augment, strategy = augment or Augmentation(colour=0, translation=0, cutout=0), strategy or Strategy()
    given = iter(noise)

    def draw_fakes(batch, labels, generate):
        z = next(given, None)
        z = torch.randn(BATCH, 8) if z is None else z
        return Fakes(z, generate(z, labels))

    d_parameters = [*discriminator.trainable_parameters(), *strategy.parameters()]
    step = AdversarialStep(
        generator,
        discriminator,
        objective or bce(),
        augment,
        strategy,
        [sgd(d_parameters), sgd(generator.parameters())],
        real_features=RealFeatures(range(STEPS * BATCH), 32, discriminator, augment, cache_mib=cache_mib),
        draw_fakes=draw_fakes,
        updates=FiniteUpdates(torch.device("cpu")),
        **more,
    )
    return step, generator


def play(step, batches, images_seen=0):
    outputs = []
    for each in batches:
        outputs.append(step(each, images_seen, backward=lambda loss, inputs=None: loss.backward(inputs=inputs)))
        images_seen += BATCH
    return outputs


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


@pytest.mark.parametrize("cached", [False, True])
@pytest.mark.parametrize(
    ("name", "frozen"), [*((name, None) for name in DISCRIMINATORS), ("single_head", 0), ("single_head", 2), ("vgg", 0)]
)
def test_the_step_trains_to_the_weights_of_the_plain_loop(name, frozen, cached, monkeypatch):
    """Spectral norm iterates, and batch norm averages, at each pass of a head: three a step, in one order, in both.

    In float64, since rounding to float32 can turn on a ReLU in one of them alone.
    """
    monkeypatch.setattr(real_features, "to_float", lambda *images: to_float(*images).double())
    build, parts = DISCRIMINATORS[name]
    start = DCGAN(resolution=32, z_dim=8, width=8).double(), build().double()
    start[1].freeze(start[1].blocks if frozen is None else frozen)
    plain, fast = copy.deepcopy(start), copy.deepcopy(start)
    batches = [batch(number) for number in (*range(STEPS - 1), 0)]  # the first again, so that the cache answers
    noise = [torch.randn(BATCH, 8, dtype=torch.float64) for _ in range(STEPS)]
    plain_loop(*plain, [to_float(each.pixels, 32).double() for each in batches], noise, parts)
    play(game(fast[1], generator=fast[0], noise=noise, cache_mib=64 * cached)[0], batches)

    for before, plainly, fastly in zip(start, plain, fast, strict=True):
        moved = 0.0
        expected, found = dict(plainly.named_parameters()), dict(fastly.named_parameters())
        for weight, parameter in before.named_parameters():
            torch.testing.assert_close(
                found[weight],
                expected[weight],
                rtol=1e-5,
                atol=1e-8,
                msg=lambda text, weight=weight: f"{weight}: {text}",
            )
            moved += (expected[weight] - parameter).abs().sum().item()
        assert moved > 1e-2
        for (buffer, a), b in zip(
            plainly.named_buffers(), fastly.buffers(), strict=True
        ):  # statistics, power iterations
            torch.testing.assert_close(b, a, rtol=1e-5, atol=1e-8, msg=lambda text, buffer=buffer: f"{buffer}: {text}")


@pytest.mark.parametrize("name", ["single_head", "vgg", "projected", "vision_aided"])
def test_a_frozen_trunk_runs_twice_a_step_and_once_where_the_reals_features_are_known(name):
    discriminator = DISCRIMINATORS[name][0]()
    discriminator.freeze(discriminator.blocks)
    passes = []
    for backbone in discriminator.backbones:
        backbone.blocks[0].register_forward_hook(lambda module, *_: passes.append(module))
    step, _ = game(discriminator)
    for forward_passes in (2, 3):  # one more at each step is the backward pass
        play(step, [batch()])
        for backbone in discriminator.backbones:
            assert passes.count(backbone.blocks[0]) == forward_passes


@pytest.mark.parametrize("augmented", [False, True])
def test_reals_and_fakes_are_augmented_alike_and_only_plain_reals_are_remembered(augmented):
    discriminator = DISCRIMINATORS["single_head"][0]()
    discriminator.freeze(discriminator.blocks)
    augment, seen = Augmentation(colour=0, translation=0, cutout=0, flip=augmented), []
    discriminator.backbone.blocks[0].register_forward_pre_hook(lambda module, args: seen.append(args[0].requires_grad))
    step, _ = game(discriminator, augment=augment)
    play(step, [batch(), batch()])
    assert seen == ([False, True, False, True] if augmented else [False, True, True])


def test_the_discriminator_sees_what_augmentation_gives(monkeypatch):
    monkeypatch.setattr(Augmentation, "forward", lambda self, images: images * 0 + 0.5)
    discriminator, seen = DISCRIMINATORS["dcgan"][0](), []
    discriminator.layers.register_forward_pre_hook(lambda module, args: seen.append(args[0]))
    play(game(discriminator)[0], [batch()])
    assert len(seen) == 3
    assert all((images == 0.5).all() for images in seen)


def test_the_generator_is_updated_on_every_second_batch():
    step, generator = game(DISCRIMINATORS["dcgan"][0](), d_steps=2)
    start, graphs = copy.deepcopy(generator.state_dict()), []
    generator.register_forward_hook(lambda *_: graphs.append(torch.is_grad_enabled()))
    (first,) = play(step, [batch()])
    assert first.g is None
    assert all(torch.equal(p, start[name]) for name, p in generator.named_parameters())
    (second,) = play(step, [batch(1)], images_seen=BATCH)
    assert second.g is not None
    assert any(not torch.equal(p, start[name]) for name, p in generator.named_parameters())
    assert graphs == [False, True]  # where it is not updated, nothing is kept for its gradients


class Watching:
    """An objective that remembers a weight of the discriminator whenever the generator's loss is computed."""

    def __init__(self, discriminator):
        self.seen = []
        weight, inner = discriminator.layers[-1].bias, bce()

        def g_loss(real_logits, fake_logits):
            self.seen.append(weight.detach().clone())
            return inner.g_loss(real_logits, fake_logits)

        self.objective = inner._replace(g_loss=g_loss)


def test_the_generator_plays_against_the_extrapolated_discriminator():
    discriminator = DISCRIMINATORS["dcgan"][0]()
    before, watching = discriminator.layers[-1].bias.detach().clone(), Watching(discriminator)
    play(game(discriminator, objective=watching.objective, extrapolation=1.0)[0], [batch()])
    after = discriminator.layers[-1].bias.detach()
    assert (before != after).all()
    torch.testing.assert_close(watching.seen[0] - after, after - before)


def test_a_simultaneous_step_plays_where_the_last_update_would_lead_once_more():
    discriminator = DISCRIMINATORS["dcgan"][0]()
    start, watching = discriminator.layers[-1].bias.detach().clone(), Watching(discriminator)
    step, _ = game(discriminator, objective=watching.objective, extrapolation=1.0, simultaneous=True)
    play(step, [batch()])
    first = discriminator.layers[-1].bias.detach().clone()
    play(step, [batch(1)], images_seen=BATCH)
    at_first, moved_on = watching.seen
    assert torch.equal(at_first, start)
    assert (first != start).all()
    torch.testing.assert_close(moved_on - first, first - start)


def test_a_step_that_is_saved_and_loaded_goes_on_as_if_it_had_not_stopped():
    start = DCGAN(resolution=32, z_dim=8, width=8), DISCRIMINATORS["dcgan"][0]()
    straight, stopped = copy.deepcopy(start), copy.deepcopy(start)
    noise, batches = [torch.randn(BATCH, 8) for _ in range(4)], [batch(i % STEPS) for i in range(4)]
    settings = {"extrapolation": 1.0, "simultaneous": True}
    play(game(straight[1], generator=straight[0], noise=noise, **settings)[0], batches)
    first, _ = game(stopped[1], generator=stopped[0], noise=noise[:2], **settings)
    play(first, batches[:2])
    second, _ = game(stopped[1], generator=stopped[0], noise=noise[2:], **settings)
    second.load_state_dict(first.state_dict())
    for theirs, ours in zip(
        (first.d_optimizer, first.g_optimizer), (second.d_optimizer, second.g_optimizer), strict=True
    ):
        ours.load_state_dict(theirs.state_dict())
    play(second, batches[2:], images_seen=2 * BATCH)
    for a, b in zip(straight, stopped, strict=True):
        assert all(torch.equal(p, q) for p, q in zip(a.state_dict().values(), b.state_dict().values(), strict=True))


def test_previous_weights_keep_their_places_where_a_block_is_unfrozen_before_they_are_loaded():
    discriminator = DISCRIMINATORS["single_head"][0]()
    discriminator.freeze(discriminator.blocks)
    step, generator = game(discriminator, extrapolation=1.0, simultaneous=True)
    play(step, [batch()])
    discriminator.freeze(discriminator.blocks - 1)
    resumed, _ = game(discriminator, generator=generator, extrapolation=1.0, simultaneous=True)
    resumed.load_state_dict(step.state_dict())
    assert resumed.previous_weights.keys() == step.previous_weights.keys() == set(discriminator.head.parameters())
    assert all(torch.equal(w, step.previous_weights[p]) for p, w in resumed.previous_weights.items())


def test_a_penalty_is_part_of_the_discriminators_loss_when_it_is_due():
    objective = bce(penalty=GradientPenalty(r1=100.0, every=2))
    step, _ = game(DCGANDiscriminator(resolution=32, width=4, norm="none"), objective=objective)
    outputs = play(step, [batch(), batch(1), batch(2)])
    assert ["gradient_penalty" in each.terms for each in outputs] == [True, False, True]
    assert outputs[0].terms["gradient_penalty"] > 0


@pytest.mark.parametrize("kind", ["r1", "r2"])
def test_a_penalty_is_on_the_function_that_trains_also_with_joint_batch_normalisation(kind):
    """A batch of reals or of fakes alone is normalised otherwise, and its gradients were many times as large."""
    discriminator = DCGANDiscriminator(resolution=32, width=4, joint_batchnorm=True)
    trained, noise = copy.deepcopy(discriminator), torch.randn(BATCH, 8)
    step, generator = game(discriminator, noise=[noise], objective=bce(penalty=GradientPenalty(**{kind: 2.0})))
    real, fake = to_float(batch().pixels, 32).requires_grad_(), generator(noise).detach().requires_grad_()
    logits = trained.layers(torch.cat([real, fake])).flatten(1).chunk(2)[["r1", "r2"].index(kind)]
    (gradients,) = torch.autograd.grad(logits.sum(), real if kind == "r1" else fake)
    (outputs,) = play(step, [batch()])
    expected = gradients.flatten(1).norm(dim=1).square().mean()
    torch.testing.assert_close(outputs.terms["gradient_penalty"], expected, rtol=1e-4, atol=0)


def test_clipping_bounds_every_weight_of_the_discriminator():
    discriminator = DISCRIMINATORS["dcgan"][0]()
    play(game(discriminator, objective=wasserstein(clip=0.01))[0], [batch()])
    assert max(p.abs().max().item() for p in discriminator.parameters()) == pytest.approx(0.01)


def test_adaptive_augmentation_hears_of_the_reals_logits():
    augment = AdaptiveAugmentation(colour=0, translation=0, cutout=0, target=0.1, adapt_images=4 * BATCH)
    sure = bce()._replace(boundary=-1e3)  # every real is on its side
    play(game(DISCRIMINATORS["dcgan"][0](), augment=augment, objective=sure)[0], [batch()])
    assert augment.p > 0


def without_normalisation(generator):
    """The generator in float64, without what depends on the batch that an image is in."""
    for i, layer in enumerate(generator.layers):
        if isinstance(layer, nn.BatchNorm2d):
            generator.layers[i] = nn.Identity()
    return generator.double()


PARTS = {
    "in turns": {},
    "with d_steps": {"d_steps": 2},
    "extrapolated": {"extrapolation": 0.5},
    "at once": {"simultaneous": True, "extrapolation": 0.5},
}


@pytest.mark.parametrize(("name", "trunk_is_frozen"), [*((name, None) for name in PARTS), ("in turns", True)])
def test_a_batch_in_parts_gives_the_update_of_the_whole_batch(name, trunk_is_frozen, monkeypatch):
    """With penalties on images, pairs of reals and fakes, terms of a strategy, and a frozen trunk or none."""
    monkeypatch.setattr(real_features, "to_float", lambda pixels, resolution: to_float(pixels, resolution).double())
    monkeypatch.setattr(torch.Tensor, "float", torch.Tensor.double)  # logits, which are never coarser than float32
    discriminator = single_head() if trunk_is_frozen else DCGANDiscriminator(resolution=32, width=4, norm="none")
    discriminator.double().freeze(discriminator.blocks)
    generator = without_normalisation(DCGAN(resolution=32, z_dim=8, width=8))
    noise, results = torch.randn(4 * BATCH, 8).double(), []
    for accumulate in (1, 2):
        step, g = game(
            copy.deepcopy(discriminator),
            generator=copy.deepcopy(generator),
            noise=noise.split(BATCH // accumulate),
            objective=relativistic(penalty=GradientPenalty(r1=0.5, r2=0.5, every=4))._replace(boundary=0.0),
            augment=AdaptiveAugmentation(colour=0, translation=0, cutout=0, adapt_images=4 * BATCH).double(),
            strategy=Terms().double(),
            accumulate=accumulate,
            adversarial_weight=0.7,
            **PARTS[name],
        )
        outputs = play(step, [batch(i % STEPS) for i in range(4)])
        scalars = [torch.stack([*o.terms.values(), o.d.loss, *o.gradient_norms.values()]) for o in outputs]
        logits = [torch.cat([o.d.real_logits, o.d.fake_logits]) for o in outputs]
        weights = [*g.parameters(), *step.discriminator.parameters(), *step.strategy.parameters()]
        results.append([*scalars, *logits, *weights, step.augmentation.p, step.augmentation.overfitting])
    for expected, found in zip(*results, strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-11)
    assert any(not torch.equal(p, q) for p, q in zip(g.parameters(), generator.parameters(), strict=True))


def test_generators_statistics_move_once_for_each_part():
    discriminator = DCGANDiscriminator(resolution=32, width=4, norm="none")
    step, generator = game(discriminator, noise=torch.randn(2, BATCH // 2, 8), accumulate=2)
    play(step, [batch()])
    assert generator.layers[1].num_batches_tracked == 2


@pytest.mark.parametrize(("settings", "passes"), [({}, 4), ({"d_steps": 2}, 2), ({"simultaneous": True}, 2)])
def test_parts_are_computed_once_more_where_their_graphs_would_wait_for_the_generators_turn(settings, passes):
    step, generator = game(DISCRIMINATORS["dcgan"][0](), noise=torch.randn(2, BATCH // 2, 8), accumulate=2, **settings)
    seen = []
    generator.layers[0].register_forward_hook(lambda module, *_: seen.append(module))
    play(step, [batch()])
    assert len(seen) == passes


class Terms(Strategy):
    """A loss for each network: how bright the fakes are, and how far a weight of its own is from that."""

    has_terms = True
    adversarial = 0.0

    def __init__(self):
        super().__init__()
        self.mean = nn.Parameter(torch.zeros(()))

    def discriminator_terms(self, discriminator, pairs):
        assert not pairs.fake.requires_grad
        return {"mean": (pairs.fake.mean() - self.mean).square()}

    def generator_terms(self, generator, discriminator, pairs):
        assert not self.mean.requires_grad
        return {"bright": (pairs.fake - 1).square().mean() + 0 * self.mean}


@pytest.mark.parametrize("simultaneous", [False, True])
def test_terms_of_a_strategy_train_the_generator_and_its_own_weights(simultaneous):
    strategy = Terms()
    step, _ = game(DISCRIMINATORS["dcgan"][0](), strategy=strategy, adversarial_weight=0.0, simultaneous=simultaneous)
    step.g_optimizer.param_groups[0]["lr"] = 0.1
    bright = [each.terms["bright"].item() for each in play(step, [batch(i % STEPS) for i in range(8)])]
    assert bright[-1] < 0.9 * bright[0]
    assert strategy.mean != 0


def test_what_is_not_finite_is_not_learnt_from():
    discriminator = DISCRIMINATORS["dcgan"][0]()
    step, generator = game(discriminator, noise=[torch.full((BATCH, 8), float("nan"))], objective=relativistic())
    before = [p.detach().clone() for p in (*generator.parameters(), *discriminator.parameters())]
    with pytest.raises(FloatingPointError, match="the discriminator's loss or gradient is not finite"):
        play(step, [batch()])
    after = [*generator.parameters(), *discriminator.parameters()]
    assert all(torch.equal(p, q) for p, q in zip(before, after, strict=True))


class Operations(TorchDispatchMode):
    """Remembers the names of the operations in it."""

    def __init__(self):
        super().__init__()
        self.names = set()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.names.add(func.name())
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("kind", ["in turns", "at once"])
def test_nothing_in_a_step_makes_the_program_wait_for_a_gpu(kind, monkeypatch):
    monkeypatch.setattr(FiniteUpdates, "raise_if_not_finite", lambda *_: None)  # which a GPU's updates go without
    step, _ = game(
        vgg(),
        generator=DCGAN(resolution=32, z_dim=8, width=8, low_pass=True),
        augment=AdaptiveAugmentation(flip=True),
        objective=bce(penalty=GradientPenalty(r1=1.0, r2=1.0, interpolated=1.0)),
        **PARTS[kind],
    )
    play(step, [batch()])
    with Operations() as operations:
        play(step, [batch(1)], images_seen=BATCH)
    assert "aten::convolution" in operations.names
    read = {"aten::_local_scalar_dense", "aten::nonzero", "aten::equal"}
    built_of_python_numbers = {"aten::lift_fresh"}
    assert not operations.names & (read | built_of_python_numbers)
