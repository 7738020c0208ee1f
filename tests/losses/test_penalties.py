import pytest
import torch
from torch import nn

from transfergen.losses.adversarial import wasserstein_d
from transfergen.losses.penalties import GradientPenalty, interpolated, zero_centred
from transfergen.networks.backbones.timm import TimmBackbone
from transfergen.networks.backbones.vgg import VGG
from transfergen.networks.discriminators.dcgan import DCGANDiscriminator
from transfergen.networks.discriminators.projected import ProjectedDiscriminator
from transfergen.networks.discriminators.resnet import ResNetDiscriminator
from transfergen.networks.discriminators.vgg import VGGDiscriminator
from transfergen.training.turn_losses import penalty_scores


def images(count=4, size=32, dtype=torch.float32):
    return torch.rand(count, 3, size, size, dtype=dtype) * 2 - 1


def linear(weights):
    return lambda x: (x * weights).flatten(1).sum(dim=1)


def test_penalties_of_a_linear_score_are_known():
    weights = torch.randn(3, 8, 8)
    norm = weights.norm()
    real, fake = images(size=8), images(size=8)
    torch.testing.assert_close(interpolated(linear(weights), real, fake), (norm - 1).square())
    torch.testing.assert_close(zero_centred(linear(weights), real), norm.square() / 2)
    both = GradientPenalty(interpolated=10, r1=2, r2=3, every=4)(linear(weights), real, fake)
    torch.testing.assert_close(both, 4 * (10 * (norm - 1).square() + (2 + 3) * norm.square() / 2))


def test_each_penalty_is_computed_at_its_own_points():
    real, fake = images(16), images(16)

    def square(x):  # its gradient at x is x
        return x.square().flatten(1).sum(dim=1) / 2

    def mean_square(x):
        return x.flatten(1).norm(dim=1).square().mean() / 2

    torch.testing.assert_close(GradientPenalty(r1=1)(square, real, fake), mean_square(real))
    torch.testing.assert_close(GradientPenalty(r2=1)(square, real, fake), mean_square(fake))
    # Between an image and its negative, the norm is that of the image times a number from 0 to 1.
    between = interpolated(square, real, -real, target=0.0) / (2 * mean_square(real))
    assert 0.1 < between < 0.6  # E (2a - 1)^2 = 1/3


def test_penalty_is_differentiable_by_the_weights():
    net = nn.Sequential(nn.Flatten(), nn.Linear(12, 5), nn.Tanh(), nn.Linear(5, 1)).double()
    real, fake = images(3, size=2, dtype=torch.double), images(3, size=2, dtype=torch.double)
    names, weights = zip(*net.named_parameters(), strict=True)

    def penalty(*weights):
        torch.manual_seed(0)

        def score(x):
            return torch.func.functional_call(net, dict(zip(names, weights, strict=True)), x).flatten()

        return interpolated(score, real, fake) + zero_centred(score, real)

    assert torch.autograd.gradcheck(penalty, weights)
    assert torch.autograd.gradgradcheck(penalty, weights)


def small_vgg(**settings):
    return VGG(arch="vgg11", cut="relu3_2", weights="random", **settings)


DISCRIMINATORS = {
    "frozen_vgg": lambda: VGGDiscriminator(small_vgg(), resolution=32, hidden=16),
    "frozen_batch_norm": lambda: VGGDiscriminator(
        TimmBackbone(name="tf_efficientnet_lite0", taps=[1, 2], weights="random"), resolution=32, hidden=16
    ),
    "projected": lambda: ProjectedDiscriminator(small_vgg(taps=["relu1_1"]), resolution=32, channels=4, width=4),
    "spectral_norm_attention": lambda: ResNetDiscriminator(resolution=32, width=4, attention=16),
    "layer_norm": lambda: DCGANDiscriminator(resolution=32, width=8, norm="layer"),
    "batch_norm": lambda: DCGANDiscriminator(resolution=32, width=8),
}


@pytest.mark.parametrize("kind", DISCRIMINATORS)
@pytest.mark.parametrize("settings", [{"interpolated": 10}, {"r1": 1, "r2": 1}])
def test_penalty_reaches_the_trainable_weights_of_each_discriminator_also_under_autocast(kind, settings):
    d = DISCRIMINATORS[kind]()
    d.freeze(d.blocks)
    real, fake = images(), images()
    values = {}
    state = {name: value.clone() for name, value in d.state_dict().items() if isinstance(value, torch.Tensor)}
    for autocast in (False, True):
        d.load_state_dict(state, strict=False)  # the power iteration and running statistics have gone on
        torch.manual_seed(1)
        score, fake_score = penalty_scores(d, d.features(real), d.features(fake))
        with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            penalty = GradientPenalty(**settings)(score, real, fake, fake_score=fake_score)
        values[autocast] = penalty.item()
    assert values[True] == pytest.approx(values[False], rel=1e-4)
    penalty.backward()
    norms = [p.grad.norm() for p in d.trainable_parameters() if p.grad is not None]
    assert all(norm.isfinite() for norm in norms)
    assert sum(norms) > 0
    assert all(p.grad is None for p in d.parameters() if not p.requires_grad)


def test_critic_of_two_gaussians_finds_their_distance():
    torch.manual_seed(0)
    shift = torch.tensor([3.0, 4.0])  # equal covariances: the Wasserstein-1 distance is the distance of the means, 5
    critic = nn.Sequential(nn.Linear(2, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 1))
    optimizer = torch.optim.Adam(critic.parameters(), lr=2e-3, betas=(0.0, 0.9))
    # Along the shift d, the slope s that maximises s d - w (s - 1)^2 is 1 + d / 2w: 2.5 % too steep with w = 100.
    penalty = GradientPenalty(interpolated=100)

    def sample(count):
        return torch.randn(count, 2), torch.randn(count, 2) + shift

    for _ in range(400):
        fake, real = sample(256)
        loss = wasserstein_d(critic(real), critic(fake))
        pixels = [x.view(-1, 2, 1, 1) for x in (real, fake)]
        loss = loss + penalty(lambda x: critic(x.flatten(1)).flatten(), *pixels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    fake, real = sample(4096)
    assert -wasserstein_d(critic(real), critic(fake)).item() == pytest.approx(5, rel=0.06)


def test_penalty_is_due_at_every_nth_update_if_it_has_a_weight():
    assert [GradientPenalty(r1=1, every=3).due(i) for i in range(5)] == [True, False, False, True, False]
    assert not GradientPenalty().due(0)
