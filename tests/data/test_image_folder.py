from pathlib import Path

import pytest
from PIL import Image

from transfergen.data.image_folder import image_folder


@pytest.fixture
def folder(tmp_path):
    """A function that writes small pictures to these paths below a folder, which it returns."""

    def make(*paths):
        for path in paths:
            (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (4, 4), "red").save(tmp_path / path)
        return tmp_path

    return make


def labelled(root, split, **options):
    """The class of each picture by its path below `root`; "" without classes."""
    pictures = image_folder(str(root), split, **options)
    classes = pictures.classes or ("",)
    files = [Path(pictures.name(i)).relative_to(root).as_posix() for i in range(len(pictures))]
    assert len(set(files)) == len(files)
    return {file: classes[label] for file, label in zip(files, pictures.labels, strict=True)}


def test_subfolders_are_classes_with_all_that_is_below_them(folder):
    root = folder("dog/1.png", "dog/deep/2.jpg", "cat/1.png", "cat/2.webp")
    assert labelled(root, "train") | labelled(root, "test") == {
        "dog/1.png": "dog",
        "dog/deep/2.jpg": "dog",
        "cat/1.png": "cat",
        "cat/2.webp": "cat",
    }
    assert image_folder(str(root), "train").classes == ("cat", "dog")


def test_empty_class_folder_is_refused(folder):
    root = folder("dog/1.png", "cat/1.png")
    (root / "bird").mkdir()
    with pytest.raises(ValueError, match="the class folder bird holds no picture; remove it, or fill it"):
        image_folder(str(root), "train")


def test_flat_folder_has_no_classes(folder):
    pictures = image_folder(str(folder("1.png", "2.png", "3.png")), "train")
    assert pictures.classes == ()
    assert not pictures.labels.any()


@pytest.mark.parametrize("name", ["test", "val"])
def test_folders_train_and_test_are_the_splits(folder, name):
    root = folder("train/a/1.png", "train/b/2.png", f"{name}/a/3.png", f"{name}/b/4.png")
    assert labelled(root, "train") == {"train/a/1.png": "a", "train/b/2.png": "b"}
    assert labelled(root, "test") == {f"{name}/a/3.png": "a", f"{name}/b/4.png": "b"}


def test_folder_train_alone_has_its_test_split_held_out(folder):
    root = folder(*(f"train/{name}/{i}.png" for name in "ab" for i in range(5)))
    train, test = (labelled(root, split, holdout=0.3) for split in ("train", "test"))
    assert (len(train), len(test)) == (7, 3)
    assert not train.keys() & test.keys()
    assert set(train.values()) == {"a", "b"}


def test_held_out_pictures_are_always_the_same(folder):
    root = folder(*(f"{i:02}.png" for i in range(40)))
    train, test = (labelled(root, split) for split in ("train", "test"))
    assert (len(train), len(test)) == (36, 4)
    assert not train.keys() & test.keys()
    assert labelled(root, "test") == test


def test_hidden_files_and_files_that_are_no_pictures_are_left_out(folder):
    root = folder("a/1.png", "a/2.PNG", "a/3.jpeg", "a/.hidden.png", ".thumbnails/x.png", "a/.git/y.png")
    for name in ("a/notes.txt", "a/labels.csv", "a/paper.pdf", "a/no_suffix", "readme.md"):
        (root / name).write_text("no picture")
    (root / "a" / "folder.png").mkdir()
    found = labelled(root, "train") | labelled(root, "test")
    assert found == {"a/1.png": "a", "a/2.PNG": "a", "a/3.jpeg": "a"}


def test_folder_below_a_hidden_one_is_read(folder, tmp_path):
    folder(".cache/pictures/1.png", ".cache/pictures/2.png")
    assert len(image_folder(str(tmp_path / ".cache" / "pictures"), "train")) == 1


def test_missing_folder_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"data\.path=.*nowhere: there is no such folder"):
        image_folder(str(tmp_path / "nowhere"), "train")


@pytest.mark.parametrize("split", ["train", "test"])
def test_folder_without_a_picture_is_refused(tmp_path, split):
    (tmp_path / "class").mkdir()
    (tmp_path / "class" / "notes.txt").write_text("no picture")
    with pytest.raises(ValueError, match=r"data\.path=.*: no picture .*in it or in its subfolders"):
        image_folder(str(tmp_path), split)


def test_home_is_expanded(folder, monkeypatch):
    monkeypatch.setenv("HOME", str(folder("pictures/1.png", "pictures/2.png")))
    assert len(image_folder("~/pictures", "train")) == 1


def test_identity_follows_the_state_of_the_files(folder):
    root = folder("1.png", "2.png", "3.png")
    before = image_folder(str(root), "train").identity
    assert image_folder(str(root), "train").identity == before
    Image.new("RGB", (9, 9), "blue").save(root / "2.png")
    assert image_folder(str(root), "train").identity != before


def test_both_splits_give_the_classes_the_same_numbers(folder):
    root = folder("train/a/1.png", "train/b/1.png", "train/c/1.png", "test/b/1.png", "test/c/1.png")
    train, test = image_folder(str(root), "train"), image_folder(str(root), "test")
    assert train.classes == test.classes == ("a", "b", "c")
    assert test.labels.tolist() == [1, 2]


def test_class_that_only_the_test_split_has_is_refused(folder):
    root = folder("train/a/1.png", "test/b/1.png")
    with pytest.raises(ValueError, match="no class b"):
        image_folder(str(root), "test")


def test_pictures_beside_class_folders_are_refused(folder):
    with pytest.raises(ValueError, match="beside the class folders"):
        image_folder(str(folder("a/1.png", "b/1.png", "2.png")), "train")
