import copy
import json

import pytest
import torch
from lightning import Callback
from omegaconf import OmegaConf
from runs import ANY_MODEL, SMALL_MODELS, train
from safetensors.torch import load_file
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from transfergen.config import CONF_DIR
from transfergen.networks.weights import WeightsError
from transfergen.training.callbacks import evaluation
from transfergen.training.callbacks.evaluation import Evaluation

PIXELS = OmegaConf.create({"_target_": "transfergen.evaluation.extractors.PixelFeatures", "size": 16})
GENERATOR = {"_target_": "transfergen.networks.generators.dcgan.DCGAN", "resolution": 32, "width": 4}


def best(run_dir):
    """Images seen by the best generator, according to its files and to the checkpoint beside them."""
    records, generator = (run_dir / "best" / f"{name}.json" for name in ("metrics", "generator"))
    counts = [json.loads(file.read_text())["images_seen"] for file in (records, generator)]
    assert counts == 2 * [int((run_dir / "checkpoints" / "best.ckpt").read_text())]
    return counts[0]


@pytest.fixture
def planned(monkeypatch):
    """The metrics that the next measurements give, one dict each."""
    values = []

    def measure(extractor, real, fake):
        return {"kernel_distance": 1.0, "recall": 0.5, "diversity": 1.0} | (values.pop(0) if values else {})

    monkeypatch.setattr(evaluation, "measure", measure)
    return values


def test_metrics_are_measured_at_intervals_and_at_the_end_and_logged(fit, trainer, tmp_path, planned, capsys):
    planned += [{"kernel_distance": value} for value in (3.0, 1.0, 2.0, 2.5)]
    callback = Evaluation(tmp_path, PIXELS, GENERATOR, {}, every_images=16, seed=5)
    fit(callback, images=40)
    curve = [(step, scalars["metrics/kernel_distance"]) for step, scalars in trainer.loggers[0]]
    assert curve == [(16, 3.0), (32, 1.0), (40, 2.0)]
    assert "16 images: kernel_distance 3, recall 0.5, diversity 1\n" in capsys.readouterr().out
    (record,) = (record for record in callback.records if record["name"] == "kernel_distance")
    about = [record[key] for key in ("value", "extractor", "generated", "real", "split", "seed")]
    assert about == [2.5, "pixels, 16x16", 256, 16, "test", 1_000_005]


def test_what_is_measured_last_has_other_latents_than_what_chose_the_best(fit, tmp_path, planned):
    callback = Evaluation(tmp_path, PIXELS, GENERATOR, {}, every_images=8, seed=5)
    fit(callback, images=16)
    chosen = json.loads((tmp_path / "best" / "metrics.json").read_text())["metrics"]
    assert {record["seed"] for record in chosen} == {5}
    assert {record["seed"] for record in callback.records} == {callback.last_seed} == {1_000_005}
    command, training = OmegaConf.load(CONF_DIR / "evaluate.yaml"), OmegaConf.load(CONF_DIR / "train.yaml").evaluation
    assert (
        command.seed
        == training.seed + evaluation.LAST_SEED_OFFSET
        >= training.seed + max(command.count, training.count)
    )


def test_samples_have_each_class_as_often_as_the_test_images(trainer, module, tmp_path, monkeypatch):
    trainer.datamodule.test_set.labels[:2] = 1  # 14 images of one class, 2 of another
    given = {}
    monkeypatch.setattr(
        evaluation, "sample_features", lambda *_, **settings: given.update(settings) or torch.rand(16, 768)
    )
    callback = Evaluation(tmp_path, PIXELS, GENERATOR, {}, best="diversity")
    callback.on_train_start(trainer, module)
    callback.measure_generator(trainer, module.generator, module.device, seed=0)
    assert sorted(given["classes"]) == [0] * 14 + [1] * 2
    assert given["count"] == 256  # each of the 16 classes as often


@pytest.mark.parametrize("size", [16, 8], ids=["the same extractor", "another"])
def test_a_resumed_run_compares_with_what_was_measured_before(fit, module, tmp_path, planned, caplog, size):
    planned += [{"recall": 0.8}, {"recall": 0.2}]
    first = Evaluation(tmp_path, PIXELS, GENERATOR, {}, every_images=8)
    fit(first, images=8, end=False)
    resumed = Evaluation(tmp_path, OmegaConf.merge(PIXELS, {"size": size}), GENERATOR, {}, every_images=8)
    resumed.load_state_dict(first.state_dict())
    fit(resumed, images=16, end=False)
    assert ("recall is 0.20 after 16 images (highest so far 0.80)" in caplog.text) == (size == 16)


class SavesLike(Callback):
    """Keeps what a checkpoint would hold of another callback."""

    def __init__(self, other):
        self.other = other

    def on_train_batch_end(self, *_):
        self.state = copy.deepcopy(self.other.state_dict())


@pytest.mark.parametrize("killed", ["before it measured", "after it measured"])
def test_a_run_killed_at_a_checkpoint_goes_on_with_the_history_of_an_uninterrupted_one(
    fit, trainer, module, tmp_path, planned, killed
):
    measured = [{"recall": 0.3}, {"recall": 0.8}, {"recall": 0.5}]
    planned += measured
    uninterrupted = Evaluation(tmp_path, PIXELS, GENERATOR, {}, every_images=8, best=None)
    fit(uninterrupted, images=24, end=False)
    module.images_seen = 0
    planned += measured[:2]
    first = Evaluation(tmp_path, PIXELS, GENERATOR, {}, every_images=8, best=None)
    saves = SavesLike(first)
    fit(*([saves, first] if killed == "before it measured" else [first, saves]), images=16, end=False)
    trainer.loggers[0].clear()
    planned += measured[1:] if killed == "before it measured" else measured[2:]
    resumed = Evaluation(tmp_path, PIXELS, GENERATOR, {}, every_images=8, best=None)
    resumed.load_state_dict(saves.state)
    fit(resumed, images=24, end=False)
    assert [step for step, _ in trainer.loggers[0]] == ([16, 24] if killed == "before it measured" else [24])
    assert resumed.state_dict() == uninterrupted.state_dict()
    assert resumed.state_dict()["alarms"]["recall"]["highest"] == 0.8


def test_without_intervals_the_end_is_measured_and_no_best_generator_kept(fit, trainer, tmp_path, planned, capsys):
    planned += [{"kernel_distance": 3.0}]
    fit(Evaluation(tmp_path, PIXELS, GENERATOR, {}), images=40)
    assert [step for step, _ in trainer.loggers[0]] == [40]
    assert list(tmp_path.iterdir()) == []
    assert capsys.readouterr().out == ""


def test_best_generator_is_kept_with_its_metrics(fit, module, tmp_path, planned):
    planned += [{"kernel_distance": value} for value in (3.0, 1.0)]
    fit(Evaluation(tmp_path, PIXELS, GENERATOR, {}, every_images=16), images=32)
    kept = load_file(tmp_path / "best" / "generator.safetensors")
    assert all(torch.equal(tensor, kept[name]) for name, tensor in module.generator.state_dict().items())
    records = json.loads((tmp_path / "best" / "metrics.json").read_text())["metrics"]
    assert records[0]["value"] == 1.0
    assert best(tmp_path) == 32


@pytest.mark.parametrize(
    ("settings", "values", "expected"),
    [
        ({}, [3.0, 1.0, 2.0], 16),
        ({}, [3.0, float("nan"), 2.0], 24),
        ({}, [2.0, 2.0, 2.0], 8),
        ({"best": "recall"}, [0.1, 0.3, 0.2], 16),  # larger is better
    ],
)
def test_best_is_by_the_metric_of_the_settings(fit, tmp_path, planned, settings, values, expected):
    planned += [{settings.get("best", "kernel_distance"): value} for value in values]
    fit(Evaluation(tmp_path, PIXELS, GENERATOR, {}, every_images=8, **settings), images=24)
    assert best(tmp_path) == expected


@pytest.mark.parametrize(
    ("size", "expected"),
    [(16, 16), (8, 24)],  # values of another extractor cannot be compared
)
def test_a_resumed_run_compares_with_the_best_generator_of_before(fit, tmp_path, planned, size, expected):
    planned += [{"kernel_distance": value} for value in (3.0, 1.0, 1.5)]
    fit(Evaluation(tmp_path, PIXELS, GENERATOR, {}, every_images=8), images=16)
    fit(Evaluation(tmp_path, {**PIXELS, "size": size}, GENERATOR, {}, every_images=8), images=24)
    assert best(tmp_path) == expected


def test_a_collapse_is_warned_of(fit, tmp_path, planned, caplog):
    planned += [{"recall": 0.6, "diversity": 0.9}, {"recall": 0.2, "diversity": 0.9}, {"recall": 0.2, "diversity": 0.1}]
    fit(Evaluation(tmp_path, PIXELS, GENERATOR, {}, every_images=8), images=24)
    recall, diversity = [record.getMessage() for record in caplog.records if "collapsing" in record.getMessage()]
    assert "recall is 0.20 after 16 images" in recall
    assert "diversity, relative to real images, is 0.10 after 24 images" in diversity


def test_measuring_leaves_the_training_as_it_is(tmp_path):
    plain, measured = tmp_path / "plain", tmp_path / "measured"
    options = ["max_images=48", "ema.halflife_images=0"]
    assert train(plain, *options)[0] == 0
    assert train(measured, *options, "evaluation.every_images=16")[0] == 0
    a, b = (torch.load(run / "checkpoints" / "last.ckpt", weights_only=True) for run in (plain, measured))
    assert a["state_dict"].keys() == b["state_dict"].keys()
    assert all(torch.equal(tensor, b["state_dict"][name]) for name, tensor in a["state_dict"].items())
    assert all(torch.equal(a["transfergen"]["rng"][0][k], b["transfergen"]["rng"][0][k]) for k in ("cpu", "latents"))
    metrics = [json.loads((run / "metrics.json").read_text())["metrics"] for run in (plain, measured)]
    assert metrics[0] == metrics[1]


def test_precision_against_recall_is_a_picture_from_the_second_point_on_and_goes_on_in_a_resumed_run(
    tmp_path, monkeypatch
):
    plotted, plot = [], evaluation.plot_precision_recall

    def noted(paths):
        ((images, _, _),) = [zip(*path, strict=True) for path in paths.values()]
        plotted.append(images)
        return plot(paths)

    monkeypatch.setattr(evaluation, "plot_precision_recall", noted)
    options = [*ANY_MODEL, *SMALL_MODELS["dcgan"], "evaluation.every_images=8", "max_images=16"]
    assert train(tmp_path, *options, small=False)[0] == 0
    assert train(None, f"resume={tmp_path}", "max_images=32", small=False)[0] == 0
    events = EventAccumulator(str(tmp_path / "tensorboard"), size_guidance={"images": 0})
    events.Reload()
    assert [event.step for event in events.Images("precision_recall")] == [16, 24, 32]
    assert [list(images) for images in plotted] == [[8, 16], [8, 16, 24], [8, 16, 24, 32]]


def test_a_sweep_minimises_the_best_metric_or_its_negative(tmp_path):
    records = [{"name": "kernel_distance", "value": 0.1}, {"name": "recall", "value": 0.75}]
    for name, objective in (("recall", -0.75), ("kernel_distance", 0.1), (None, 0.1)):
        callback = Evaluation(tmp_path, PIXELS, GENERATOR, {}, best=name)
        callback.records = records
        assert callback.objective == objective


@pytest.fixture
def no_weights(monkeypatch):
    def instantiate(config):
        raise WeightsError("metrics.weights: cannot download them")

    monkeypatch.setattr(evaluation, "instantiate", instantiate)


@pytest.mark.usefixtures("no_weights")
def test_weights_that_cannot_be_had_stop_the_run_unless_they_are_not_required(tmp_path, caplog):
    with pytest.raises(ValueError, match=r"^metrics\.weights: cannot download them; or evaluation\.required=false"):
        Evaluation(tmp_path, PIXELS, GENERATOR, {})
    callback = Evaluation(tmp_path, PIXELS, GENERATOR, {}, required=False)
    assert callback.extractor.name == "pixels, 16x16"
    assert "going on, measured on pixels" in caplog.text


def test_an_extractor_that_does_not_exist_stops_the_run_even_if_it_is_not_required(tmp_path):
    config = OmegaConf.create({"_target_": "transfergen.evaluation.extractors.TimmFeatures", "name": "dinov22"})
    with pytest.raises(ValueError, match="name=dinov22"):
        Evaluation(tmp_path, config, GENERATOR, {}, required=False)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"best": "beauty"}, ["evaluation.best=beauty", "kernel_distance", "recall"]),
        ({"best": "recall", "count": 3}, ["evaluation.best=recall", "3 test image"]),
    ],
)
def test_settings_that_make_no_sense_are_refused(trainer, module, tmp_path, settings, words):
    with pytest.raises(ValueError, match=r"^evaluation\.") as refused:
        Evaluation(tmp_path, PIXELS, GENERATOR, {}, **settings).on_train_start(trainer, module)
    assert all(word in str(refused.value) for word in words)


def test_numbers_that_mislead_are_warned_of(trainer, module, tmp_path, caplog):
    callback = Evaluation(tmp_path, PIXELS, GENERATOR, {}, every_images=8)
    callback.shared = "vgg19.tv_in1k"
    callback.on_train_start(trainer, module)
    assert "share the weights vgg19.tv_in1k" in caplog.text
    assert "biased upwards" in caplog.text


@pytest.mark.parametrize("every", ["8", "null"])
def test_a_distance_on_few_images_is_warned_of_once(tmp_path, every):
    settings = ["max_images=16", "evaluation.count=16", f"evaluation.every_images={every}"]
    code, out, err = train(tmp_path, *ANY_MODEL, *SMALL_MODELS["dcgan"], *settings, small=False)
    assert code == 0, err
    assert (out + err).count("biased upwards") == 1
    assert (out.index("biased upwards") < out.index("recall")) == (every == "8")


def test_a_run_whose_extractor_cannot_be_had_ends_with_one_line(tmp_path):
    code, _, err = train(tmp_path, "metrics=dinov2")
    assert code == 2
    line = err.strip().splitlines()[-1]
    for word in (
        "https://huggingface.co/",
        "vit_small_patch14_dinov2",
        "metrics.weights: cannot download",
        "evaluation.required=false",
    ):
        assert word in line
    assert not (tmp_path / "checkpoints").exists()
