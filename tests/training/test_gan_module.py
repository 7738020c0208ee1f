"""What a training does with its discriminator and its augmentation."""

import csv
import json

import pytest
import torch
from PIL import Image
from runs import ANY_MODEL, SMALL, SMALL_MODELS, train
from torch import nn

from transfergen.config import instantiate
from transfergen.networks.discriminators.resnet import ResNetDiscriminator
from transfergen.networks.discriminators.vgg import VGGDiscriminator
from transfergen.networks.discriminators.vision_aided import VisionAidedDiscriminator
from transfergen.networks.generators.resnet import ResNet, orthogonality
from transfergen.training import gan_module as gan
from transfergen.training.augmentation import AdaptiveAugmentation, Augmentation
from transfergen.training.gan_module import GAN
from transfergen.transfer.strategy import Strategy

CALIBRATIONS = 64 // 16  # all training images, some at a time


def run(run_dir, *overrides):
    code, _, err = train(run_dir, *overrides, small=False)
    assert code == 0, err
    return torch.load(run_dir / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]


def curve(run_dir, name):
    with next((run_dir / "csv").rglob("metrics.csv")).open() as file:
        return [float(row[name]) for row in csv.DictReader(file) if row.get(name)]


def recorded(monkeypatch, owner, name):
    """Calls of a method from now on: their arguments."""
    calls, method = [], getattr(owner, name)

    def record(self, *args):
        calls.append(args)
        return method(self, *args)

    monkeypatch.setattr(owner, name, record)
    return calls


def test_the_generator_plays_against_the_predicted_discriminator(tmp_path, monkeypatch):
    biases = []

    def recording(turn):
        def record(discriminator, *args):
            biases.append(discriminator.head[-1].bias.detach().clone())
            return turn(discriminator, *args)

        return record

    monkeypatch.setattr(gan, "discriminator_turn", recording(gan.discriminator_turn))
    monkeypatch.setattr(gan, "generator_turn", recording(gan.generator_turn))
    after = run(tmp_path, *SMALL, "max_images=8", "optimizer.extrapolation=1")["discriminator.head.3.bias"]
    before, extrapolated = biases
    assert (before != after).all()
    torch.testing.assert_close(extrapolated - after, after - before)


def test_simultaneous_turns_are_played_where_the_last_update_would_lead_once_more(tmp_path, monkeypatch):
    played = []
    turns = gan.both_turns

    def record(discriminator, *args):
        played.append(discriminator.head[-1].bias.detach().clone())
        return turns(discriminator, *args)

    monkeypatch.setattr(gan, "both_turns", record)
    options = (*SMALL, "optimizer.extrapolation=1", "optimizer.simultaneous=true")
    first = run(tmp_path / "one", *options, "max_images=8")["discriminator.head.3.bias"]
    second = run(tmp_path / "two", *options, "max_images=16")["discriminator.head.3.bias"]
    start, again, moved_on = played
    assert torch.equal(start, again)
    assert (start != first).all()
    assert (second != first).all()
    torch.testing.assert_close(moved_on - first, first - start)


@pytest.mark.parametrize("turns", ["optimizer.simultaneous=false", "optimizer.simultaneous=true"])
def test_compiled_networks_train_as_others_do(tmp_path, monkeypatch, turns):
    compiled = []

    def traced(self):  # and differentiated ahead, but not built: that takes a compiler minutes
        compiled.append(self)
        self.compile_(backend="aot_eager")

    monkeypatch.setattr(nn.Module, "compile_", nn.Module.compile, raising=False)
    monkeypatch.setattr(nn.Module, "compile", traced)
    options = (*ANY_MODEL, *SMALL_MODELS["projected"], "discriminator.joint_batchnorm=true", turns, "max_images=16")
    plain = run(tmp_path / "plain", *options)
    assert not compiled
    with torch._functorch.config.patch(donated_buffer=True):  # the default, which the run may change
        state = run(tmp_path / "compiled", *options, "compile=true")
    assert compiled
    for name, value in plain.items():
        torch.testing.assert_close(state[name], value, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("augment", ["none", "flip"])
def test_reals_and_fakes_are_augmented_alike_and_only_plain_reals_are_remembered(tmp_path, monkeypatch, augment):
    augmented = recorded(monkeypatch, Augmentation, "forward")
    judged = recorded(monkeypatch, VGGDiscriminator, "features")
    run(tmp_path, *SMALL, f"augment={augment}", "trainer.max_epochs=2")
    for calls in (augmented, judged[CALIBRATIONS:]):  # these, on plain images, are the first
        fakes = [images for (images,) in calls if images.requires_grad]
        reals = [images for (images,) in calls if not images.requires_grad]
        assert len(fakes) == 16
        assert len(reals) == {"none": 8, "flip": 16}[augment]
        assert {images.shape for images in fakes + reals} == {(8, 3, 32, 32)}


def test_what_the_discriminator_sees_is_what_augmentation_gives(tmp_path, monkeypatch):
    monkeypatch.setattr(Augmentation, "forward", lambda self, images: images * 0)
    seen = recorded(monkeypatch, VGGDiscriminator, "features")
    run(tmp_path, *SMALL, "max_images=8")
    calibrations, turns = seen[:CALIBRATIONS], seen[CALIBRATIONS:]
    assert all(images.any() for (images,) in calibrations)
    assert len(turns) == 2
    assert not any(images.any() for (images,) in turns)


def test_adaptive_augmentation_moves_with_the_reals_logits_and_is_logged(tmp_path, monkeypatch):
    signs, update = iter([1.0] * 8 + [-1.0] * 8), AdaptiveAugmentation.update
    monkeypatch.setattr(
        AdaptiveAugmentation, "update", lambda self, logits, images: update(self, logits * 0 + next(signs), images)
    )
    state = run(tmp_path, *SMALL, "augment=adaptive", "augment.adapt_images=160", "max_images=88")
    p = curve(tmp_path, "augment/p")
    # The average of the signs, 1 - 0.75 ** n, passes the target of 0.6 at the fourth batch; p then rises by 8 / 160
    # each batch until the signs have turned.
    rising, falling = [0.05, 0.1, 0.15, 0.2, 0.25], [0.2, 0.15, 0.1]
    assert p == pytest.approx([0, 0, 0, *rising, *falling], abs=1e-6)
    assert state["augment.p"].item() == pytest.approx(p[-1])
    assert json.loads((tmp_path / "metrics.json").read_text())["training"]["augment/p"] == pytest.approx(p[-1])


def test_networks_join_when_they_are_due_and_their_loss_counts(tmp_path, monkeypatch):
    grown = recorded(monkeypatch, VisionAidedDiscriminator, "grow")
    small = [*ANY_MODEL, *SMALL_MODELS["vision_aided"]]
    growing = ["discriminator.start_images=16", "discriminator.every_images=24", "max_images=48"]
    state = run(tmp_path / "run", *small, *growing)
    assert sorted(state["discriminator._extra_state"]) == ["efficientnet_lite0", "vgg19"]
    assert [(len(real), len(fake)) for real, fake in grown] == [(64, 64), (64, 64)]
    losses = curve(tmp_path / "run", "loss/discriminator")
    assert losses[2] > losses[1] + 0.5  # at the third batch, 16 images seen: one loss more of about 2 log 2
    assert losses[5] > losses[4] + 0.5  # and at the sixth
    run(tmp_path / "light", *small, *growing, "discriminator.weight=0.001")
    light = curve(tmp_path / "light", "loss/discriminator")
    assert light[:2] == losses[:2]
    assert light[2] < light[1] + 0.5


def test_both_networks_are_told_the_classes_of_the_reals(tmp_path, monkeypatch):
    given = {}
    for owner in (ResNet, ResNetDiscriminator):
        calls = given[owner] = []
        name = "forward" if owner is ResNet else "score"
        method = getattr(owner, name)

        def record(self, first, y=None, *, calls=calls, method=method):
            if self.training:
                calls.append(y)
            return method(self, first, y)

        monkeypatch.setattr(owner, name, record)
    batches = recorded(monkeypatch, GAN, "training_step")
    run(tmp_path, *ANY_MODEL, *SMALL_MODELS["biggan"], "optimizer.d_steps=1", "max_images=16")
    labels = [batch.labels for batch, _ in batches]
    assert all(torch.equal(y, label) for y, label in zip(given[ResNet], labels, strict=True))
    scored = [label for label in labels for _ in range(3)]  # reals, fakes, and fakes again
    assert all(torch.equal(y, label) for y, label in zip(given[ResNetDiscriminator], scored, strict=True))
    saved = json.loads((tmp_path / "generator.json").read_text())["generator"]
    assert saved["num_classes"] == 10


def test_orthogonal_regularization_is_added_to_the_generators_loss(tmp_path):
    weights = {}
    for name, weight in {"without": 0.0, "with": 0.1}.items():
        small = [*ANY_MODEL, *SMALL_MODELS["biggan"], f"generator.orthogonal={weight}", "max_images=40"]
        state = run(tmp_path / name, *small)
        weights[name] = orthogonality(state["generator.linear.parametrizations.weight.original"])
    assert weights["with"] < weights["without"]


def test_conditional_model_without_classes_names_both_ways_out(tmp_path):
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    for i in range(20):
        Image.new("RGB", (32, 32), (12 * i, 0, 0)).save(pictures / f"{i}.png")
    folder = [*ANY_MODEL[4:], "trainer=cpu", "data=image_folder", f"data.path={pictures}"]
    code, _, err = train(tmp_path / "run", *folder, *SMALL_MODELS["sagan"], small=False)
    assert code == 2
    assert "the generator is conditional; set data.num_classes=0" in err
    assert err.count("\n") == 1
    run(tmp_path / "run", *folder, *SMALL_MODELS["sagan"], "data.num_classes=0", "max_images=8")


@pytest.mark.parametrize("alone", ["generator", "discriminator"])
def test_a_conditional_network_beside_one_that_is_not_is_refused(tmp_path, alone):
    code, _, err = train(tmp_path, *ANY_MODEL, *SMALL_MODELS["sagan"], f"{alone}.num_classes=0", small=False)
    assert code == 2
    assert "classes and the discriminator of" in err
    assert "set data.num_classes=0" in err


def test_a_vision_aided_discriminator_is_told_the_classes_if_its_ordinary_part_is(tmp_path):
    conditional = ["generator=sagan", "discriminator@discriminator.ordinary=sagan"]
    small = [*ANY_MODEL, *conditional, *SMALL_MODELS["vision_aided"], "max_images=8"]
    state = run(tmp_path / "run", *small)
    assert len(state["discriminator.ordinary.embedding.parametrizations.weight.original"]) == 10
    code, _, err = train(tmp_path / "alone", *small, "generator.num_classes=0", small=False)
    assert code == 2
    assert "classes and the discriminator of" in err


@pytest.mark.parametrize("model", SMALL_MODELS)
def test_each_model_trains(tmp_path, model):
    state = run(tmp_path, *ANY_MODEL, *SMALL_MODELS[model], "optimizer.d_steps=1", "max_images=16")
    assert all(value.isfinite().all() for value in state.values() if isinstance(value, torch.Tensor))
    assert len(curve(tmp_path, "loss/generator")) == 2


def test_the_pretrained_trunk_has_a_rate_of_its_own(tmp_path, monkeypatch):
    groups = []
    monkeypatch.setattr(GAN, "on_train_end", lambda self: groups.extend(self.trainer.optimizers[0].param_groups))
    settings = [*SMALL, "transfer=fine_tuning", "transfer.trunk_lr_scale=0.1", "max_images=8"]
    run(tmp_path, *settings)
    assert [group["lr"] for group in groups] == pytest.approx([2e-4, 2e-5])
    assert [len(group["params"]) for group in groups] == [8, 8]  # the two heads; four convolutions
    groups.clear()
    code, _, err = train(
        tmp_path,
        f"resume={tmp_path}",
        "transfer.trunk_lr_scale=0.5",
        "optimizer.discriminator.lr=1e-4",
        "max_images=16",
    )
    assert code == 0, err
    assert [group["lr"] for group in groups] == pytest.approx([1e-4, 5e-5])


@pytest.fixture
def rates(monkeypatch):
    """Of the discriminator and the generator at each step from now on, which start at 2 and 1."""
    rates = []
    step = GAN.training_step

    def training_step(self, batch, batch_idx):
        rates.append([group["lr"] for optimizer in self.trainer.optimizers for group in optimizer.param_groups])
        return step(self, batch, batch_idx)

    monkeypatch.setattr(GAN, "training_step", training_step)
    return rates


FROM_2_AND_1 = [*ANY_MODEL, *SMALL_MODELS["dcgan"], "optimizer.generator.lr=1", "optimizer.discriminator.lr=2"]


def test_rates_fall_to_nothing_and_go_on_falling_in_a_resumed_run(tmp_path, rates):
    code, _, err = train(tmp_path, *FROM_2_AND_1, "lr_decay.start_images=16", "max_images=32", small=False)
    assert code == 0, err
    code, _, err = train(tmp_path, f"resume={tmp_path}", "max_images=48", small=False)  # the end is further now
    assert code == 0, err
    assert rates == [[2 * left, left] for left in (1, 1, 1, 0.5, 0.5, 0.25)]


def test_rates_fall_to_a_part_of_themselves_and_stay_there(tmp_path, rates):
    fall = ["lr_decay.start_images=8", "lr_decay.end_images=24", "lr_decay.final_factor=0.5"]
    code, _, err = train(tmp_path, *FROM_2_AND_1, *fall, "max_images=40", small=False)
    assert code == 0, err
    assert rates == [[2 * left, left] for left in (1, 1, 0.75, 0.5, 0.5)]


def test_the_lowest_layers_of_an_ordinary_discriminator_can_stay_as_they_are(tmp_path):
    small = [*ANY_MODEL, *SMALL_MODELS["dcgan"], "max_images=16", "transfer.freeze_d=2"]
    state = run(tmp_path / "long", *small)
    start = run(tmp_path / "short", *small, "max_images=8")
    moved = {name for name in state if name.startswith("discriminator.") and not torch.equal(state[name], start[name])}
    assert {name for name in moved if "running" not in name and "num_batches" not in name} == {
        *(f"discriminator.layers.{i}.{part}" for i, part in ((5, "weight"), (6, "weight"), (6, "bias"))),
        *(f"discriminator.layers.8.{part}" for part in ("weight", "bias")),
    }
    code, _, err = train(tmp_path / "too-many", *small, "transfer.freeze_d=4", small=False)
    assert code == 2
    assert "transfer.freeze_d=4: this discriminator has 3 layer(s)" in err


def test_clipping_bounds_every_weight_of_the_discriminator(tmp_path):
    state = run(tmp_path, *ANY_MODEL, "model=wgan", "discriminator.width=8", "max_images=24")
    weights = [value for name, value in state.items() if name.startswith("discriminator.") and "running" not in name]
    largest = max(weight.abs().max().item() for weight in weights if weight.is_floating_point())
    assert largest == pytest.approx(0.01)


def test_a_penalty_is_part_of_the_loss_when_it_is_due(tmp_path):
    small = [*ANY_MODEL, *SMALL_MODELS["dcgan"], "discriminator.norm=none", "max_images=24"]
    run(tmp_path / "without", *small)
    run(tmp_path / "with", *small, "objective.penalty.r1=100", "objective.penalty.every=2")
    assert not curve(tmp_path / "without", "loss/gradient_penalty")
    assert len(curve(tmp_path / "with", "loss/gradient_penalty")) == 3  # the last one known, at each point
    norms = {name: curve(tmp_path / name, "gradient_norm/discriminator") for name in ("without", "with")}
    assert norms["with"][0] != norms["without"][0]


class Terms(Strategy):
    """One term for each network: what the generator makes, and what a weight of its own makes of that."""

    has_terms = True
    adversarial = 0.0

    def __init__(self) -> None:
        super().__init__()
        self.mean = torch.nn.Parameter(torch.zeros(()))
        self.teacher = [self.add_frozen(torch.nn.Linear(1, 1))]
        self.started = 0

    def start(self, generator, discriminator):
        self.started += 1

    def discriminator_terms(self, discriminator, pairs):
        assert not pairs.fake.requires_grad
        return {"mean": (pairs.fake.mean() - self.mean).square()}

    def generator_terms(self, generator, discriminator, pairs):
        assert not self.mean.requires_grad
        return {"bright": (pairs.fake - 1).square().mean() + 0 * self.mean}


def test_terms_of_a_strategy_train_the_generator_and_its_own_weights(tmp_path, monkeypatch):
    strategy = Terms()
    monkeypatch.setattr(
        "transfergen.training.fit.instantiate",
        lambda node, **more: strategy if str(node.get("_target_")).endswith(".Strategy") else instantiate(node, **more),
    )
    state = run(tmp_path, *ANY_MODEL, *SMALL_MODELS["dcgan"], "max_images=64", "optimizer.generator.lr=1e-2")
    bright = curve(tmp_path, "loss/bright")
    assert bright[-1] < 0.9 * bright[0]
    assert state["transfer.mean"] != 0
    assert not any("teacher" in name or "hidden" in name for name in state)
    assert strategy.started == 1


def test_a_trunks_setting_without_a_trunk_is_told_of(tmp_path):
    code, _, err = train(
        tmp_path, *ANY_MODEL, *SMALL_MODELS["dcgan"], "transfer=fine_tuning", "max_images=8", small=False
    )
    assert code == 0, err
    assert "transfer.trunk=trainable changes nothing" in (tmp_path / "train.log").read_text()
