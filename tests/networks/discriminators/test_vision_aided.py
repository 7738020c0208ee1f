import math

import pytest
import torch
from torch import nn
from trunks import trunk

from transfergen.losses.adversarial import bce, bce_d, bce_g
from transfergen.networks.backbones.base import Backbone
from transfergen.networks.discriminators import vision_aided
from transfergen.networks.discriminators.dcgan import DCGANDiscriminator
from transfergen.networks.discriminators.resnet import ResNetDiscriminator
from transfergen.networks.discriminators.vgg import VGGDiscriminator
from transfergen.networks.discriminators.vision_aided import VisionAidedDiscriminator, probe
from transfergen.training.turn_losses import discriminator_turn, generator_turn


class Differences(nn.Module):
    """Features that are differences of pixels side by side: blind to brightness."""

    def forward(self, images):
        return images[..., ::4, 1::4] - images[..., ::4, ::4]


class Hazy(nn.Module):
    """Brightness under noise."""

    def forward(self, images):
        return nn.functional.avg_pool2d(images, 32) + 0.1 * torch.randn(len(images), 3, 1, 1)


def seeing():
    return Backbone([nn.AvgPool2d(4)], taps=(0,), channels=(3,), strides=(4,))


def blind():
    return Backbone([Differences()], taps=(0,), channels=(3,), strides=(4,))


def discriminator(backbones=None, **settings):
    return VisionAidedDiscriminator(
        DCGANDiscriminator(resolution=32, width=4),
        backbones or {"blind": blind(), "seeing": seeing()},
        **{"resolution": 32, "channels": 4, "width": 4} | settings,
    )


def pictures(count, brightness):
    return (torch.randn(count, 3, 32, 32) / 10 + brightness + torch.randn(count, 1, 1, 1) / 10).clamp(-1, 1)


@pytest.fixture
def real():
    return pictures(48, 0.3)


@pytest.fixture
def fake():
    return pictures(48, -0.3)


@pytest.mark.parametrize("order", [("blind", "seeing"), ("seeing", "blind")])
def test_the_network_that_tells_reals_from_fakes_best_joins_first(order, real, fake):
    networks = {"blind": blind(), "seeing": seeing()}
    d = discriminator({name: networks[name] for name in order})
    d.grow(real, fake)
    assert d.joined == ["seeing"]
    d.grow(real, fake)
    assert d.joined == ["seeing", "blind"]


@pytest.mark.parametrize("names", [("near", "far"), ("far", "near")])
def test_where_every_probe_is_right_the_surer_one_joins_and_not_the_first_of_the_config(names):
    """Both see brightness; one of them under noise that is too little to mislead it."""
    networks = {"near": seeing(), "far": Backbone([Hazy()], taps=(0,), channels=(3,), strides=(4,))}
    real, fake = pictures(48, 0.8), pictures(48, -0.8)
    assert {probe(network, real, fake).accuracy for network in networks.values()} == {1.0}
    d = discriminator({name: networks[name] for name in names})
    d.grow(real, fake)
    assert d.joined == ["near"]


def test_no_network_is_chosen_by_an_untrained_generator():
    assert discriminator().grows_at == 500_000


def test_all_ranks_follow_the_first(real, fake, monkeypatch):
    monkeypatch.setattr(vision_aided, "all_gather_objects", lambda choice: ["blind", choice])
    d = discriminator()
    d.grow(real, fake)
    assert d.joined == ["blind"]


@pytest.mark.parametrize(
    ("settings", "due"),
    [
        ({}, [500_000, 600_000]),
        ({"start_images": 30, "every_images": 20}, [30, 50]),
        ({"count": 1, "start_images": 30}, [30]),
    ],
)
def test_one_joins_after_a_while_and_one_more_after_each_interval(settings, due, real, fake):
    d, found = discriminator(**settings), []
    while d.grows_at < math.inf:
        found.append(d.grows_at)
        d.grow(real, fake)
    assert found == due
    assert len(d.joined) == len(due)


def test_what_has_not_joined_is_neither_run_nor_scored(real):
    d = discriminator()
    run = []
    for name, judge in d.judges.items():
        judge.backbone.register_forward_hook(lambda *_, name=name: run.append(name))
    (only,) = d.features(real)
    assert only is real
    assert d(real).shape == (48, 1)
    assert d.logit_groups() == [(slice(0, 1), 1.0)]
    d.joined = ["seeing"]
    assert d(real).shape == (48, 2)
    assert run == ["seeing"]
    d(real).sum().backward()
    assert {p for p in d.parameters() if p.grad is None} == {
        *d.judges["blind"].parameters(),
        *d.judges["seeing"].mix_channels.parameters(),
    }
    assert set(d.judges["blind"].heads.parameters()) < set(d.trainable_parameters())  # the optimizer knows them already


def test_logits_and_losses_are_each_networks_own_and_weighted(real, fake):
    d = discriminator({"near": trunk((4, 6)), "far": trunk()}, weight=0.25).eval()
    d.joined = ["far", "near"]
    judged = {name: (judge(real), judge(fake)) for name, judge in d.judges.items()}
    own = d.ordinary(real), d.ordinary(fake)
    torch.testing.assert_close(d(real), torch.cat([own[0], judged["far"][0], judged["near"][0]], dim=1))
    assert d.logit_groups() == [(slice(0, 1), 1.0), (slice(1, 4), 0.25), (slice(4, 6), 0.25)]
    for turn, loss in (
        (discriminator_turn(d, bce(), d.features(real), d.features(fake)), bce_d),
        (generator_turn(d, bce(), [], d.features(fake)), lambda _, fake_logits: bce_g(None, fake_logits)),
    ):
        expected = loss(*own) + 0.25 * loss(*judged["near"]) + 0.25 * loss(*judged["far"])
        torch.testing.assert_close(turn.loss, expected)


def test_every_network_is_told_of_the_classes_that_the_ordinary_discriminator_knows(real):
    ordinary = ResNetDiscriminator(resolution=32, width=4, num_classes=2)
    d = VisionAidedDiscriminator(ordinary, {"near": trunk((4, 6))}, resolution=32, channels=4, width=4).eval()
    d.joined = ["near"]
    y = torch.arange(len(real)) % 2
    assert (d(real, y) != d(real, 1 - y)).all()


def test_what_has_joined_is_saved_with_the_weights(real, tmp_path):
    d, restored = discriminator().eval(), discriminator().eval()
    d.calibrate(real)
    d.joined = ["seeing"]
    state = d.state_dict()
    d.joined.append("blind")
    torch.save(state, tmp_path / "d.pt")
    restored.load_state_dict(torch.load(tmp_path / "d.pt", weights_only=True))
    assert restored.joined == ["seeing"]
    assert restored.grows_at == 600_000
    assert torch.equal(restored(real), d(real)[:, :2])


def test_calibration_standardises_every_networks_channels(real):
    d = discriminator()
    d.calibrate(real)
    for judge in d.judges.values():
        (mixed,) = judge.features(real)
        torch.testing.assert_close(mixed.mean((0, 2, 3)), torch.zeros(4), rtol=0, atol=1e-4)


def test_null_leaves_a_network_out(real, fake):
    d = discriminator({"blind": blind(), "seeing": None})
    d.grow(real, fake)
    assert d.joined == ["blind"]
    assert d.grows_at == math.inf


@pytest.mark.parametrize("count", [40, 200])  # one batch of features, and several
def test_a_probe_is_right_on_all_that_can_be_told_apart_linearly(count):
    assert probe(seeing(), pictures(count, 0.4), pictures(count, -0.4)).accuracy == 1


@pytest.mark.parametrize("backbone", [seeing(), trunk((8, 64)).eval()])
def test_a_probe_is_no_better_than_chance_on_images_of_one_kind(backbone):
    """The second has as many features as the probe is fitted to images, so that it is always right on those."""
    accuracy = probe(backbone, pictures(36, 0.0), pictures(36, 0.0)).accuracy
    assert 0.25 < accuracy < 0.75


def test_a_probe_looks_at_images_that_it_was_not_fitted_to():
    """Reals and fakes that differ in the fitted half alone, which is every other image."""
    real, fake = pictures(100, 0.0), pictures(100, 0.0)
    real[::2] += 0.5
    fake[::2] -= 0.5
    assert probe(seeing(), real, fake).accuracy < 0.75


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"backbones": {"seeing": None}}, r"^backbones: there is no network to choose from"),
        ({"count": 3}, r"^count=3: there are 2 networks, blind, seeing"),
        ({"count": 2, "backbones": {"blind": blind(), "seeing": None}}, r"^count=2: there is 1 network, blind"),
        ({"count": 0}, r"^count=0"),
        ({"resolution": 4}, r"^resolution=4: .* shallower cut"),
    ],
)
def test_settings_out_of_range_are_refused_by_name(settings, message):
    with pytest.raises(ValueError, match=message):
        discriminator(**settings)


def test_an_ordinary_discriminator_on_a_pretrained_network_is_refused():
    with pytest.raises(ValueError, match=r"^ordinary: this discriminator has a pretrained trunk"):
        VisionAidedDiscriminator(VGGDiscriminator(trunk(), resolution=32, hidden=4), {"seeing": seeing()})
