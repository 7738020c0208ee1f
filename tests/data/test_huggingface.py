import io
import os

import datasets
import numpy as np
import pyarrow as pa
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
    assert train.identity() != test.identity()


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


def png(red):
    file = io.BytesIO()
    Image.new("RGB", (6, 4), (red, 7, 9)).save(file, "PNG")
    return file.getvalue()


def written(folder, split, **columns):
    """A parquet file as pandas or pyarrow writes it, without the features of `datasets`."""
    pq.write_table(pa.table(columns), folder / f"{split}.parquet")
    return str(folder)


@pytest.mark.parametrize(
    ("values", "classes", "labels"),
    [
        ([7, 3, 7, 10], ("3", "7", "10"), [1, 0, 1, 2]),
        (["dog", "cat", "ant", "dog"], ("ant", "cat", "dog"), [2, 1, 0, 2]),
    ],
    ids=["numbers", "strings"],
)
def test_numbers_and_strings_are_classes_if_their_column_is_named(tmp_path, values, classes, labels):
    path = written(tmp_path, "train", picture=[png(i) for i in range(4)], **{"fine label": values})
    written(tmp_path, "test", picture=[png(9)], **{"fine label": values[:1]})
    assert huggingface(path, "train").classes == ()
    train, test = (huggingface(path, split, label_column="fine label") for split in ("train", "test"))
    assert (train.classes, train.labels.tolist()) == (classes, labels)
    assert (test.classes, test.labels.tolist()) == (classes, labels[:1])


def test_a_class_that_only_the_test_split_has_and_a_column_of_no_classes_are_refused(tmp_path):
    path = written(tmp_path, "train", picture=[png(0)], kind=["a"], size=[0.5])
    written(tmp_path, "test", picture=[png(0)], kind=["b"], size=[0.5])
    with pytest.raises(
        ValueError, match=r"label_column=kind: the split test has the class b, which the training split"
    ):
        huggingface(path, "test", label_column="kind")
    with pytest.raises(ValueError, match=r"data\.source\.label_column=size: holds .*choose one of whole numbers"):
        huggingface(path, "train", label_column="size")


@pytest.mark.parametrize("column", ["struct", "bytes"])
def test_raw_bytes_of_picture_files_are_pictures(tmp_path, column):
    cells = [{"bytes": png(i), "path": "a.png"} if column == "struct" else png(i) for i in range(4)]
    path = written(tmp_path, "train", **{"id": list(range(4)), "the picture": cells})
    written(tmp_path, "test", **{"id": [0], "the picture": cells[:1]})
    assert reds(huggingface(path, "train")) == [0, 1, 2, 3]
    assert reds(huggingface(path, "train", image_column="the picture")) == [0, 1, 2, 3]


def test_hidden_labels_are_passed_over_and_single_ones_left_out_and_told(tmp_path):
    for split, labels in (("train", [0, 1, -1, 1]), ("validation", [1, 0, 0, 1]), ("test", [-1] * 4)):
        features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=["cat", "dog"])})
        cells = [{"bytes": png(i), "path": None} for i in range(4)]
        table = datasets.Dataset.from_dict({"image": cells, "label": labels}, features)
        table.to_parquet(tmp_path / f"{split}-00000-of-00001.parquet")
    train, test = (huggingface(str(tmp_path), split) for split in ("train", "test"))
    assert (reds(train), train.labels.tolist()) == ([0, 1, 3], [0, 1, 1])
    assert test.labels.tolist() == [1, 0, 0, 1]
    assert "validation" in test.name(0)
    assert any("left out: 1 picture of split train without a class" in note for note in train.notes)
    assert any("split test is passed over, since its classes are hidden" in note for note in train.notes)


@pytest.mark.parametrize("only", ["test", "validation"])
def test_the_only_split_is_trained_on_and_a_part_of_it_held_out(tmp_path, only):
    path = written(tmp_path, only, picture=[png(i) for i in range(10)])
    train, test = (huggingface(path, split, holdout=0.2) for split in ("train", "test"))
    assert sorted(reds(train) + reds(test)) == list(range(10))
    assert len(test) == 2


def test_splits_can_be_named_and_others_are_refused_with_those_that_there_are(tmp_path):
    for split, red in (("test", 1), ("validation", 2)):
        path = written(tmp_path, split, picture=[png(red)] * 3)
    with pytest.raises(
        ValueError, match=r"data\.source\.train_split=train: .* has no such split; choose validation or"
    ):
        huggingface(path, "train")
    names = {"train_split": "validation", "test_split": "test"}
    assert reds(huggingface(path, "train", **names)) == [2] * 3
    assert reds(huggingface(path, "test", **names)) == [1] * 3
    with pytest.raises(ValueError, match=r"data\.source\.test_split=dev: "):
        huggingface(path, "train", train_split="test", test_split="dev")


def test_a_folder_reaches_no_file_outside_it_and_no_address(tmp_path):
    """A path in a cell, a README with an address, and a link; a FIFO beside them does not stop it."""
    (tmp_path / "secret.png").write_bytes(png(99))
    folder = tmp_path / "set"
    folder.mkdir()
    os.mkfifo(folder / "README.md")
    os.mkfifo(folder / "train.fifo.parquet")
    cells = [{"bytes": None, "path": str(tmp_path / "secret.png")}, {"bytes": png(1), "path": None}] * 2
    path = written(folder, "train-x", picture=cells)
    for split in ("train", "test"):  # of each kind one, or both of one: the digests decide
        pictures = huggingface(path, split, holdout=0.5)
        for i in range(2):
            if int(pictures.name(i).rpartition(" ")[2]) % 2:
                assert pictures.open(i).convert("RGB").getpixel((0, 0)) == (1, 7, 9)
            else:
                with pytest.raises(ValueError, match="a path in it is not followed"):
                    pictures.open(i)
    outside = written(tmp_path, "other", picture=[png(5)] * 2)
    (folder / "train-y.parquet").symlink_to(f"{outside}/other.parquet")
    with pytest.raises(ValueError, match="leads out of the folder"):
        huggingface(str(folder), "train")


def test_a_readme_with_addresses_is_not_read(tmp_path, monkeypatch):
    addressed = "---\nconfigs:\n- config_name: default\n  data_files: http://127.0.0.1:9/train.parquet\n---\n"
    (tmp_path / "README.md").write_text(addressed)
    assert len(huggingface(written(tmp_path, "train", picture=[png(i) for i in range(4)]), "train")) == 3


def test_a_changed_file_of_the_same_size_and_time_is_read_anew(tmp_path):
    path = written(tmp_path, "train", picture=[png(1)] * 4)
    file = tmp_path / "train.parquet"
    before = file.stat()
    first = huggingface(path, "train")
    written(tmp_path, "train", picture=[png(2)] * 4)
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert file.stat().st_size == before.st_size
    second = huggingface(path, "train")
    assert (reds(first), reds(second)) == ([1] * 3, [2] * 3)
    assert first.identity() != second.identity()
