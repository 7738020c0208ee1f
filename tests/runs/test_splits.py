"""Warnings of a run whose data are not those that it was begun with."""

import json
from functools import partial

import numpy as np
import pytest
from PIL import Image

from transfergen.data.datamodule import ImageDataModule
from transfergen.data.image_folder import image_folder
from transfergen.runs.splits import record_splits, warn_of_other_splits


def picture(folder, name, seed):
    folder.mkdir(exist_ok=True, parents=True)
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (8, 8, 3), np.uint8)).save(folder / name)


@pytest.fixture
def folder(tmp_path):
    for i in range(20):
        picture(tmp_path / "pictures", f"{i:02}.png", i)
    return tmp_path / "pictures"


def data(folder):
    return ImageDataModule(partial(image_folder, holdout=0.25), path=str(folder))


def test_the_same_pictures_elsewhere_are_the_same_splits(folder, tmp_path, caplog):
    record_splits(tmp_path, data(folder))
    assert json.loads((tmp_path / "splits.json").read_text())["path"] == str(folder)
    warn_of_other_splits(tmp_path, data(folder.rename(tmp_path / "moved")))
    assert caplog.text == ""


def test_another_split_is_warned_of_with_its_numbers(folder, tmp_path, caplog):
    record_splits(tmp_path, data(folder))
    for i in range(20, 40):
        picture(folder, f"{i:02}.png", i)
    warn_of_other_splits(tmp_path, data(folder))
    train, test = (record.getMessage() for record in caplog.records)
    assert "the train split is not the one that the run began with, of 15 pictures then and 30 now" in train
    assert "the test split is not the one that the run began with, of 5 pictures then and 10 now" in test
    assert "metrics are too good if it has pictures that were trained on" in test


@pytest.mark.parametrize(
    "content", [None, "", "[]", '{"splits": {"train": 1}}', '{"splits": {"train": {"pictures": []}}}']
)
def test_a_run_that_does_not_say_is_not_warned_of(folder, tmp_path, caplog, content):
    if content is not None:
        (tmp_path / "splits.json").write_text(content)
    warn_of_other_splits(tmp_path, data(folder))
    assert caplog.text == ""
