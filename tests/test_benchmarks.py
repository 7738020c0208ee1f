"""The benchmarks' arithmetic, their variants, and the results that the repository keeps."""

import json
import os
import subprocess
import sys
from argparse import ArgumentParser, Namespace
from collections import defaultdict
from importlib import import_module
from pathlib import Path
from unittest.mock import MagicMock

import datasets
import numpy as np
import pytest
import torch
from omegaconf import OmegaConf
from PIL import Image
from public_networks import PublicDiscriminator, PublicGenerator, StudioGAN, randomize
from runs import ROOT

from transfergen.config import instantiate
from transfergen.images import resize
from transfergen.networks.discriminators.resnet import ResNetDiscriminator
from transfergen.networks.generators.resnet import ResNet
from transfergen.runs.generator_files import save_generator
from transfergen.training.base_module import GenerativeModule

FOLDER = ROOT / "benchmarks"
QUALITY = ["time_to_quality", "zoo", "presets", "fine_tuning", "distill", "public_generator"]


@pytest.fixture(autouse=True)
def _import_benchmarks(monkeypatch):
    monkeypatch.syspath_prepend(str(FOLDER))


def result(name, machine="here", **more):
    return {"name": name, "machine": machine, **more}


def run(model, seconds, distances, recall, **more):
    points = {"seconds": seconds, "images": [10 * s for s in seconds], "kernel_distance": distances, "recall": recall}
    conditions = {"training_images": 100, "resolution": 32, "seed": 0, **more}
    return result(model, model=model, points=points, **conditions)


def row(model, distances, **more):
    """A result for the proof: a point a minute, Fréchet distances of 100 times the kernel distances."""
    result = run(model, [60 * (i + 1) for i in range(len(distances))], distances, [0.5] * len(distances), **more)
    result["points"] |= {
        "frechet_distance": [100 * d for d in distances],
        "high_frequency_ratio": [2.0] * len(distances),
    }
    return result


def write_images(folder):
    """30 training images and 10 test images of noise, as CIFAR-10 is on the Hugging Face hub."""
    rng = np.random.default_rng(0)
    for split, count in (("train", 30), ("test", 10)):
        images = [Image.fromarray(rng.integers(0, 256, (32, 32, 3), np.uint8)) for _ in range(count)]
        table = datasets.Dataset.from_dict({"img": images}, features=datasets.Features({"img": datasets.Image()}))
        table.to_parquet(folder / f"{split}-00000-of-00001.parquet")


def plan():
    titles = {"scratch": ["a", "a_fast"], "matched": ["b", "b_fast"], "trunk": ["d"]}
    return import_module("proof").Proof(titles, plain="scratch", opponent="matched", full="trunk")


def proof_of(**rows):
    return plan()([result for results in rows.values() for result in results])


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


@pytest.mark.parametrize(
    ("info", "name"),
    [
        ("processor\t: 0\nmodel name\t: AMD EPYC\nflags\t\t: fpu avx512f\n", "AMD EPYC"),
        ("model name\t: Intel(R) Xeon(R)\nflags\t\t: fpu amx_bf16\n", "Intel(R) Xeon(R)"),
        ("model name\t: Intel(R) Xeon(R)\nflags\t\t: fpu avx512_bf16\n", "Intel(R) Xeon(R) without AMX"),
        ("model name\t: AMD EPYC\nflags\t\t: fpu avx2\n", "AMD EPYC without AVX-512"),
        ("BogoMIPS\t: 50.00\n", "arm64"),
    ],
)
def test_processors_of_one_name_with_other_instructions_are_other_machines(monkeypatch, tmp_path, info, name):
    harness = import_module("harness")
    (tmp_path / "cpuinfo").write_text(info)
    monkeypatch.setattr(harness, "Path", lambda _: tmp_path / "cpuinfo")
    monkeypatch.setattr(harness.platform, "machine", lambda: "arm64")
    assert harness.processor() == name


def test_a_measurement_that_cannot_be_written_whole_leaves_the_one_before(tmp_path, monkeypatch):
    results = import_module("harness").Results("speed", tmp_path / "work", tmp_path / "kept")
    results.add(result("x", ms=1))
    results.keep(results.load())
    write_bytes, write_text = Path.write_bytes, Path.write_text
    monkeypatch.setattr(Path, "write_bytes", lambda path, content: write_bytes(path, content[:9]) and 1 / 0)
    monkeypatch.setattr(Path, "write_text", lambda path, content: write_text(path, content[:9]) and 1 / 0)
    for write in (lambda: results.add(result("x", ms=2)), lambda: results.keep([])):
        with pytest.raises(ZeroDivisionError):
            write()
    assert [r["ms"] for r in results.load()] == [1]
    assert json.loads((tmp_path / "kept" / "speed.json").read_text())[0]["ms"] == 1


def test_a_training_is_done_already_if_it_saw_as_many_images(tmp_path, monkeypatch):
    harness, quality = import_module("harness"), import_module("quality")
    results, lengths = harness.Results("speed", tmp_path, tmp_path), []
    monkeypatch.setattr(quality, "judged_training", lambda _, moments, *more: lengths.append(moments[-1]) or {})
    given = {"also": [], "training_images": 10, "resolution": 32, "trial": False, "trainer": "cpu", "precision": "32"}
    for images in (100.0, 300.0, 200.0, 300.0):
        args = Namespace(**given, moments=[(images, "images")], points=2, data="data")
        quality.judged_run("dcgan", [], 0, args, results, {})
    assert lengths == [100, 300]
    results.add({key: value for key, value in results.load()[0].items() if key != "until"})  # as it was stored once
    quality.judged_run("dcgan", [], 0, args, results, {})
    assert lengths == [100, 300]


def test_measurements_of_long_names_have_files_of_their_own(tmp_path):
    results = import_module("harness").Results("speed", tmp_path / "work", tmp_path / "kept")
    names = [f"image in data.path={'x' * 300} {end}" for end in "ab"]
    for name in names:
        results.add(result(name))
    assert sorted(r["name"] for r in results.load()) == names


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
    args = Namespace(
        data="data", resolution=32, training_images=None, trial=False, trainer="cpu", precision="bf16-mixed"
    )
    for overrides in script.VARIANTS.values():
        own = [o.format_map(defaultdict(lambda: "run", vgg="random")) for o in overrides]
        config = compose_config([*quality.common_overrides(args, seed=3), *own])
        assert (config.seed, config.data.path) == (3, "data")
        decay = config.lr_decay
        assert decay.start_images is None or decay.end_images or config.max_images  # benchmarks' epochs have no end


@pytest.mark.parametrize("option", ["--minutes", "--images-seen", "--points", "--training-images"])
@pytest.mark.parametrize("value", ["0", "-1", "nan", "many"])
def test_options_that_would_measure_nothing_are_refused(option, value, capsys):
    parser = ArgumentParser()
    import_module("quality").add_options(parser, {})
    with pytest.raises(SystemExit, match="2"):
        parser.parse_args([f"{option}={value}"])
    assert f"argument {option}: {value}: give a number above 0" in capsys.readouterr().err


@pytest.mark.parametrize("benchmark", QUALITY)
def test_kept_results_can_be_reported(benchmark):
    table = import_module("quality").table(kept(benchmark))
    assert len(table.splitlines()) == len(kept(benchmark)) + 2


def test_the_zoo_is_plotted_from_the_precision_and_recall_of_its_kept_results(tmp_path):
    plots, results = import_module("plots"), kept("zoo")
    paths = plots.precision_recall_paths(results)
    last = {r["model"]: tuple(r["points"][key][-1] for key in ("images", "precision", "recall")) for r in results}
    assert {model: path[-1] for model, path in paths.items()} == last
    again = results[0] | {"name": "dcgan, seed 1"}
    assert [*plots.precision_recall_paths([*results, again])][0::9] == [results[0]["name"], results[9]["model"]]
    plots.plot_precision_recall(results, tmp_path / "zoo.png")
    assert Image.open(tmp_path / "zoo.png").size == Image.open(FOLDER / "results" / "zoo.png").size


def test_the_kept_results_give_the_ratios_that_the_docs_name():
    rows = import_module("quality").ratios(kept("time_to_quality"), "dcgan").splitlines()
    assert "| 20000 | 32 | cifar10 | 8 | 0.20 | 0.15 | 0.40 | 0.31 |" in rows


def test_rows_of_the_proof_are_compared_by_the_seeds_that_both_ran():
    table = proof_of(
        a=[row("a", [0.9, 0.8, 0.9, 0.1])],
        b=[row("b", [0.9, 0.9, 0.9]), row("b_fast", [0.8, 0.4, 0.5]), row("b_fast", [0.8, 0.6, 0.5], seed=1)],
        d=[row("d", [0.4, 0.1, 0.1]), row("d", [0.7, 0.3, 0.3], seed=1), row("d", [0.01] * 3, seed=2)],
    )
    lines = table.splitlines()
    assert lines[0] == "here, 32x32 pixels:"
    assert lines[4:7] == [
        "| 100 | 3 | scratch | `a` | 1 | 800.00 | 80.00 | 0.50 | 2.00 | never | never | never | never | never |",
        "| 100 | 3 | matched | `b_fast` | 2 | 450.00 | 45.00 | 0.50 | 2.00 | 1,500 | 2.5 | 1.00 | 1.00 | 1.00 |",
        "| 100 | 3 | trunk | `d` | 2 | 200.00 | 20.00 | 0.50 | 2.00 | 900 | 1.5 | 0.58 | 0.58 | 0.58 |",
    ]
    assert "the opponent is at its best after 2.5 of 3.0 minutes." in table
    assert (
        "divides the kernel distance by 2.00, and the trunk divides the rest by 4.00: 33% and 67% of the gain" in table
    )


def test_the_proof_says_how_many_seeds_came_as_close_and_asks_for_recall_apart():
    b = [row("b", [0.5], seed=seed) for seed in (0, 1)]
    d = [row("d", [0.4]), row("d", [0.6], seed=1)]
    cells = proof_of(b=b, d=d).splitlines()[5].split(" | ")
    assert cells[-5:] == ["1 of 2 seeds"] * 4 + ["1 of 2 seeds |"]
    varied = row("b", [0.5])
    varied["points"]["recall"] = [0.51]
    cells = proof_of(b=[varied], d=d[:1]).splitlines()[5].split(" | ")
    assert cells[-3:] == ["1.00", "1.00", "never |"]


def test_a_recipe_that_is_worse_alone_has_no_share():
    table = proof_of(a=[row("a", [0.4])], b=[row("b", [0.8])], d=[row("d", [0.2])])
    assert "by 0.50, and the trunk divides the rest by 4.00." in table


def test_a_run_that_was_first_measured_after_a_short_opponent_ended_is_not_compared_with_it():
    late = run("d", [180, 360], [0.2, 0.1], [0.5, 0.5])
    table = proof_of(b=[row("b", [0.8])], d=[late])
    assert "| matched | `b` |" in table
    assert "| trunk |" not in table


def test_without_the_opponent_there_is_no_proof(tmp_path):
    results = [row("a", [0.4]), row("d", [0.2])]
    assert plan()(results) == "*These rows have not been run yet.*"
    plan().plot(results, tmp_path / "plot.png")
    assert not list(tmp_path.iterdir())


def test_the_plot_of_the_proof_has_the_lines_of_the_table(tmp_path, monkeypatch):
    proof, drawn = import_module("proof"), {}
    draw = proof.plot_minutes
    monkeypatch.setattr(proof, "plot_minutes", lambda panels, file: drawn.update(panels) or draw(panels, file))
    b, b_fast, d = row("b", [0.8, 0.7]), row("b_fast", [0.6]), row("d", [0.2, 0.1])
    once_elsewhere = [row(name, [0.5], machine="there") for name in ("b", "d")]
    plan().plot([b, b_fast, d, row("d", [0.1], resolution=64), *once_elsewhere], tmp_path / "plot.png")
    assert drawn == {
        "100 training images, 1 min": {"matched": b_fast, "trunk": row("d", [0.2])},
        "100 training images, 2 min": {"matched": b, "trunk": d},
    }
    assert (tmp_path / "plot.png").stat().st_size > 1000


def test_the_page_has_the_proof_of_the_kept_results():
    harness, script = import_module("harness"), import_module("time_to_quality")
    _, text, _ = harness.section(ROOT / "docs" / "time-to-quality.md", "time_to_quality")
    assert text == script.PROOF(kept("time_to_quality"))


def test_a_section_is_replaced_and_the_rest_stays(tmp_path):
    harness, page = import_module("harness"), tmp_path / "page.md"
    page.write_text("a\n\n<!-- x -->\n\nold\n\n<!-- /x -->\n\nb\n")
    for text in ("new", "", "new"):
        harness.fill(page, "x", text)
        assert harness.section(page, "x")[1] == text
    assert page.read_text() == "a\n\n<!-- x -->\n\nnew\n\n<!-- /x -->\n\nb\n"
    with pytest.raises(ValueError, match="no section"):
        harness.fill(page, "y", "new")


def test_a_trial_sees_no_test_image_and_its_results_are_not_kept(tmp_path):
    write_images(tmp_path)
    quality, compose_config = import_module("quality"), import_module("judgement").compose_config
    given = {"data": str(tmp_path), "resolution": 32, "training_images": None, "trainer": "cpu", "precision": "32-true"}

    def split(trial):
        config = compose_config(quality.common_overrides(Namespace(**given, trial=trial), 0))
        data = instantiate(config.data)
        return [{p.content_digest(i) for i in range(len(p))} for p in map(data.pictures, ("train", "test"))]

    (train, test), (rest, held_out) = split(False), split(True)
    assert (len(rest), len(held_out)) == (27, 3)
    assert rest | held_out == train
    assert not held_out & test
    results = import_module("harness").Results("speed", tmp_path / "work", tmp_path / "kept")
    results.trials.add(result("x, trial"))
    assert results.load() == []
    assert [r["name"] for r in results.trials.load()] == ["x, trial"]


def test_a_training_that_ends_early_is_measured_at_its_end_and_all_grids_are_kept(tmp_path):
    def measure(generator, grid):
        grid.write_text(grid.name)
        return {}

    callback = import_module("judgement").MeasureAtMoments([100, 200], "images", measure, tmp_path / "a.jpg")
    trainer, module = MagicMock(should_stop=False), MagicMock(spec=GenerativeModule, ema_generator=None)
    callback.on_train_batch_start(trainer, module, None, 0)
    for module.images_seen in (50, 100, 150):
        callback.on_train_batch_end(trainer, module, None, None, 0)
    callback.on_train_end(trainer, module)
    callback.on_train_end(trainer, module)  # two points are all
    assert [point["images"] for point in callback.points] == [100, 150]
    first, second = "a-00000100.jpg", "a-00000150.jpg"
    assert {file.name: file.read_text() for file in tmp_path.iterdir()} == {
        first: first,
        second: second,
        "a.jpg": second,
    }


def test_each_snapshot_of_a_run_is_measured_against_test_images_of_its_data(tmp_path, monkeypatch):
    write_images(tmp_path)
    run_dir, small = tmp_path / "mine", {"resolution": 32, "width": 4}
    generator = {"_target_": "transfergen.networks.generators.dcgan.DCGAN", **small}
    for seen in (16, 32):
        folder = run_dir / "snapshots" / f"{seen:09d}"
        save_generator(folder, instantiate(generator), generator, ema=True, images_seen=seen)
    data = ["data=huggingface", f"data.path={tmp_path}", "data.resolution=32", "data.batch_size=8"]
    config = import_module("judgement").compose_config(data)
    OmegaConf.save(config, run_dir / "config.yaml", resolve=True)
    given = []

    class Measure:
        accuracy = 0.9

        def __init__(self, test, data):
            given.append((tuple(test.shape), data))

        def __call__(self, generator):
            return {"kernel_distance": float(generator.resolution)}

    script, results = import_module("snapshots"), import_module("harness").Results("x", tmp_path, tmp_path)
    monkeypatch.setattr(script, "Measure", Measure)
    script.run(Namespace(run=run_dir), results)
    assert given == [((10, 3, 32, 32), str(tmp_path))]
    [measured] = results.load()
    assert measured["points"] == {"images": [16, 32], "kernel_distance": [32.0, 32.0]}
    assert (measured["name"], measured["training_images"], measured["judge_accuracy"]) == ("mine", 30, 0.9)


def test_images_are_counted_that_are_of_the_class_that_was_asked_for(tmp_path, monkeypatch):
    run_dir, sizes = tmp_path / "mine", {"resolution": 32, "width": 4, "num_classes": 2}
    generator = {"_target_": "transfergen.networks.generators.resnet.ResNet", **sizes}
    save_generator(run_dir, instantiate(generator), generator, ema=True, images_seen=16, classes=["dog", "cat"])
    data = ["data=huggingface", "data.path=data", "data.classes=[5,3]"]
    OmegaConf.save(import_module("judgement").compose_config(data), run_dir / "config.yaml", resolve=True)

    class Judge:
        def classify(self, images):  # every fourth is a cat, and none is a dog
            return torch.nn.functional.one_hot(torch.where(torch.arange(len(images)) % 4 == 0, 3, 1), 10)

    script, results = import_module("class_accuracy"), import_module("harness").Results("x", tmp_path, tmp_path)
    monkeypatch.setattr(script, "load_or_train", lambda data: (Judge(), {"data": 0.9}[data]))
    script.run(Namespace(run=run_dir), results)
    [measured] = results.load()
    assert measured["of_its_class"] == {"dog": 0.0, "cat": 0.25}
    assert (measured["images"], measured["judge_accuracy"]) == (16, 0.9)


def test_a_biggan_is_saved_as_studiogan_would_save_it():
    script = import_module("studiogan_files")
    biggan = {"resolution": 32, "num_classes": 3, "attention": 16}
    settings = {"z_dim": 8, "width": 2, "class_dim": 5, "spectral_norm": True, "hierarchical": True, "bias": True}
    g, d = ResNet(**biggan, **settings, eps=1e-4), ResNetDiscriminator(**biggan, width=4)
    for network in (g, d):
        randomize(network)
        for name, parameter in network.named_parameters():
            if name.endswith(".gain"):
                torch.nn.init.constant_(parameter, 0.5)
    theirs = PublicGenerator(StudioGAN, 32, width=2), PublicDiscriminator(StudioGAN, 32, width=4)
    theirs[0].load_state_dict(script.generator_state(g.state_dict()))
    theirs[1].load_state_dict(script.discriminator_state(d.state_dict()))
    z, y = torch.randn(4, 8), torch.tensor([0, 1, 2, 0])
    torch.testing.assert_close(theirs[0].eval()(z, y), g(z, y))
    images = torch.rand(4, 3, 32, 32)
    torch.testing.assert_close(theirs[1].eval()(images, y), d(images, y))


def test_the_gpu_benchmark_says_so_where_there_is_no_gpu(tmp_path):
    no_gpu = {**os.environ, "PYTHON": sys.executable, "CUDA_VISIBLE_DEVICES": "", "WORK": str(tmp_path / "work")}
    ran = subprocess.run(["bash", FOLDER / "gpu.sh"], env=no_gpu, capture_output=True, text=True, check=False)
    assert (ran.returncode, ran.stdout) == (0, "no GPU here that torch can use: nothing to measure\n"), ran.stderr
    assert not (tmp_path / "work").exists()


def test_the_folder_is_small():
    assert sum(file.stat().st_size for file in FOLDER.rglob("*")) < 4 * 2**20
