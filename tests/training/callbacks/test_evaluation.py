"""The metrics within a training: at intervals and at its end, the best generator, and what is said of them."""

import json

import pytest
import torch
from runs import train
from safetensors.torch import load_file
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from transfergen.runs.generator_files import load_generator
from transfergen.training.callbacks import evaluation


def metrics(folder):
    return json.loads((folder / "metrics.json").read_text())


def best(run_dir):
    return metrics(run_dir / "best")["images_seen"]


@pytest.fixture
def values(monkeypatch):
    """What the measurements of a run are to give, one after the other."""
    planned = []

    def planned_value(extractor, real, fake):
        return {"kernel_distance": planned.pop(0), "recall": 0.5, "diversity": 1.0}

    monkeypatch.setattr(evaluation, "measure", planned_value)
    return planned


def test_best_generator_is_kept_and_a_resumed_run_goes_on_from_its_figure(tmp_path, values):
    values += [3.0, 1.0, 2.0]
    code, out, err = train(tmp_path, "trainer.max_epochs=3", "evaluation.every_images=64")
    assert code == 0, err
    assert not values
    assert best(tmp_path) == 128
    assert "64 images: kernel_distance 3" in out
    state = torch.load(tmp_path / "checkpoints" / "best.ckpt", weights_only=True)
    assert state["transfergen"]["images_seen"] == 128
    weight = "layers.0.weight"
    saved = load_file(tmp_path / "best" / "generator.safetensors")[weight]
    assert torch.equal(saved, state["state_dict"][f"ema.network.{weight}"])
    assert load_generator(tmp_path / "best")(torch.zeros(1, 100)).shape == (1, 3, 32, 32)
    assert metrics(tmp_path)["images_seen"] == 192
    assert metrics(tmp_path)["metrics"][0]["value"] == 2.0
    for event_file in (tmp_path / "tensorboard").iterdir():
        events = EventAccumulator(str(event_file))
        events.Reload()
        if "loss/generator" in events.Tags()["scalars"]:
            points = {(event.step, event.value) for event in events.Scalars("metrics/kernel_distance")}
            assert points == {(64, 3.0), (128, 1.0), (192, 2.0)}

    values += [1.5]
    code, _, err = train(None, f"resume={tmp_path}", "trainer.max_epochs=4", small=False)
    assert code == 0, err
    assert (best(tmp_path), metrics(tmp_path)["images_seen"]) == (128, 256)


def test_measuring_leaves_the_training_as_it_is_and_is_left_out_of_by_default(tmp_path):
    plain, measured = tmp_path / "plain", tmp_path / "measured"
    options = ["max_images=48", "ema.halflife_images=0"]
    assert train(plain, *options)[0] == 0
    assert train(measured, *options, "evaluation.every_images=16", "evaluation.best=recall")[0] == 0
    a, b = (torch.load(run / "checkpoints" / "last.ckpt", weights_only=True) for run in (plain, measured))
    assert a["state_dict"].keys() == b["state_dict"].keys()
    assert all(torch.equal(tensor, b["state_dict"][name]) for name, tensor in a["state_dict"].items())
    assert all(torch.equal(a["transfergen"]["rng"][0][k], b["transfergen"]["rng"][0][k]) for k in ("cpu", "latents"))
    assert not (plain / "best").exists()
    assert (measured / "best" / "generator.json").exists()
    for ours, theirs in zip(metrics(plain)["metrics"], metrics(measured)["metrics"], strict=True):
        assert ours == theirs


def test_larger_is_better_for_recall_and_a_sweep_minimises_its_negative(tmp_path):
    callback = evaluation.Evaluation(
        tmp_path, {"_target_": "transfergen.evaluation.extractors.PixelFeatures"}, {}, {}, best="recall"
    )
    callback.entries = [{"name": "kernel_distance", "value": 0.1}, {"name": "recall", "value": 0.75}]
    assert callback.objective == -0.75
    callback.best, callback._minimised = None, "kernel_distance"
    assert callback.objective == 0.1


def refusal(run_dir, *overrides):
    code, _, err = train(run_dir, *overrides)
    assert code == 2
    return err.strip().splitlines()[-1]


def test_extractor_that_cannot_be_had_stops_the_run_unless_told_otherwise(tmp_path):
    line = refusal(tmp_path, "metrics=dinov2")
    for word in (
        "https://huggingface.co/",
        "vit_small_patch14_dinov2",
        "metrics.weights=",
        "evaluation.required=false",
    ):
        assert word in line
    assert not (tmp_path / "checkpoints").exists()
    code, _, err = train(tmp_path, "metrics=dinov2", "evaluation.required=false", "max_images=8")
    assert code == 0, err
    assert "going on, measured on pixels" in (tmp_path / "train.log").read_text()
    assert metrics(tmp_path)["metrics"][0]["extractor"] == "pixels, 16x16"


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["evaluation.every_images=0"], ["evaluation.every_images"]),
        (["metrics=dinov2", "metrics.name=dinov22", "evaluation.required=false"], ["metrics.name=dinov22"]),
        (["evaluation.best=beauty"], ["evaluation.best=beauty", "kernel_distance", "recall"]),
        (["evaluation.best=recall", "data.source.test=3"], ["evaluation.best=recall", "3 test image"]),
    ],
)
def test_setting_that_makes_no_sense_is_refused(tmp_path, overrides, words):
    line = refusal(tmp_path, *overrides)
    assert all(word in line for word in words)


def test_extractor_of_the_discriminators_own_weights_is_told_of(tmp_path):
    lite0 = ["backbone=efficientnet_lite0", "backbone.taps=[1]", "metrics=efficientnet_lite0"]
    small = ["trainer=cpu", "data=shapes", "data.source.train=16", "data.source.test=8", "data.resolution=32"]
    small += ["data.batch_size=8", "generator.width=4", "discriminator.hidden=8", "samples.count=4", "max_images=8"]
    code, out, err = train(tmp_path, *small, *lite0, f"data.cache_dir={tmp_path / 'cache'}", small=False)
    assert code == 0, err
    for entry in metrics(tmp_path)["metrics"]:
        assert entry["shares_weights_with_discriminator"] == "tf_efficientnet_lite0.in1k"
    log = (tmp_path / "train.log").read_text()
    assert "share the weights tf_efficientnet_lite0.in1k" in log
    assert "shares the weights of tf_efficientnet_lite0.in1k" in out
    assert "biased upwards" in log
