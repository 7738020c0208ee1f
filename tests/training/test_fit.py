"""Whole runs: what they leave behind, how they go on, what stops them."""

import csv
import json
import operator
import os
import shutil
import signal
from itertools import count
from types import SimpleNamespace

import pytest
import torch
from PIL import Image
from runs import ANY_MODEL, SMALL, SMALL_MODELS, train
from safetensors.torch import load_file
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from vits import DINO, random_file

from transfergen.runs import artefacts
from transfergen.runs.generator_files import load_generator
from transfergen.training.callbacks import evaluation

TWO_EPOCHS = ["trainer.max_epochs=2"]
GROWING = ["discriminator.start_images=16", "discriminator.every_images=72"]  # one joins in each of two epochs
ADAPTIVE = ["augment=adaptive", "augment.target=0.01", "augment.adapt_images=200", "optimizer.discriminator.lr=2e-3"]


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A run of two epochs, 128 images."""
    run_dir = tmp_path_factory.mktemp("run")
    code, out, err = train(run_dir, *TWO_EPOCHS, "samples.every_images=64")
    assert code == 0, err
    return run_dir, out


def checkpoint(run_dir):
    return torch.load(run_dir / "checkpoints" / "last.ckpt", weights_only=True)


def test_run_directory_holds_all_that_is_needed_and_its_path_is_printed(finished):
    run_dir, out = finished
    assert str(run_dir / "grid.png") in out
    for name in ("config.yaml", "checkpoints/last.ckpt", "generator.safetensors", "generator.json", "grid.png"):
        assert (run_dir / name).stat().st_size > 0
    assert sorted(file.name for file in (run_dir / "samples").iterdir()) == [
        "000000064.png",
        "000000128.png",
        "reals.png",
    ]
    metrics = json.loads((run_dir / "metrics.json").read_text())
    assert metrics["images_seen"] == 128
    assert metrics["metrics"][0]["split"] == "test"
    assert (metrics["metrics"][0]["real"], metrics["metrics"][0]["generated"]) == (16, 256)
    assert not list(run_dir.rglob("*.part"))


def test_curves_and_pictures_are_over_images_seen(finished):
    run_dir, _ = finished
    events = EventAccumulator(str(run_dir / "tensorboard"), size_guidance={"images": 0, "scalars": 0})
    events.Reload()
    expected = {
        "loss/discriminator",
        "loss/generator",
        "logits/real",
        "logits/fake",
        "gradient_norm/discriminator",
        "gradient_norm/generator",
        "images_per_second",
        "learning_rate/discriminator",
        "learning_rate/generator",
        "threads",
        "metrics/sliced_wasserstein",
        "metrics/kernel_distance",
        "metrics/recall",
        "samples/diversity",
    }
    assert expected <= set(events.Tags()["scalars"])
    assert [event.step for event in events.Scalars("loss/generator")] == list(range(8, 129, 8))
    assert [event.step for event in events.Images("samples")] == [64, 128]
    assert [event.step for event in events.Images("reals")] == [0]
    assert any(tag.startswith("_hparams_") for tag in events.summary_metadata)
    assert "config/text_summary" in events.Tags()["tensors"]
    with next((run_dir / "csv").rglob("metrics.csv")).open() as file:
        steps = [int(row["step"]) for row in csv.DictReader(file) if row["loss/generator"]]
    assert steps == list(range(8, 129, 8))


def test_saved_generator_is_the_moving_average_of_the_checkpoint(finished):
    run_dir, _ = finished
    state = checkpoint(run_dir)["state_dict"]
    weight = "layers.0.weight"
    saved = load_file(run_dir / "generator.safetensors")[weight]
    assert torch.equal(saved, state[f"ema.network.{weight}"])
    assert not torch.equal(saved, state[f"generator.{weight}"])
    assert load_generator(run_dir)(torch.zeros(1, 100)).shape == (1, 3, 32, 32)


def test_without_a_moving_average_the_plain_generator_is_saved(tmp_path):
    assert train(tmp_path, "ema.halflife_images=0", "max_images=16")[0] == 0
    saved = load_file(tmp_path / "generator.safetensors")["layers.0.weight"]
    assert torch.equal(saved, checkpoint(tmp_path)["state_dict"]["generator.layers.0.weight"])
    assert json.loads((tmp_path / "generator.json").read_text())["ema"] is False


RESUMED = {
    "1:1": SMALL,
    "2:1": [*SMALL, "optimizer.d_steps=2"],
    "trainable": [*SMALL, "transfer=fine_tuning"],
    "projected": [*ANY_MODEL, *SMALL_MODELS["projected"], "optimizer.extrapolation=1"],
    "simultaneous": [*SMALL, "optimizer.simultaneous=true", "optimizer.extrapolation=1"],
    "adam": [*SMALL, "optimizer=adam", "objective=bce"],
    "vision-aided": [*ANY_MODEL, *SMALL_MODELS["vision_aided"], *GROWING, *ADAPTIVE],
}


@pytest.mark.parametrize("options", RESUMED.values(), ids=RESUMED)
def test_resumed_run_ends_bit_for_bit_where_the_uninterrupted_one_does(tmp_path, options):
    """Interrupted within an epoch, and again at its end."""
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    assert train(whole, *options, *TWO_EPOCHS, small=False)[0] == 0
    assert train(parts, *options, *TWO_EPOCHS, "max_images=40", small=False)[0] == 0
    half = checkpoint(parts)
    for images in (64, 128):
        code, _, err = train(None, f"resume={parts}", f"max_images={images}", small=False)
        assert code == 0, err

    a, b = checkpoint(whole), checkpoint(parts)
    if options is RESUMED["vision-aided"]:
        assert [len(state["state_dict"]["discriminator._extra_state"]) for state in (half, b)] == [1, 2]
        assert half["state_dict"]["augment.p"] > 0
    assert half["transfergen"]["images_seen"] == 40
    assert half["callbacks"].keys() >= {"SampleGrid", "Evaluation", "CollapseWarning"}
    assert a["callbacks"]["CollapseWarning"] == b["callbacks"]["CollapseWarning"]
    assert a["transfergen"]["images_seen"] == b["transfergen"]["images_seen"] == 128
    assert a["state_dict"].keys() == b["state_dict"].keys()
    for name, value in a["state_dict"].items():
        same = torch.equal if isinstance(value, torch.Tensor) else operator.eq
        assert same(value, b["state_dict"][name]), name
    moved = [
        n for n, t in half["state_dict"].items() if n.startswith("generator") and not torch.equal(t, b["state_dict"][n])
    ]
    assert moved
    for ours, theirs in zip(a["optimizer_states"], b["optimizer_states"], strict=True):
        for key, state in ours["state"].items():
            for name, value in state.items():
                assert torch.equal(value, theirs["state"][key][name]), name
    for ours, theirs in zip(a["transfergen"]["rng"], b["transfergen"]["rng"], strict=True):
        assert all(torch.equal(ours[name], theirs[name]) for name in ours)


def test_resume_auto_starts_a_run_and_then_goes_on_with_it_and_with_its_time(tmp_path, monkeypatch):
    run_dir, seconds = tmp_path / "run", [0.0]
    for expected in (64, 128):
        ticks_when_read = SimpleNamespace(perf_counter=count().__next__)
        monkeypatch.setattr("transfergen.training.base_module.time", ticks_when_read)
        code, _, err = train(run_dir, "resume=auto", f"trainer.max_epochs={expected // 64}")
        assert code == 0, err
        assert checkpoint(run_dir)["transfergen"]["images_seen"] == expected
        seconds.append(json.loads((run_dir / "metrics.json").read_text())["seconds"])
        assert seconds[-1] >= checkpoint(run_dir)["transfergen"]["seconds"] > seconds[-2]


@pytest.fixture(scope="module")
def one_epoch(tmp_path_factory):
    """A run of one epoch, 64 images."""
    run_dir = tmp_path_factory.mktemp("run")
    assert train(run_dir, "objective=bce", "trainer.max_epochs=1")[0] == 0
    return run_dir


@pytest.mark.parametrize(
    ("overrides", "lines"),
    [
        (["trainer.max_epochs=1"], ["the run has reached its end, 64 images; set a larger trainer.max_epochs"]),
        (["augment=adaptive"], ["the checkpoint is of other networks: 2 of", "resume with the run's own augment."]),
        (
            ["optimizer=adam"],
            ["the checkpoint's optimizers are Adam and Muon, this run's Adam and Adam; resume with"],
        ),
        (["optimizer.d_steps=1.5"], ["optimizer.d_steps=1.5: choose a whole number"]),
    ],
)
def test_a_refused_resume_says_why_and_changes_no_file_of_the_run(one_epoch, tmp_path, overrides, lines):
    run_dir = shutil.copytree(one_epoch, tmp_path / "run")
    kept = ("metrics.json", "config.yaml", ".composed.yaml", "generator.json", "checkpoints/last.ckpt")
    before = [(run_dir / name).read_bytes() for name in kept]
    code, _, err = train(None, f"resume={run_dir}", "trainer.max_epochs=2", *overrides, small=False)
    assert code == 2
    assert all(line in err for line in lines), err
    assert [(run_dir / name).read_bytes() for name in kept] == before


def test_a_run_that_replaces_another_leaves_nothing_of_it(one_epoch, tmp_path):
    run_dir = shutil.copytree(one_epoch, tmp_path / "run")
    (run_dir / "best").mkdir()
    (run_dir / "mine.txt").write_text("")
    curve = (run_dir / "csv" / "version_0" / "metrics.csv").read_text()
    code, _, err = train(run_dir, "overwrite=true", "max_images=8", "samples.every_images=64")
    assert code == 0, err
    assert not (run_dir / "best").exists()
    assert (run_dir / "mine.txt").exists()
    assert [file.name for file in (run_dir / "samples").iterdir()] != []
    assert not (run_dir / "samples" / "000000064.png").exists()
    assert [file.name for file in (run_dir / "csv").iterdir()] == ["version_0"]
    assert len((run_dir / "csv" / "version_0" / "metrics.csv").read_text()) < len(curve)
    assert "overwrite" not in (run_dir / "config.yaml").read_text()


def test_discriminator_is_updated_each_batch_and_the_generator_each_second(tmp_path):
    assert train(tmp_path, "optimizer=adam", "optimizer.d_steps=2", "trainer.max_epochs=1")[0] == 0
    d_state, g_state = checkpoint(tmp_path)["optimizer_states"]
    assert next(iter(d_state["state"].values()))["step"] == 8
    assert next(iter(g_state["state"].values()))["step"] == 4


def test_generator_is_updated_even_where_an_epoch_is_one_batch(tmp_path):
    assert (
        train(tmp_path, "optimizer=adam", "optimizer.d_steps=2", "data.source.train=10", "trainer.max_epochs=4")[0] == 0
    )
    _, g_state = checkpoint(tmp_path)["optimizer_states"]
    assert next(iter(g_state["state"].values()))["step"] == 2


def trunk_weights(run_dir):
    state = checkpoint(run_dir)["state_dict"]
    return {n: t for n, t in state.items() if n.startswith("discriminator.backbone") and n.endswith("weight")}


@pytest.fixture(scope="module")
def first_trunk(tmp_path_factory):
    """The weights of the trunk that each training with the same seed begins with: feature extraction moves none."""
    run_dir = tmp_path_factory.mktemp("run")
    assert train(run_dir, "transfer=feature_extraction", "max_images=8")[0] == 0
    return trunk_weights(run_dir)


def test_a_transformer_from_its_authors_file_is_read_again_when_a_run_goes_on(tmp_path):
    """With a gradient penalty, whose second derivatives pass the attention."""
    run, weights = tmp_path / "run", tmp_path / "dino_deitsmall16_pretrain.pth"
    random_file(weights, DINO, depth=1)
    options = ["model=projected", "backbone=dino_vits16", "discriminator=stylegan_t", "objective.penalty.r1=1"]
    trunk = [f"backbone.weights={weights}", "backbone.taps=[0,1]", "backbone.input_size=32"]
    code, _, err = train(run, *ANY_MODEL, *options, *trunk, "max_images=16", small=False)
    assert code == 0, err
    first = checkpoint(run)["state_dict"]
    assert {name.split(".")[1] for name in first if name.startswith("discriminator.")} >= {"heads"}
    assert trunk_weights(run) == {}
    code, _, err = train(None, f"resume={run}", "max_images=24", small=False)
    assert code == 0, err
    last = checkpoint(run)
    assert last["transfergen"]["images_seen"] == 24
    for head in "01":
        name = f"discriminator.heads.{head}.0.parametrizations.weight.original"
        assert not torch.equal(first[name], last["state_dict"][name])
    weights.unlink()
    code, _, err = train(None, f"resume={run}", "max_images=32", small=False)
    assert code == 2
    assert f"backbone.weights={weights}: there is no such file" in err


@pytest.mark.parametrize(
    ("options", "training_blocks"),
    [
        (["transfer=feature_extraction"], set()),
        (["transfer=fine_tuning"], {"0", "1", "2"}),
        (["transfer=fine_tuning", "transfer.trunk=last_k", "transfer.last_k=2"], {"1", "2"}),
        (["transfer=fine_tuning", "transfer.trunk=gradual", "transfer.unfreeze_every_images=16"], {"1", "2"}),
        (["transfer=fine_tuning", "transfer.trunk=gradual", "transfer.unfreeze_every_images=24"], {"2"}),
    ],
)
def test_strategy_decides_which_blocks_of_the_trunk_move(tmp_path, first_trunk, options, training_blocks):
    code, _, err = train(tmp_path, *options, "max_images=40")
    assert code == 0, err
    last = trunk_weights(tmp_path)
    moved = {name.split(".")[3] for name, first in first_trunk.items() if not torch.equal(first, last[name])}
    assert moved == training_blocks


@pytest.mark.parametrize(
    "override", ["optimizer.discriminator.lr=1e30", "optimizer.generator.lr=1e30"], ids=["discriminator", "generator"]
)
def test_divergence_stops_the_run_before_the_update_and_keeps_the_last_checkpoint(tmp_path, one_epoch, override):
    shutil.copytree(one_epoch, tmp_path, dirs_exist_ok=True)
    before = (tmp_path / "checkpoints" / "last.ckpt").read_bytes()
    code, _, err = train(None, f"resume={tmp_path}", "trainer.max_epochs=3", override, small=False)
    assert code == 3
    assert "not finite" in err
    assert "optimizer.discriminator.lr" in err
    assert (tmp_path / "checkpoints" / "last.ckpt").read_bytes() == before


def test_curves_may_go_to_csv_alone(tmp_path):
    assert train(tmp_path, "logger=csv", "max_images=16")[0] == 0
    rows = list(csv.DictReader((tmp_path / "csv" / "version_0" / "metrics.csv").open()))
    assert [row["step"] for row in rows if row["loss/generator"]] == ["8", "16"]
    assert not (tmp_path / "tensorboard").exists()


def test_max_images_ends_within_an_epoch(tmp_path):
    assert train(tmp_path, "max_images=24")[0] == 0
    assert checkpoint(tmp_path)["transfergen"]["images_seen"] == 24


def test_settings_change_what_they_name(tmp_path):
    code, _, err = train(
        tmp_path,
        "objective=bce",
        "max_images=16",
        "samples.count=9",
        "objective.saturating=true",
        "channels_last=false",
    )
    assert code == 0, err
    assert Image.open(tmp_path / "grid.png").size == (3 * 34 + 2, 3 * 34 + 2)
    assert json.loads((tmp_path / "metrics.json").read_text())["training"]["loss/generator"] < 0


@pytest.mark.parametrize(
    ("name", "moment"),
    [("SIGINT", "data.datamodule.build_store"), ("SIGTERM", "training.callbacks.evaluation.store_features")],
)
def test_signal_before_the_first_step_ends_with_its_code_and_a_line(tmp_path, monkeypatch, name, moment):
    """While pictures are decoded, and while features of the reals are taken."""
    number = getattr(signal, name)
    monkeypatch.setattr(f"transfergen.{moment}", lambda *_, **__: os.kill(os.getpid(), number))
    small = [*ANY_MODEL, *SMALL_MODELS["dcgan"], "max_images=8", "evaluation.count=16"]
    code, _, err = train(tmp_path, *small, small=False)
    assert (code, err) == (128 + number, f"transfergen: {name}: ended before all was done\n")
    assert not (tmp_path / "checkpoints" / "last.ckpt").exists()
    assert not list(tmp_path.rglob(".lock"))


def test_signal_after_the_last_step_ends_the_run_once_its_metrics_are_written(tmp_path, monkeypatch):
    measure = evaluation.measure

    def interrupted(*args):
        os.kill(os.getpid(), signal.SIGTERM)
        return measure(*args)

    monkeypatch.setattr(evaluation, "measure", interrupted)
    small = [*ANY_MODEL, *SMALL_MODELS["dcgan"], "max_images=8", "evaluation.count=16"]
    code, _, err = train(tmp_path, *small, small=False)
    assert (code, err) == (143, f"transfergen: SIGTERM: saved after 8 images; resume={tmp_path} goes on\n")
    assert json.loads((tmp_path / "metrics.json").read_text())["images_seen"] == 8
    assert not list(tmp_path.rglob(".lock"))


def test_two_trainings_in_one_folder_are_refused_with_the_process_that_is_there(tmp_path):
    with artefacts.claim(tmp_path, "hydra.run.dir"):
        code, _, err = train(tmp_path, *ANY_MODEL, *SMALL_MODELS["dcgan"], "max_images=8", small=False)
    assert code == 2
    assert f"hydra.run.dir={tmp_path}: process {os.getpid()} on " in err
    assert not (tmp_path / "config.yaml").exists()


def test_real_cifar10_against_real_vgg19(tmp_path, cifar10_parquet, vgg_weights):
    code, _, err = train(
        tmp_path,
        "model=vgg_disc",
        "data=huggingface",
        f"data.path={cifar10_parquet}",
        "backbone.cut=relu3_4",
        f"backbone.weights={vgg_weights}",
        "data.batch_size=4",
        "generator.width=8",
        "memory_report=false",
        "trainer.max_epochs=1",
        "trainer.limit_train_batches=2",
        small=False,
    )
    assert code == 0, err
    assert Image.open(tmp_path / "grid.png").size == (8 * 66 + 2, 8 * 66 + 2)
    assert json.loads((tmp_path / "metrics.json").read_text())["metrics"][0]["real"] == 2000
