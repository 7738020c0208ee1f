import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

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
    before = image_folder(str(root), "train").identity()
    assert image_folder(str(root), "train").identity() == before
    Image.new("RGB", (9, 9), "blue").save(root / "2.png")
    assert image_folder(str(root), "train").identity() != before


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
    with pytest.raises(ValueError, match=r"1 picture lies beside the class folders; move it$"):
        image_folder(str(folder("a/1.png", "b/1.png", "2.png")), "train")


def test_a_class_called_train_is_a_class_if_others_lie_beside_it(folder):
    root = folder(*(f"{name}/{i}.png" for name in ("cars", "planes", "train") for i in range(4)))
    found = labelled(root, "train") | labelled(root, "test")
    assert sorted(found.values()) == ["cars"] * 4 + ["planes"] * 4 + ["train"] * 4
    assert any("3 class folders" in note and "train would be splits if" in note for note in notes(root))


def test_a_folder_without_subfolders_is_told_to_have_no_classes(folder):
    root = folder("1.png", "2.png")
    assert notes(root) == (f"data.path={root}: read as pictures without classes, a part of them for tests",)


def notes(root, split="train"):
    return image_folder(str(root), split).notes


@pytest.mark.parametrize(("train", "test"), [("train", "Test"), ("Train", "Test"), ("TRAIN", "val")])
def test_splits_are_found_whatever_the_case_and_said(folder, train, test):
    root = folder(f"{train}/a/1.png", f"{train}/b/2.png", f"{test}/a/3.png")
    assert labelled(root, "train") == {f"{train}/a/1.png": "a", f"{train}/b/2.png": "b"}
    assert labelled(root, "test") == {f"{test}/a/3.png": "a"}
    assert notes(root) == (f"data.path={root}: read as splits, {train} for training and {test} for tests",)


def test_folders_without_pictures_beside_the_splits_do_not_matter_and_a_second_test_split_is_told(folder):
    root = folder("train/1.png", "test/2.png", "val/3.png", "val/4.png")
    (root / "annotations").mkdir()
    assert labelled(root, "test") == {"test/2.png": ""}
    assert f"data.path={root}: not used: 2 pictures in val" in notes(root)


def test_an_empty_test_folder_is_no_half_split(folder):
    root = folder("train/1.png", "train/2.png")
    (root / "test").mkdir()
    with pytest.raises(ValueError, match=r"test: no picture in it or in its subfolders; remove it, or fill it"):
        image_folder(str(root), "test")


def test_a_test_split_without_the_class_folders_of_the_training_split_is_refused(folder):
    with pytest.raises(ValueError, match="the training split has class folders, and this has none"):
        image_folder(str(folder("train/a/1.png", "test/2.png")), "test")


def test_linked_folders_are_read_each_once(folder, tmp_path):
    root = folder("pictures/a/1.png", "elsewhere/2.png", "elsewhere/3.png") / "pictures"
    (root / "b").symlink_to(tmp_path / "elsewhere")
    (root / "a" / "loop").symlink_to(root)
    assert labelled(root, "train") | labelled(root, "test") == {"a/1.png": "a", "b/2.png": "b", "b/3.png": "b"}
    assert notes(root)[0] == f"data.path={root}: left out: 1 link to a folder that is read already"


def test_what_pillow_reads_is_read_and_what_is_left_out_is_counted(folder):
    read = ["jfif", "jpe", "jp2", "tga", "pgm", "apng", "avif", "bmp", "qoi"]
    root = folder(*(f"1.{suffix}" for suffix in read))
    for name in ("1.jxl", "2.JXL", "notes.txt", "README"):
        (root / name).write_text("not read")
    os.mkfifo(root / "pipe.png")
    found = labelled(root, "train") | labelled(root, "test")
    assert sorted(found) == sorted(f"1.{suffix}" for suffix in read)
    (note,) = (note for note in notes(root) if "left out" in note)
    assert all(words in note for words in ("2 .jxl", "1 .txt", "1 file without a suffix", "1 .png that is no file"))


def test_a_file_of_another_format_is_no_picture_whatever_its_name(folder, tmp_path):
    """Pillow would hand PostScript to Ghostscript."""
    root = folder("1.png", "2.png")
    Image.new("RGB", (4, 4)).save(tmp_path / "picture.eps")
    for name in ("1.png", "2.png"):
        (root / name).write_bytes((tmp_path / "picture.eps").read_bytes())
    with pytest.raises(OSError, match="cannot identify image file"):
        image_folder(str(root), "train").open(0)


def test_a_png_with_megabytes_of_text_is_a_picture(folder):
    root = folder("1.png", "2.png")
    text = PngInfo()
    text.add_text("history", "edited " * 500_000, zip=True)
    for name in ("1.png", "2.png"):
        Image.new("RGB", (4, 4), "red").save(root / name, pnginfo=text)
    with image_folder(str(root), "train").open(0) as picture:
        assert picture.convert("RGB").getpixel((0, 0)) == (255, 0, 0)


def test_folders_of_runs_are_no_classes(folder):
    root = folder(
        "cat/1.png", "cat/2.png", "dog/3.png", "outputs/2026-01-01/12-00-00/grid.png", "outputs/sweep/plot.png"
    )
    (root / "outputs/2026-01-01/12-00-00/.hydra").mkdir()
    (root / "outputs/sweep/multirun.yaml").touch()
    found = labelled(root, "train") | labelled(root, "test")
    assert set(found.values()) == {"cat", "dog"}
    assert notes(root)[0] == f"data.path={root}: left out: 2 folders of runs"
    (root / "outputs/sweep/plot.png").unlink()
    (root / "outputs/sweep/multirun.yaml").unlink()
    (root / "outputs/sweep").rmdir()
    assert notes(root)[0] == f"data.path={root}: left out: 1 folder of a run"


def test_many_classes_keep_their_numbers(folder):
    root = folder(*(f"train/{i:03}/1.png" for i in range(300)), "test/299/1.png")
    assert image_folder(str(root), "train").labels.tolist() == list(range(300))
    assert image_folder(str(root), "test").labels.tolist() == [299]


def test_identity_is_another_for_another_folder_and_for_other_content_of_the_same_size_and_time(folder, monkeypatch):
    root = folder("a/1.bmp", "a/2.bmp", "b/1.bmp", "b/2.bmp")
    identities = []
    for name in "ab":  # both called `.`
        monkeypatch.chdir(root / name)
        identities.append(image_folder(".", "train").identity())
    file = root / "b" / "1.bmp"
    before = file.stat()
    content = np.full((4, 4, 3), 9, np.uint8)
    for name in ("1.bmp", "2.bmp"):
        Image.fromarray(content).save(root / "b" / name)
        os.utime(root / "b" / name, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert file.stat().st_size == before.st_size
    identities.append(image_folder(".", "train").identity())
    assert len(set(identities)) == 3


def test_pictures_of_phones_name_the_package_that_reads_them_where_it_is_missing(tmp_path, monkeypatch):
    monkeypatch.setattr("transfergen.data.picture_files.SUFFIXES", frozenset({".png"}))
    (tmp_path / "a.HEIC").write_bytes(b"")
    message = r"left out: 1 \.heic \(\.heic needs one more package: pip install 'transfergen\[heif\]'\)"
    with pytest.raises(ValueError, match=message):
        image_folder(str(tmp_path), "train")
