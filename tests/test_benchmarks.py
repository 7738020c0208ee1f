"""The benchmarks' arithmetic, their variants, and the results that the repository keeps."""

import json
from argparse import Namespace
from importlib import import_module

import pytest
import torch
from runs import ROOT

from transfergen.images import resize

FOLDER = ROOT / "benchmarks"
QUALITY = ["time_to_quality", "zoo", "presets", "fine_tuning", "distill"]


@pytest.fixture(autouse=True)
def _import_benchmarks(monkeypatch):
    monkeypatch.syspath_prepend(str(FOLDER))


def result(name, machine="here", **more):
    return {"name": name, "machine": machine, **more}


def run(model, seconds, distances, recall, **more):
    points = {"seconds": seconds, "images": [10 * s for s in seconds], "kernel_distance": distances, "recall": recall}
    conditions = {"training_images": 100, "resolution": 32, "seed": 0, **more}
    return result(model, model=model, points=points, **conditions)


def kept(benchmark):
    return json.loads((FOLDER / "results" / f"{benchmark}.json").read_text())


def test_measurements_take_turns_and_the_first_round_does_not_count():
    harness, order = import_module("harness"), []
    times = {"a": iter([100.0, 1.0, 9.0, 2.0]), "b": iter([100.0, 5.0, 4.0, 6.0])}

    def measurement(name):
        return lambda: order.append(name) or next(times[name])

    assert harness.in_turns([measurement("a"), measurement("b")], rounds=3) == [2.0, 5.0]
    assert order == ["a", "b"] * 4


def test_a_new_result_replaces_the_kept_one_of_its_name_and_machine(tmp_path):
    results = import_module("harness").Results("speed", tmp_path / "work", tmp_path / "kept")
    results.keep([result("x", ms=1), result("x", "there", ms=2)])
    results.add(result("x", ms=3))
    assert [r["ms"] for r in results.load()] == [3, 2]
    results.keep(results.load())
    assert len((tmp_path / "kept" / "speed.json").read_text().splitlines()) == 4


def test_ratios_are_of_the_moment_when_a_model_is_as_good_as_the_rival_at_its_best():
    quality = import_module("quality")
    rival = run("dcgan", [100, 200, 400], [0.5, 0.1, 0.2], [0.1, 0.6, 0.6])
    model = run("cifar10", [50, 100, 200], [0.3, 0.1, 0.1], [0.5, 0.5, 0.7])
    row = quality.ratios([rival, model], "dcgan").splitlines()[-1]
    assert row == "| 100 | 32 | cifar10 | 1 | 0.50 | 0.50 | 1.00 | 1.00 |"
    never = run("cifar10", [50], [0.3], [0.5])
    assert quality.ratios([rival, never], "dcgan").splitlines()[-1].count("never") == 4
    other_seed = run("cifar10", [50], [0.1], [0.7], seed=1)
    assert len(quality.ratios([rival, other_seed], "dcgan").splitlines()) == 2


def test_high_frequency_power_sees_single_pixels_and_nothing_smooth():
    power = import_module("judgement").high_frequency_power
    noise = torch.randn(64, 3, 32, 32)
    smooth = resize(resize(noise, 8), 32)
    checkerboard = torch.ones(2, 3, 32, 32)
    checkerboard[..., ::2, 1::2] = checkerboard[..., 1::2, ::2] = -1
    assert power(smooth) < 1e-2 * power(noise)
    assert power(checkerboard) > power(noise)
    assert float(power(3 * noise)) == pytest.approx(9 * float(power(noise)), rel=1e-4)


@pytest.mark.parametrize("benchmark", QUALITY)
def test_each_variant_composes(benchmark):
    compose_config, quality = import_module("judgement").compose_config, import_module("quality")
    script = import_module(benchmark)
    args = Namespace(data="data", resolution=32, training_images=None, trainer="cpu", precision="bf16-mixed")
    for overrides in script.VARIANTS.values():
        own = [o.format(vgg="random", source="run", teacher="run") for o in overrides]
        config = compose_config([*quality.common_overrides(args, seed=3), *own])
        assert (config.seed, config.max_images, config.data.path) == (3, None, "data")


@pytest.mark.parametrize("benchmark", QUALITY)
def test_kept_results_can_be_reported(benchmark):
    table = import_module("quality").table(kept(benchmark))
    assert len(table.splitlines()) == len(kept(benchmark)) + 2


def test_the_kept_results_give_the_ratios_that_the_docs_name():
    rows = import_module("quality").ratios(kept("time_to_quality"), "dcgan").splitlines()
    assert "| 20000 | 32 | cifar10 | 8 | 0.20 | 0.15 | 0.40 | 0.31 |" in rows


def test_the_folder_is_small():
    assert sum(file.stat().st_size for file in FOLDER.rglob("*")) < 4 * 2**20
