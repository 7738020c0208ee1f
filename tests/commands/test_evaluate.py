"""The command on a run and on folders: table, JSON, neighbours.png, and refused settings."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf
from PIL import Image
from runs import called, train

from transfergen import Generator
from transfergen.commands.evaluate import main
from transfergen.commands.report import read_run
from transfergen.data.shapes import shapes
from transfergen.evaluation.compare_run import read_data
from transfergen.evaluation.distances import frechet
from transfergen.evaluation.extractors import PixelFeatures
from transfergen.evaluation.feature_extraction import chosen
from transfergen.images import to_float
from transfergen.sampling.image_files import image_zip


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    assert train(folder, "max_images=16", "evaluation.every_images=8", f"data.cache_dir={folder / 'cache'}")[0] == 0
    return folder


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Drawn shapes, others, and noise: 12 pictures of 32 px each."""
    root = tmp_path_factory.mktemp("folders")
    rng = np.random.default_rng(0)
    for name in ("shapes", "others", "noise"):
        (root / name).mkdir()
        for i in range(12):
            drawn = shapes(None, "train" if name == "shapes" else "test", size=32).open(i)
            picture = Image.fromarray(rng.integers(0, 256, (32, 32, 3), np.uint8)) if name == "noise" else drawn
            picture.save(root / name / f"{i}.png")
    return root


@pytest.fixture(autouse=True)
def _home(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path / "home"))  # where features of folders are kept


def evaluate(*arguments):
    return called(main, *arguments)


def by_name(result):
    return {entry["name"]: entry["value"] for entry in result["metrics"]}


def test_run_gets_a_table_a_file_and_a_picture(run_dir, caplog):
    code, out, err = evaluate(f"run={run_dir}", "metrics=pixels", "neighbours=3")
    assert code == 0, err
    assert ((out + err).count("biased upwards"), "biased upwards" in caplog.text) == (1, False)
    result = json.loads((run_dir / "evaluation.json").read_text())
    assert "nearest_distance_ratio" in by_name(result)
    for name, value in by_name(result).items():
        assert name in out
        assert f"{value:.4g}" in out
    assert str(run_dir / "evaluation.json") in out
    assert Image.open(run_dir / "neighbours.png").size == (6 * 34 + 2, 3 * 34 + 2)
    found = result["neighbours"]["samples"]
    assert len(found) == 3
    assert [row["distances"][0] for row in found] == sorted(row["distances"][0] for row in found)
    assert all(row["distances"] == sorted(row["distances"]) and len(row["nearest"]) == 5 for row in found)
    assert all(2_000_000 <= row["sample"] < 2_000_256 for row in found)


def test_a_generator_without_its_training_is_compared_with_pictures(run_dir, folders, tmp_path, monkeypatch, caplog):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "other").mkdir()
    for name in ("generator.json", "generator.safetensors"):
        shutil.copy(run_dir / name, tmp_path / "other" / name)
    settings = [f"real={folders / 'shapes'}", "count=12", "neighbours=2", "data.fit=stretch", "out=evaluation.json"]
    for run in ("other", "builtin:cifar10"):
        code, _, err = evaluate(f"run={run}", *settings, "metrics=pixels")
        assert code == 0, err
        assert "was trained with" not in caplog.text
    result = json.loads(Path("evaluation.json").read_text())
    assert (result["run"], result["images_seen"]) == ("builtin:cifar10", 50_016)
    assert by_name(result)["frechet_distance"] != by_name(result["earlier"][0])["frechet_distance"]
    assert result["earlier"][0]["run"] == "other"
    code, _, err = evaluate("run=builtin:cifar10", *settings[:2], "neighbours=0")
    assert code == 0, err
    assert "run=builtin:cifar10: no config.yaml tells which pretrained weights it was trained with" in caplog.text


def test_metrics_equal_those_at_the_end_of_the_training(run_dir):
    code, out, err = evaluate(f"run={run_dir}", "metrics=pixels", "neighbours=0", "format=json", "data.cache_dir=null")
    assert code == 0, err
    result = json.loads(out.splitlines()[-1])
    assert len(out.splitlines()) == 1
    trained = json.loads((run_dir / "metrics.json").read_text())
    assert (result["checkpoint"], result["images_seen"], result["resolution"]) == ("last", 16, 32)
    assert result["metrics"] == trained["metrics"]
    assert json.loads((run_dir / "evaluation.json").read_text()) == result


def test_best_generator_split_count_and_seed_are_used(run_dir, tmp_path):
    settings = [f"run={run_dir}", "metrics=pixels", "neighbours=0", "format=json", f"out={tmp_path / 'e.json'}"]
    code, out, err = evaluate(*settings, "checkpoint=best", "split=train", "count=9", "seed=5")
    assert code == 0, err
    result = json.loads(out.splitlines()[-1])
    kept = json.loads((run_dir / "best" / "metrics.json").read_text())
    assert (result["checkpoint"], result["images_seen"]) == ("best", kept["images_seen"])
    for entry in result["metrics"]:
        about = (entry["generated"], entry["real"], entry["split"], entry["seed"])
        assert about == (9, 9, "train", 5)
    assert result["chosen_by"] == "kernel_distance on 16 test images, latents from seed 1000000 on"


def test_results_of_other_settings_are_kept_and_outdated_ones_are_not(run_dir, tmp_path):
    folder, kept = tmp_path / "run", tmp_path / "run" / "evaluation.json"
    shutil.copytree(run_dir, folder, ignore=shutil.ignore_patterns("evaluation.json"))

    def counts_after(*options):
        code, out, err = evaluate(f"run={folder}", "metrics=pixels", "neighbours=0", "format=json", *options)
        assert code == 0, err
        file, shown = json.loads(kept.read_text()), json.loads(out.splitlines()[-1])
        earlier = file.pop("earlier", [])
        assert file == shown
        return [(r["checkpoint"], r["metrics"][0]["generated"]) for r in (file, *earlier)]

    assert counts_after("count=9") == [("last", 9)]
    assert counts_after("count=8") == [("last", 8), ("last", 9)]
    assert counts_after("count=9") == [("last", 9), ("last", 8)]
    assert counts_after("count=9", "checkpoint=best") == [("best", 9), ("last", 9), ("last", 8)]
    assert len(read_run(folder, "run").records) > 3 * len(json.loads(kept.read_text())["metrics"])
    about = json.loads((folder / "generator.json").read_text())
    (folder / "generator.json").write_text(json.dumps(about | {"images_seen": 32}))
    assert counts_after("count=9") == [("last", 9), ("best", 9)]
    kept.write_text("[]")
    assert counts_after("count=9") == [("last", 9)]


def test_neighbours_among_more_training_images_than_references(run_dir, tmp_path):
    settings = [f"run={run_dir}", "metrics=pixels", f"out={tmp_path / 'e.json'}", "split=train", "references=4"]
    code, _, err = evaluate(*settings, "count=40", "neighbours=2")
    assert code == 0, err
    found = json.loads((tmp_path / "e.json").read_text())["neighbours"]
    assert found["references"] == 40


def test_weights_shared_with_the_discriminator_are_reported_without_building_it(run_dir, tmp_path, caplog):
    for name in ("generator.json", "generator.safetensors"):
        (tmp_path / name).write_bytes((run_dir / name).read_bytes())
    config = OmegaConf.load(run_dir / "config.yaml")
    config.discriminator.backbone = {"_target_": "nowhere.X", "name": "tf_efficientnet_lite0", "weights": "lite0.pth"}
    config.data.source.test = 4
    OmegaConf.save(config, tmp_path / "config.yaml")
    code, out, err = evaluate(f"run={tmp_path}", "format=json", "neighbours=0")
    assert code == 0, err
    for entry in json.loads(out.splitlines()[-1])["metrics"]:
        assert entry["shares_weights_with_discriminator"] == "tf_efficientnet_lite0.in1k"
    assert "share the weights tf_efficientnet_lite0.in1k" in caplog.text
    assert "biased upwards" in caplog.text


def test_two_folders_are_compared(folders, tmp_path):
    def distance(fake, *options):
        code, out, err = evaluate(
            f"fake={folders / fake}",
            f"real={folders / 'shapes'}",
            "metrics=pixels",
            "format=json",
            f"out={tmp_path / 'e.json'}",
            *options,
        )
        assert code == 0, err
        return json.loads(out.splitlines()[-1])

    same = distance("shapes")
    first = Image.open(same["neighbours"]["samples"][0]["sample"])
    picture = np.asarray(Image.open(tmp_path / "e-neighbours.png"))
    for left in (2, 2 + 34):  # the sample, and its nearest
        assert np.array_equal(picture[2:34, left : left + 32], np.asarray(first))
    others, noise = distance("others"), distance("noise")
    assert by_name(same)["frechet_distance"] == pytest.approx(0, abs=1e-6)
    assert by_name(same)["kernel_distance"] < by_name(others)["kernel_distance"] < by_name(noise)["kernel_distance"]
    assert by_name(same)["precision"] == by_name(same)["recall"] == 1
    for row in same["neighbours"]["samples"]:  # copies are found, by name
        assert row["sample"] == row["nearest"][0]
        assert row["distances"][0] == 0
    assert (same["resolution"], distance("shapes", "data.resolution=64")["resolution"]) == (32, 64)


def test_archives_are_compared_as_folders_are(folders, tmp_path):
    with image_zip(tmp_path / "many.zip") as target:  # as `generate out=many.zip` writes it
        for file in (folders / "others").glob("*.png"):
            target.write(file.name, file.read_bytes())
    shutil.make_archive(str(tmp_path / "reals"), "gztar", folders / "shapes")
    metrics = []
    for fake, real in (
        (tmp_path / "many.zip", tmp_path / "reals.tar.gz"),
        (folders / "others", folders / "shapes"),
    ):
        options = ["metrics=pixels", "format=json", f"out={tmp_path / 'e.json'}", "neighbours=1"]
        code, out, err = evaluate(f"fake={fake}", f"real={real}", *options)
        assert code == 0, err
        result = json.loads(out)
        metrics.append(by_name(result))
        assert Path(result["neighbours"]["samples"][0]["sample"]).parent == fake
    assert metrics[0] == metrics[1]
    (tmp_path / "many.zip").write_bytes(b"PK")
    code, _, err = evaluate(f"fake={tmp_path / 'many.zip'}", f"real={folders / 'shapes'}")
    assert (code, err.count("\n")) == (2, 1)
    assert f"fake={tmp_path / 'many.zip'}: cannot be read as an archive" in err


def test_pictures_may_have_any_size_mode_and_number(folders, tmp_path):
    for i, (size, mode) in enumerate([((40, 30), "L"), ((30, 52), "RGBA"), ((30, 30), "RGB"), ((9, 12), "P")]):
        Image.new(mode, size).save(tmp_path / f"{i}.png")
    out = tmp_path / "out" / "e.json"
    code, _, err = evaluate(f"fake={tmp_path}", f"real={folders / 'noise'}", "metrics=pixels", f"out={out}", "count=10")
    assert code == 0, err
    result = json.loads(out.read_text())
    assert result["resolution"] == 30
    assert {(entry["generated"], entry["real"], entry["seed"]) for entry in result["metrics"]} == {(4, 10, None)}


def test_damaged_pictures_can_be_left_out_and_the_others_keep_their_names(folders, tmp_path):
    (tmp_path / "fake").mkdir()
    for file in (folders / "noise").glob("*.png"):
        (tmp_path / "fake" / file.name).write_bytes(file.read_bytes())
    (tmp_path / "fake" / "1.png").write_bytes(b"")
    arguments = [f"fake={tmp_path / 'fake'}", f"real={folders / 'noise'}", f"out={tmp_path / 'e.json'}"]
    code, _, err = evaluate(*arguments, "metrics=pixels", "data.damaged=skip")
    assert code == 2
    assert "data.max_damaged=0.01" in err
    code, _, err = evaluate(*arguments, "metrics=pixels", "data.damaged=skip", "data.max_damaged=0.5")
    assert code == 0, err
    samples = json.loads((tmp_path / "e.json").read_text())["neighbours"]["samples"]
    assert len(samples) == 8
    assert all(Path(sample["sample"]).name == Path(sample["nearest"][0]).name for sample in samples)


def test_hidden_files_are_ignored_as_in_training(folders, tmp_path):
    fake = shutil.copytree(folders / "shapes", tmp_path / "fake")
    (fake / ".thumbnails").mkdir()
    shutil.copy(fake / "0.png", fake / ".thumbnails" / "0.png")
    shutil.copy(fake / "0.png", fake / ".0.png")
    arguments = [f"real={folders / 'others'}", "metrics=pixels", "neighbours=0", "format=json", f"out={tmp_path / 'o'}"]
    code, out, err = evaluate(f"fake={fake}", *arguments)
    assert code == 0, err
    assert json.loads(out)["metrics"][0]["generated"] == 12


def compared(tmp_path, *arguments):
    """The metrics of pixels by name, and what was printed on stderr."""
    settings = ["metrics=pixels", "format=json", f"out={tmp_path / 'e.json'}"]
    code, out, err = evaluate(*arguments, *settings)
    assert code == 0, err
    return by_name(json.loads(out.splitlines()[-1]))


def close_to(values):
    return {name: pytest.approx(value, rel=1e-6) for name, value in values.items()}


def test_kept_features_of_real_pictures_give_all_metrics_and_statistics_the_distance(folders, tmp_path, caplog):
    real, fake, kept = f"real={folders / 'shapes'}", f"fake={folders / 'others'}", tmp_path / "stats.npz"
    code, out, err = evaluate(real, f"save_stats={kept}", "metrics=pixels")
    assert code == 0, err
    assert out == f"features of 12 real images, and their statistics: {kept}\n"
    expected = compared(tmp_path, fake, real)
    assert compared(tmp_path, fake, f"real={kept}") == close_to(expected)
    assert "does not say" not in caplog.text
    with np.load(kept) as file:
        np.savez(tmp_path / "fid.npz", mu=file["mu"], sigma=file["sigma"])
    found = compared(tmp_path, fake, f"real={tmp_path / 'fid.npz'}")
    assert found == {"frechet_distance": pytest.approx(expected["frechet_distance"], rel=1e-6)}
    assert "so there is no kernel_distance, sliced_wasserstein, precision" in caplog.text
    code, out, err = evaluate(fake, f"real={tmp_path / 'fid.npz'}", "metrics=pixels", f"out={tmp_path / 'e.json'}")
    assert code == 0, err
    assert "12 generated, real images" in out
    assert "the samples nearest to real images cannot be shown" in out


def test_arrays_are_compared_as_the_files_of_their_pictures_are(folders, tmp_path):
    pixels = {
        name: np.stack([np.asarray(Image.open(folders / name / f"{i}.png")) for i in range(12)])
        for name in ("shapes", "noise")
    }
    np.save(tmp_path / "shapes.npy", pixels["shapes"])
    np.savez(tmp_path / "noise.npz", pixels["noise"], np.zeros(12))
    expected = compared(tmp_path, f"fake={folders / 'noise'}", f"real={folders / 'shapes'}")
    found = compared(tmp_path, f"fake={tmp_path / 'noise.npz'}", f"real={tmp_path / 'shapes.npy'}")
    assert found == close_to(expected)
    nearest = json.loads((tmp_path / "e.json").read_text())["neighbours"]["samples"][0]
    assert nearest["sample"].startswith("image ")


def test_a_run_is_compared_with_what_real_names(run_dir, folders, tmp_path):
    kept = tmp_path / "stats.npz"
    own = compared(tmp_path, f"run={run_dir}", "neighbours=0", f"save_stats={kept}")
    assert compared(tmp_path, f"run={run_dir}", f"real={kept}") == close_to(own)
    result = json.loads((tmp_path / "e.json").read_text())
    assert (result["real"], result["resolution"], result["metrics"][0]["generated"]) == (str(kept), 32, 256)
    others = compared(tmp_path, f"run={run_dir}", f"real={folders / 'noise'}", "neighbours=1")
    about = json.loads((tmp_path / "e.json").read_text())
    assert (about["resolution"], about["fit"]) == (32, "crop")
    assert others["kernel_distance"] < own["kernel_distance"] / 10  # an untrained generator's grey is noise's average
    assert read_run(run_dir, "run").problems == []


def test_further_metrics_are_measured_where_they_are_asked_for(run_dir, tmp_path):
    plain = compared(tmp_path, f"run={run_dir}", "neighbours=0", "split=train")
    names = ["frechet_infinity", "mind", "cmmd", "authenticity"]
    found = compared(tmp_path, f"run={run_dir}", "neighbours=0", "split=train", f"extra=[{','.join(names)}]")
    assert list(found) == [*plain, *names]
    assert 0 <= found["authenticity"] <= 1
    # these samples hardly vary, so their number biases nothing
    assert found["frechet_infinity"] == pytest.approx(found["frechet_distance"], rel=1e-4)
    assert min(found["mind"], found["cmmd"]) > 0


def test_mind_is_recorded_with_as_many_images_of_both_kinds_as_it_takes(folders, tmp_path):
    few = shutil.copytree(folders / "others", tmp_path / "few", ignore=shutil.ignore_patterns("1*.png"))
    compared(tmp_path, f"fake={few}", f"real={folders / 'shapes'}", "extra=[mind,cmmd]", "neighbours=0")
    records = {record["name"]: record for record in json.loads((tmp_path / "e.json").read_text())["metrics"]}
    counts = {name: (records[name]["generated"], records[name]["real"]) for name in ("recall", "cmmd", "mind")}
    assert counts == {"recall": (9, 12), "cmmd": (9, 12), "mind": (9, 9)}


@pytest.mark.usefixtures("narrow_clip")
def test_cmmd_is_measured_on_the_embeddings_of_clip(folders, tmp_path):
    real, options = f"real={folders / 'shapes'}", ["metrics=clip", "metrics.weights=random", "count=4", "extra=[cmmd]"]
    code, out, err = evaluate(f"fake={folders / 'noise'}", real, *options, f"out={tmp_path / 'e.json'}", "neighbours=0")
    assert code == 0, err
    assert "CLIP of random weights, 336 px; 4 generated, 4 real images" in out
    assert by_name(json.loads((tmp_path / "e.json").read_text()))["cmmd"] > 0


def test_a_further_metric_is_recorded_with_the_images_that_it_depends_on(run_dir, tmp_path):
    folder = shutil.copytree(run_dir, tmp_path / "run", ignore=shutil.ignore_patterns("evaluation.json"))
    arguments = [f"run={folder}", "metrics=pixels", "neighbours=0", "references=20", "extra=[authenticity]"]
    code, out, err = evaluate(*arguments)
    assert code == 0, err
    first, *_, record = json.loads((folder / "evaluation.json").read_text())["metrics"]
    assert (first["real"], first["split"]) == (16, "test")
    assert (record["name"], record["generated"], record["real"], record["split"]) == ("authenticity", 256, 20, "train")
    assert record["larger_is_better"] is None
    assert f"real images have {record['value_of_real']:.4g}" in out
    assert "authenticity: pixels, 16x16; 256 generated, 20 real images (train)" in out
    assert read_run(folder, "run").problems == []


def test_results_are_kept_if_a_further_metric_fails(run_dir, tmp_path):
    kept = tmp_path / "e.json"
    extra = "extra=[authenticity,class_frechet]"
    code, _, err = evaluate(f"run={run_dir}", "metrics=pixels", "neighbours=0", f"out={kept}", extra)
    assert code == 2
    assert "extra=[class_frechet]: needs a run whose generator knows classes" in err
    names = [record["name"] for record in json.loads(kept.read_text())["metrics"]]
    assert names[0] == "frechet_distance"
    assert names[-1] == "authenticity"


def test_the_distance_within_classes_takes_each_sample_for_the_class_it_was_asked_for(conditional_run, tmp_path):
    found = compared(tmp_path, f"run={conditional_run}", "split=train", "neighbours=0", "extra=[class_frechet]")
    _, data = read_data(conditional_run, OmegaConf.create({"path": None, "cache_dir": None}))
    labels = data.train_set.labels[chosen(data.train_set, 64)]
    generator, extractor, distances = Generator.from_pretrained(conditional_run), PixelFeatures(), []
    for label in range(10):
        real = data.train_set[chosen(data.train_set, 64)[labels == label]].pixels
        seeds = [seed for seed in range(2_000_000, 2_000_256) if labels[seed % 64] == label]
        fake = generator.pixels(seeds, classes=[label])
        distances.append(frechet(extractor(to_float(real, 32)), extractor(to_float(fake))))
    assert found["class_frechet"] == pytest.approx(float(torch.stack(distances).mean()), rel=1e-3)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], ["run=RUN_DIR", "fake=FOLDER", "real=FOLDER"]),
        (["run=RUN", "fake=FOLDERS/noise"], ["either"]),
        (["fake=FOLDERS/noise"], ["real=FOLDER"]),
        (["run=nowhere"], ["run=nowhere: no folder of a run", "or add real=FOLDER"]),
        (["run=RUN/best"], ["best: no folder of a run, whose config.yaml says"]),
        (["run=builtin:cifar10"], ["run=builtin:cifar10: no folder of a run"]),
        (["run=builtin:cifar10", "checkpoint=best"], ["checkpoint=best: run=builtin:cifar10 is no folder of a run"]),
        (["run=RUN", "checkpoint=worst"], ["checkpoint=worst", "best"]),
        (["run=RUN", "split=holdout"], ["split=holdout"]),
        (["run=RUN", "real=FOLDERS/noise", "split=train"], ["split=train: is of the run's data", "leave one out"]),
        (["run=RUN", "format=xml"], ["format=xml", "json"]),
        (["run=RUN", "count=1"], ["count=1"]),
        (["run=RUN", "out=FOLDERS"], ["out=", "is a folder; give a file"]),
        (["run=RUN", "count=null"], ["count=null", "whole number"]),
        (["run=RUN", "device=abacus"], ["device=abacus"]),
        (["run=RUN", "data.resolution=64"], ["data.resolution=64", "fake="]),
        (["run=RUN", "metrics=beauty"], ["metrics=beauty", "inception"]),
        (["run=RUN", "metrics=dinov2"], ["https://huggingface.co/", "metrics.weights:"]),
        (["fake=FOLDERS", "real=nowhere"], ["real=nowhere", "no such folder"]),
        (["fake=nowhere.zip", "real=FOLDERS"], ["fake=nowhere.zip: there is no such folder or archive"]),
        (["fake=FOLDERS/mixed.zip", "real=FOLDERS/noise"], ["mixed.zip: pictures in it and in its", "; unpack it"]),
        (["fake=FOLDERS/empty", "real=FOLDERS/noise"], ["fake=", "no picture"]),
        (["fake=FOLDERS/mixed", "real=FOLDERS/noise"], ["subfolders", "mixed/images"]),
        (["fake=FOLDERS/broken", "real=FOLDERS/noise"], ["0.png"]),
        (["fake=FOLDERS/single", "real=FOLDERS/noise"], ["1 sample, 12 real images"]),
        (["real=FOLDERS/noise"], ["save_stats=FILE.npz"]),
        (["real=FOLDERS/noise", "save_stats=stats"], ["save_stats=stats", ".npz"]),
        (["real=FOLDERS/noise", "save_stats=FOLDERS/folder.npz"], ["save_stats=", "is a folder"]),
        (["fake=FOLDERS/fid.npz", "real=FOLDERS/noise"], ["fid.npz", "(12,)", "768 dimensions"]),
        (["fake=FOLDERS/fid.npz", "real=FOLDERS/noise", "metrics.size=2"], ["fid.npz", "mean and a covariance only"]),
        (["fake=FOLDERS/noise", "real=FOLDERS/float.npy"], ["real=", "uint8", "float64"]),
        (["run=RUN", "extra=[fid]"], ["extra=['fid']", "frechet_infinity"]),
        (
            ["fake=FOLDERS/noise", "real=FOLDERS/fid.npz", "metrics.size=2", "extra=[mind]", "out=FOLDERS/e.json"],
            ["extra=[mind]:", "covariance"],
        ),
        (["run=RUN", "metrics=clip", "metrics.weights=nowhere.pth"], ["metrics.weights=nowhere.pth: there is no such"]),
        (["run=RUN", "extra=[class_frechet]"], ["extra=[class_frechet]: needs", "classes"]),
        (["run=RUN", "real=nowhere", "extra=[class_frechet]"], ["extra=[class_frechet]: needs", "without real="]),
        (["fake=nowhere", "real=nowhere", "extra=[class_frechet]"], ["extra=[class_frechet]: needs run="]),
        (["fake=nowhere", "real=nowhere", "extra=[path_length]"], ["extra=[path_length]: needs run="]),
        (
            ["run=RUN", "real=nowhere", "data.resolution=64"],
            ["data.resolution=64: the generator makes images of 32x32 px"],
        ),
        (
            ["run=RUN", "real=nowhere", "data.channels=4"],
            ["data.channels=4: the generator makes images of 32x32 px with 3 channels; leave it out"],
        ),
        (["run=RUN", "real=FOLDERS/noise", "references=9"], ["references=9: is for run= without real=; leave it out"]),
        *(
            (["fake=nowhere", "real=nowhere", setting], [f"{setting}: is for run=; leave it out"])
            for setting in ("checkpoint=best", "seed=3", "data.path=moved")
        ),
        *(
            (["real=nowhere", "save_stats=s.npz", setting], [f"{setting}: is for run= and fake=; leave it out"])
            for setting in ("extra=[cmmd]", "neighbours=0", "references=9", "out=e.json")
        ),
        (["run=RUN", "real=FOLDERS/noise", "data.path=moved"], ["data.path=moved: real=", "noise takes the place"]),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_mistake_gets_one_line(run_dir, folders, arguments, words):
    picture = (folders / "noise" / "0.png").read_bytes()
    for name, content in {
        "mixed/grid": picture,
        "mixed/images/0": picture,
        "broken/0": b"",
        "single/0": picture,
    }.items():
        (folders / name).parent.mkdir(parents=True, exist_ok=True)
        (folders / f"{name}.png").write_bytes(content)
    for name in ("empty", "folder.npz"):
        (folders / name).mkdir(exist_ok=True)
    shutil.make_archive(str(folders / "mixed"), "zip", folders / "mixed")
    np.savez(folders / "fid.npz", mu=np.zeros(12), sigma=np.eye(12))
    np.save(folders / "float.npy", np.zeros((2, 8, 8, 3)))
    given = [a.replace("RUN", str(run_dir)).replace("FOLDERS", str(folders)) for a in arguments]
    default = [] if any(a.startswith("metrics=") for a in given) else ["metrics=pixels"]
    code, _, err = evaluate(*given, *default)
    assert code == 2, err
    (line,) = err.strip().splitlines()
    assert line.startswith("transfergen: ")
    assert all(word in line for word in words), line


def test_missing_best_generator_is_refused(run_dir, tmp_path):
    for name in ("generator.json", "generator.safetensors", "config.yaml"):
        (tmp_path / name).write_bytes((run_dir / name).read_bytes())
    code, _, err = evaluate(f"run={tmp_path}", "checkpoint=best")
    assert code == 2
    assert "evaluation.every_images" in err
