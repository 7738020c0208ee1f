import io

import datasets
import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from transfergen.data.huggingface import huggingface


@pytest.fixture(scope="module", autouse=True)
def _own_cache(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path_factory.mktemp("datasets"))
        patch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
        yield


@pytest.fixture
def folder(tmp_path):
    """A function that writes splits {name: number of pictures} of small pictures, whose red value is their index."""

    def make(splits, *, image="picture", label="kind", labelled=True):
        for split, count in splits.items():
            columns = {image: [Image.new("RGB", (6, 4), (i, 7, 9)) for i in range(count)]}
            features = {image: datasets.Image()}
            if labelled:
                columns[label] = [i % 2 for i in range(count)]
                features[label] = datasets.ClassLabel(names=["cat", "dog"])
            columns["text"] = [f"row {i}" for i in range(count)]
            features["text"] = datasets.Value("string")
            table = datasets.Dataset.from_dict(columns, datasets.Features(features))
            table.to_parquet(tmp_path / f"{split}-00000-of-00001.parquet")
        return str(tmp_path)

    return make


def reds(pictures):
    return [pictures.open(i).convert("RGB").getpixel((0, 0))[0] for i in range(len(pictures))]


@pytest.mark.parametrize(("split", "count"), [("train", 20_000), ("test", 2_000)])
def test_shared_cifar10_has_its_pictures_labels_and_classes(cifar10_parquet, split, count):
    pictures = huggingface(str(cifar10_parquet), split)
    assert len(pictures) == count
    assert pictures.classes == (
        "airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"
    )  # fmt: skip
    assert np.bincount(pictures.labels).tolist() == [count // 10] * 10


def test_pixels_and_labels_are_those_of_the_parquet_rows(cifar10_parquet):
    table = pq.read_table(cifar10_parquet / "test-00000-of-00001.parquet")
    pictures = huggingface(str(cifar10_parquet), "test")
    assert pictures.labels.tolist() == table["label"].to_pylist()
    for i in (0, 1, 777, 1999):
        decoded = Image.open(io.BytesIO(table["img"][i].as_py()["bytes"])).convert("RGB")
        np.testing.assert_array_equal(np.asarray(pictures.open(i).convert("RGB")), np.asarray(decoded))


@pytest.mark.parametrize("test_name", ["test", "validation"])
def test_columns_are_found_by_their_type_and_splits_by_their_name(folder, test_name):
    path = folder({"train": 6, test_name: 3})
    train, test = (huggingface(path, split) for split in ("train", "test"))
    assert reds(train) == [0, 1, 2, 3, 4, 5]
    assert reds(test) == [0, 1, 2]
    assert train.labels.tolist() == [0, 1, 0, 1, 0, 1]
    assert train.classes == ("cat", "dog")
    assert train.open(0).size == (6, 4)
    assert "row 2" in test.name(2)
    assert train.identity != test.identity


def test_without_a_test_split_pictures_are_held_out(folder):
    path = folder({"train": 20})
    train, test = (huggingface(path, split, holdout=0.25) for split in ("train", "test"))
    assert (len(train), len(test)) == (15, 5)
    assert sorted(reds(train) + reds(test)) == list(range(20))
    assert [i % 2 for i in reds(test)] == test.labels.tolist()
    assert reds(huggingface(path, "test", holdout=0.25)) == reds(test)


def test_without_labels_there_are_no_classes(folder):
    pictures = huggingface(folder({"train": 4, "test": 2}, labelled=False), "train")
    assert pictures.classes == ()
    assert pictures.labels.tolist() == [0, 0, 0, 0]


def test_columns_can_be_named(folder):
    path = folder({"train": 4, "test": 2}, image="a", label="b")
    pictures = huggingface(path, "train", image_column="a", label_column="b")
    assert reds(pictures) == [0, 1, 2, 3]
    assert pictures.labels.tolist() == [0, 1, 0, 1]


@pytest.mark.parametrize("setting", ["image_column", "label_column"])
def test_column_that_does_not_exist_is_refused_naming_those_that_do(folder, setting):
    path = folder({"train": 4, "test": 2})
    with pytest.raises(ValueError, match=rf"data\.source\.{setting}=colour: .* has the columns picture, kind, text"):
        huggingface(path, "train", **{setting: "colour"})


def test_table_without_a_column_of_images_is_refused(tmp_path):
    datasets.Dataset.from_dict({"text": ["a", "b"]}).to_parquet(tmp_path / "train-00000-of-00001.parquet")
    with pytest.raises(ValueError, match=r"no column holds images; the columns are text"):
        huggingface(str(tmp_path), "train")


@pytest.mark.parametrize(
    ("name", "message"),
    [("nowhere", "there is no such folder"), ("empty", "cannot be loaded as a data set")],
)
def test_path_without_a_data_set_is_refused_in_one_line(tmp_path, name, message):
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match=message) as error:
        huggingface(str(tmp_path / name), "train")
    assert str(error.value).startswith(f"data.path={tmp_path / name}: ")
    assert "\n" not in str(error.value)


def test_name_on_the_hub_without_a_network_is_refused_in_one_line():
    with pytest.raises(ValueError, match=r"data\.path=someone/something: ") as error:
        huggingface("someone/something", "train")
    assert "\n" not in str(error.value)
