"""The command on a folder of pictures: sound, damaged, or too small."""

import json
import shutil

import numpy as np
import pytest
from omegaconf import OmegaConf
from PIL import Image
from runs import called

from transfergen.commands.check import main, preset_hint, preset_warnings


def check(*overrides):
    """The command with small networks, unless an override chooses others: (exit code, stdout, stderr)."""
    return called(main, "model=dcgan", "generator.width=4", *overrides)


@pytest.fixture
def folder(tmp_path):
    rng = np.random.default_rng(0)
    for name in ("cat", "dog"):
        (tmp_path / name).mkdir()
        for i in range(20):
            Image.fromarray(rng.integers(0, 256, (70, 64, 3), np.uint8)).save(tmp_path / name / f"{i}.png")
    return tmp_path


def test_table_shows_what_training_does_with_each_kind_of_picture(folder):
    code, out, err = check(f"data.path={folder}", "data.batch_size=8")
    assert code == 0, err
    for words in ("train: 36 pictures", "test: 4 pictures", "data.fit=crop", "class cat", "all become 64x64 px"):
        assert words in out
    assert "training will use all pictures that can be read" in out


def test_an_archive_is_checked_as_its_folder_is(folder, tmp_path_factory):
    (folder / "cat" / "3.png").write_bytes(b"<html>")
    archive = shutil.make_archive(str(tmp_path_factory.mktemp("packed") / "pictures"), "zip", folder)
    results = []
    for path in (folder, archive):
        code, out, _ = check(f"data.path={path}", "data.batch_size=8", "format=json")
        assert code == 2
        results.append(out.replace(str(path), "PATH"))
    assert results[0] == results[1]
    assert "PATH/cat/3.png" in results[0]


def test_damaged_pictures_are_an_error_unless_they_are_skipped_and_json_names_all(folder):
    for i in range(12):
        (folder / "cat" / f"{i}.png").write_bytes(b"<html>")
    code, out, _ = check(f"data.path={folder}", "data.batch_size=8")
    assert code == 2
    assert "train pictures cannot be read: remove them, or set data.damaged=skip" in out
    assert "more (format=json lists all)" in out
    code, out, _ = check(f"data.path={folder}", "data.batch_size=8", "data.damaged=skip", "format=json")
    assert code == 2
    result = json.loads(out)
    assert sum(len(split["damaged"]) for split in result["splits"].values()) == 12
    assert "a larger part than data.max_damaged=0.01" in result["errors"][0]
    skipping = ["data.batch_size=8", "data.damaged=skip", "data.max_damaged=1", "format=json"]
    code, out, _ = check(f"data.path={folder}", *skipping)
    assert (code, json.loads(out)["errors"]) == (0, [])


def test_too_few_pictures_are_an_error_and_other_sources_are_read(folder):
    code, out, _ = check(f"data.path={folder}")
    assert code == 2
    assert "data.batch_size=128: the training split has 36 pictures; set at most that many" in out
    for name in ("cat", "dog"):
        for picture in sorted((folder / name).iterdir())[1:]:
            picture.unlink()
    code, out, _ = check(f"data.path={folder}", "data.batch_size=2")
    assert code == 2
    assert "data.path, data.max_images: the training split has 1 picture, and a batch needs 2" in out
    code, out, err = check("data=shapes", "data.source.train=20", "data.source.test=5", "data.batch_size=8")
    assert code == 0, err
    code, _, err = check(f"data.path={folder / 'nowhere'}")
    assert (code, err.count("\n")) == (2, 1)
    assert "there is no such folder" in err


def test_check_refuses_what_training_does_for_want_of_test_pictures(folder):
    for i in range(14):
        (folder / "cat" / f"{i}.png").unlink()
        (folder / "dog" / f"{i}.png").unlink()
    code, out, _ = check(f"data.path={folder}", "data.batch_size=8")
    assert code == 2
    assert "error: metrics need 2 test pictures, and there is 1: have more, as by a larger data.source.holdout" in out
    code, out, err = check(f"data.path={folder}", "data.batch_size=8", "data.source.holdout=0.2")
    assert code == 0, err


def test_check_says_how_the_folder_was_read_and_what_is_left_out(folder):
    (folder / "cat" / "notes.txt").write_text("")
    (folder / "cat" / "1.jxl").write_text("")
    code, out, err = check(f"data.path={folder}", "data.batch_size=8", "format=json")
    assert code == 0, err
    left_out, reading = json.loads(out)["notes"]
    assert left_out.endswith(": left out: 1 .jxl, 1 .txt")
    assert reading.endswith(": read as 2 class folders, a part of them for tests")


def test_it_tells_what_a_step_of_the_training_takes_and_what_takes_less(folder):
    step = {}
    for size, devices in {8: "1", 16: "[0]"}.items():
        code, out, err = check(
            f"data.path={folder}", f"data.batch_size={size}", f"trainer.devices={devices}", "format=json"
        )
        assert code == 0, err
        step[size] = json.loads(out)["step"]
    assert step[8]["networks"] == step[16]["networks"]
    assert step[8]["networks"]["generator"]["parameters"] > 1000
    parts = [step[size]["bytes"] for size in (8, 16)]
    assert parts[0]["weights"] + parts[0]["updates"] + parts[0]["activations"] == parts[0]["total"]
    assert parts[0]["weights"] == parts[1]["weights"]
    assert parts[0]["activations"] < parts[1]["activations"]
    assert "optimizer.accumulate=2" in step[8]["less_with"]
    _, out, _ = check(f"data.path={folder}", "data.batch_size=8")
    assert "a step takes about 0." in out
    assert "data.batch_size=4" in out


def test_it_takes_the_settings_of_a_training_without_its_weights_and_refuses_what_that_would(folder):
    preset = ["experiment=quickstart", "objective=hinge", "backbone.weights=nowhere.pth"]
    code, out, err = called(main, *preset, "data.source.train=20", "data.source.test=5")
    assert code == 0, err
    assert "train: 20 pictures" in out
    for setting, line in {
        "encoder=dcgan": "encoder: a GAN has none; set encoder=none",
        f"resume={folder}": f"resume={folder}: this command is for new trainings; leave it out",
        "trainer.devices=99": "trainer.devices=99: this machine has",
        "model=vae optimizer.discriminator.betas=[0,0]": "optimizer.discriminator.betas: a plain VAE has no use for it",
    }.items():
        code, _, err = check(f"data.path={folder}", *setting.split())
        assert (code, err.count("\n")) == (2, 1)
        assert line in err


@pytest.mark.parametrize(
    ("experiment", "pictures", "line"),
    [
        ("large", 60, "experiment=large: is for 20,000 pictures or more, and these are 60; set experiment=few_shot"),
        (
            "small",
            60_000,
            "experiment=small: is for 20,000 pictures or fewer, and these are 60,000; set experiment=large",
        ),
        ("few_shot", 10, "experiment=few_shot: is for 50 pictures or more, and these are 10; have more"),
        ("small", 600, None),
        ("large", 20_000, None),
        ("None", 10, None),
    ],
)
def test_a_preset_for_another_number_of_pictures_is_told(experiment, pictures, line):
    assert preset_warnings(experiment, pictures) == ([line] if line else [])


@pytest.mark.parametrize(
    ("source", "given", "pictures", "line"),
    [
        ("image_folder", ["data.path=x"], 1_000, "experiment=few_shot is the preset for 50 to 1,000 pictures"),
        ("image_folder", ["data.path=x"], 1_001, "experiment=small is the preset for 1,000 to 20,000 pictures"),
        ("image_folder", ["data.path=x"], 20_001, "experiment=large is the preset for 20,000 pictures or more"),
        ("image_folder", ["experiment=large"], 40, None),
        ("image_folder", ["model=dcgan"], 40, None),
        ("cifar10", ["data=cifar10"], 50_000, None),
    ],
)
def test_without_a_model_the_preset_for_as_many_pictures_is_named(source, given, pictures, line):
    config = OmegaConf.create({"data": {"source": {"_target_": f"transfergen.data.{source}.{source}"}}})
    hint = [f"{line}; without it, this is about the default model"] if line else []
    assert preset_hint(config, given, pictures) == hint


def test_the_preset_is_named_where_the_default_model_is_measured(folder):
    small = ["generator.width=4", "discriminator.hidden=8", "backbone.cut=relu1_2", "backbone.taps=[]"]
    code, out, err = called(main, f"data.path={folder}", "data.batch_size=8", "data.resolution=32", *small)
    assert code == 0, err
    assert "\nnote: experiment=few_shot is the preset for 50 to 1,000 pictures; without it, " in out


def test_the_preset_is_that_of_the_command_line(folder):
    code, out, err = check(f"data.path={folder}", "experiment=large", "data.batch_size=8")
    assert code == 0, err
    assert "warning: experiment=large: is for 20,000 pictures or more, and these are 40; set experiment=few_shot" in out


def test_a_folder_is_checked_also_where_the_settings_are_shown():
    code, out, err = check("--cfg", "job")
    assert code == 0, err
    assert "_target_: transfergen.data.image_folder.image_folder" in out
