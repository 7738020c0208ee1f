"""The discriminator and the augmentation in a training."""

import csv
import json

import pytest
import torch
from lightning import LightningModule
from PIL import Image
from runs import ANY_MODEL, SMALL, SMALL_MODELS, train

from transfergen.losses.penalties import GradientPenalty
from transfergen.networks.discriminators.dcgan import DCGANDiscriminator
from transfergen.networks.discriminators.resnet import ResNetDiscriminator
from transfergen.networks.discriminators.vgg import VGGDiscriminator
from transfergen.networks.discriminators.vision_aided import VisionAidedDiscriminator
from transfergen.networks.generators.dcgan import DCGAN
from transfergen.networks.generators.resnet import ResNet, orthogonality
from transfergen.training.augmentation import AdaptiveAugmentation
from transfergen.training.base_module import GenerativeModule
from transfergen.training.ema import EMA
from transfergen.training.gan_module import GAN


def run(run_dir, *overrides):
    code, _, err = train(run_dir, *overrides, small=False)
    assert code == 0, err
    return torch.load(run_dir / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]


def curve(run_dir, name):
    with next((run_dir / "csv").rglob("metrics.csv")).open() as file:
        return [float(row[name]) for row in csv.DictReader(file) if row.get(name)]


def test_second_derivatives_of_a_penalty_are_in_float32_though_the_training_is_in_bfloat16(monkeypatch):
    monkeypatch.setattr(LightningModule, "manual_backward", lambda self, loss: loss.backward())
    module = GenerativeModule(DCGAN(resolution=32, width=4), ema_halflife_images=0, ema_rampup=0, seed=0)
    d = DCGANDiscriminator(resolution=32, width=4, norm="none")
    images, gradients = torch.rand(4, 3, 32, 32), []
    for autocast, backward in ((False, torch.Tensor.backward), (True, module.manual_backward)):
        d.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            backward(100 * GradientPenalty(r1=1.0)(d, images, images))
        gradients.append(torch.cat([p.grad.flatten() for p in d.parameters() if p.grad is not None]))
    torch.testing.assert_close(gradients[1], gradients[0], rtol=1e-5, atol=1e-7)


def test_a_generator_that_keeps_less_and_a_batch_in_parts_train(tmp_path):
    small = [*ANY_MODEL, *SMALL_MODELS["dcgan"], "max_images=16"]
    kept, lean = run(tmp_path / "kept", *small), run(tmp_path / "lean", *small, "generator_checkpointing=true")
    assert all(torch.equal(tensor, kept[name]) for name, tensor in lean.items())
    parts = run(tmp_path / "parts", *small, "generator_checkpointing=true", "optimizer.accumulate=4")
    name = "generator.layers.1.num_batches_tracked"
    assert (kept[name], parts[name]) == (2, 8)


def recorded(monkeypatch, owner, name):
    """Calls of a method from now on: their arguments."""
    calls, method = [], getattr(owner, name)

    def record(self, *args):
        calls.append(args)
        return method(self, *args)

    monkeypatch.setattr(owner, name, record)
    return calls


def test_adaptive_augmentation_moves_with_the_reals_logits_and_is_logged(tmp_path, monkeypatch):
    signs, update = iter([1.0] * 8 + [-1.0] * 8), AdaptiveAugmentation.update
    monkeypatch.setattr(
        AdaptiveAugmentation, "update", lambda self, logits, images: update(self, logits * 0 + next(signs), images)
    )
    state = run(tmp_path, *SMALL, "objective=bce", "augment=adaptive", "augment.adapt_images=160", "max_images=88")
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


def test_the_trunks_channels_are_measured_on_reals_once_at_the_start_of_a_run(tmp_path, monkeypatch):
    shown, calibrate = [], VGGDiscriminator.calibrate

    def record(self, images):
        shown.append(images)
        calibrate(self, images)

    monkeypatch.setattr(VGGDiscriminator, "calibrate", record)
    state = run(tmp_path, *SMALL, "max_images=8")
    (images,) = shown
    assert images.shape == (64, 3, 32, 32)  # all that there are
    assert images.std() > 0.1
    assert (state["discriminator.feature_std"] != 1).all()
    resumed = run(tmp_path, f"resume={tmp_path}", "max_images=16")
    assert len(shown) == 1
    assert torch.equal(resumed["discriminator.feature_std"], state["discriminator.feature_std"])


def test_a_term_that_is_not_computed_at_every_step_is_logged_as_it_was_last(tmp_path):
    penalty = ["objective.penalty.r1=1", "objective.penalty.every=2"]
    run(tmp_path, *ANY_MODEL, *SMALL_MODELS["dcgan"], *penalty, "max_images=32")
    first, again, second, once_more = curve(tmp_path, "loss/gradient_penalty")
    assert (first, second) == (again, once_more)
    assert first != second


def test_the_average_counts_all_reals_since_the_generators_last_update(tmp_path, monkeypatch):
    seen, update = [], EMA.update

    def record(self, network, **images):
        seen.append(images)
        update(self, network, **images)

    monkeypatch.setattr(EMA, "update", record)
    run(tmp_path, *ANY_MODEL, *SMALL_MODELS["dcgan"], "optimizer.d_steps=3", "max_images=48")
    assert seen == [{"images": 24, "images_seen": 24}, {"images": 24, "images_seen": 48}]


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


def test_the_pretrained_trunk_has_a_rate_of_its_own(tmp_path, monkeypatch):
    groups = []
    monkeypatch.setattr(GAN, "on_train_end", lambda self: groups.extend(self.trainer.optimizers[0].param_groups))
    cut = "backbone.cut=relu3_2"
    settings = [*SMALL, cut, "optimizer=adam", "transfer=fine_tuning", "transfer.trunk_lr_scale=0.1", "max_images=8"]
    run(tmp_path, *settings)
    assert [group["lr"] for group in groups] == pytest.approx([2e-4, 2e-5])
    assert len(groups[1]["params"]) == 8  # four convolutions
    groups.clear()
    code, _, err = train(
        tmp_path,
        f"resume={tmp_path}",
        cut,
        "transfer.trunk_lr_scale=0.5",
        "optimizer.discriminator.lr=1e-4",
        "max_images=16",
    )
    assert code == 0, err
    assert [group["lr"] for group in groups] == pytest.approx([1e-4, 5e-5])


def test_a_pretrained_generator_has_a_rate_of_its_own_and_its_classes_keep_theirs(tmp_path, monkeypatch):
    groups = []
    monkeypatch.setattr(GAN, "on_train_end", lambda self: groups.extend(self.trainer.optimizers[1].param_groups))
    biggan = [*ANY_MODEL, *SMALL_MODELS["biggan"], "optimizer.d_steps=1", "optimizer.generator.lr=1e-4"]
    run(tmp_path, *biggan, "transfer.generator_lr_scale=0.1", "max_images=8")
    classes, others = groups
    assert [group["lr"] for group in groups] == pytest.approx([1e-4, 1e-5])
    assert [tuple(p.shape) for p in classes["params"]] == [(10, 4)]
    assert len(others["params"]) > 20
    for scale in ("1", "0.5"):  # 1: all are in one group
        groups.clear()
        code, _, err = train(
            tmp_path,
            f"resume={tmp_path}",
            f"transfer.generator_lr_scale={scale}",
            f"max_images={16 if scale == '1' else 24}",
            small=False,
        )
        assert code == 0, err
        assert [group["lr"] for group in groups] == pytest.approx([1e-4] if scale == "1" else [1e-4, 5e-5])


def test_a_resumed_run_that_would_train_other_weights_is_told_by_which_setting(tmp_path):
    small = [*ANY_MODEL, *SMALL_MODELS["dcgan"], "optimizer=muon", "max_images=8"]
    run(tmp_path, *small)
    for setting, line in (
        ("transfer.freeze_d=1", "hold other weights than this run's; resume with the run's own transfer.freeze_d\n"),
        ("optimizer.generator.fallback_output=false", "fallback_output=false: the checkpoint's optimizer has the"),
    ):
        code, _, err = train(tmp_path, f"resume={tmp_path}", setting, "max_images=16", small=False)
        assert code == 2
        assert line in err


@pytest.fixture
def rates(monkeypatch):
    """The learning rates of discriminator and generator at each step from now on. They start at 2 and 1."""
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


def test_rates_stay_as_they_are_in_a_run_that_ends_before_they_would_fall(tmp_path, rates):
    code, _, err = train(tmp_path, *FROM_2_AND_1, "lr_decay.start_images=16", "max_images=16", small=False)
    assert code == 0, err
    assert rates == [[2, 1], [2, 1]]


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
    assert "transfer.freeze_d=4: this discriminator has 3 layers" in err


def test_a_trunks_setting_without_a_trunk_is_told_of(tmp_path):
    code, _, err = train(
        tmp_path, *ANY_MODEL, *SMALL_MODELS["dcgan"], "transfer=fine_tuning", "max_images=8", small=False
    )
    assert code == 0, err
    assert "transfer.trunk=trainable changes nothing" in (tmp_path / "train.log").read_text()
