"""Zip and tar archives are read as the folders that they hold; those of others do no harm."""

import gzip
import io
import os
import shutil
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from transfergen.data import archives
from transfergen.data.image_folder import image_folder
from transfergen.data.store import build_store
from transfergen.image_shape import ImageShape

SUFFIXES = [".zip", ".tar", ".tar.gz", ".tgz", ".tar.bz2"]


@pytest.fixture
def folder(tmp_path):
    """A function that writes noise pictures to these paths below a folder, which it returns."""
    rng = np.random.default_rng(0)

    def make(*paths):
        root = tmp_path / "folder"
        for path in paths:
            (root / path).parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(rng.integers(0, 256, (8, 8, 3), np.uint8)).save(root / path)
        return root

    return make


def pack(root, suffix, base="."):
    """Pack a folder, or the folder `base` in it, as pictures.SUFFIX beside it."""
    kinds = {".zip": "zip", ".tar": "tar", ".tar.gz": "gztar", ".tgz": "gztar", ".tar.bz2": "bztar"}
    made = shutil.make_archive(str(root.parent / "made"), kinds[suffix], root, base)
    return Path(made).rename(root.parent / f"pictures{suffix}")


def zipped(path, members):
    """A zip of (name, content), compressed."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members:
            archive.writestr(name, content)
    return path


def tarred(path, members):
    """A tar of (name, content); a content of None makes a link to nowhere."""
    with tarfile.open(path, "w:gz" if path.suffix == ".tgz" else "w") as archive:
        for name, content in members:
            member = tarfile.TarInfo(name)
            if content is None:
                member.type, member.linkname = tarfile.SYMTYPE, "nowhere"
            member.size = len(content or b"")
            archive.addfile(member, io.BytesIO(content or b""))
    return path


def png(colour="red", size=8):
    buffer = io.BytesIO()
    Image.new("RGB", (size, size), colour).save(buffer, "PNG")
    return buffer.getvalue()


def colours(pictures):
    found = {}
    for i in range(len(pictures)):
        with pictures.open(i) as picture:
            found[pictures.name(i)] = picture.convert("RGB").getpixel((0, 0))
    return found


def decoded(path, cache, split="train", **options):
    settings = {"shape": ImageShape(3, 32, 32), "fit": "crop", "max_memory_mib": 64, "cache_dir": cache}
    return build_store(image_folder(str(path), split), **settings | options)


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize(
    "paths",
    [
        [f"{name}/{i}.png" for name in ("cat", "dog", "cat-big") for i in range(8)],
        [f"{split}/{name}/{i}.png" for split in ("train", "Val") for name in ("a", "b") for i in range(3)],
        [f"train/a/{i}.png" for i in range(12)],
        [f"{i:02}.webp" for i in range(12)],
    ],
    ids=["classes", "splits", "one split", "flat"],
)
def test_an_archive_has_the_splits_classes_order_and_pixels_of_its_folder(folder, tmp_path, suffix, paths):
    root = folder(*paths, ".hidden/1.png", "runs/1.png")
    (root / "runs/multirun.yaml").touch()
    (root / "notes.txt").write_text("no picture")
    archive = pack(root, suffix)
    for split in ("train", "test"):
        ours, theirs = image_folder(str(archive), split), image_folder(str(root), split)
        assert [ours.name(i) for i in range(len(ours))] == [
            theirs.name(i).replace(str(root), str(archive)) for i in range(len(theirs))
        ]
        assert [ours.digest(i) for i in range(len(ours))] == [theirs.digest(i) for i in range(len(theirs))]
        assert ours.labels.tolist() == theirs.labels.tolist()
        assert ours.classes == theirs.classes
        assert ours.notes == tuple(note.replace(str(root), str(archive)) for note in theirs.notes)
        pixels = [decoded(path, tmp_path / "cache", split).pixels for path in (archive, root)]
        assert np.array_equal(*pixels)


def test_backslashes_in_the_names_of_a_zip_separate_folders(tmp_path):
    members = [(f"{split}\\{name}\\0.png", png()) for split in ("train", "test") for name in ("a", "b")]
    archive = zipped(tmp_path / "pictures.zip", [("train\\", b""), *members])
    for split in ("train", "test"):
        pictures = image_folder(str(archive), split)
        assert pictures.classes == ("a", "b")
        assert list(colours(pictures)) == [f"{archive}/{split}/{name}/0.png" for name in ("a", "b")]


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_folder_that_holds_the_whole_archive_is_no_class_and_is_told(folder, suffix):
    root = folder(*(f"my/pictures/{name}/{i}.png" for name in ("a", "b") for i in range(2)), "__MACOSX/my/1.png")
    (root / "__MACOSX/my/1.png").rename(root / "__MACOSX/my/._1.png")
    pictures = image_folder(str(pack(root, suffix)), "train")
    assert pictures.classes == ("a", "b")
    assert "read as the folder my/pictures in it" in pictures.notes[0]


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_an_empty_class_folder_is_refused_as_in_a_folder(folder, suffix):
    root = folder("a/1.png", "b/1.png")
    (root / "c").mkdir()
    with pytest.raises(ValueError, match="the class folder c holds no picture"):
        image_folder(str(pack(root, suffix)), "train")


@pytest.mark.parametrize("make", [zipped, tarred])
def test_names_are_only_names(tmp_path, monkeypatch, make):
    """An absolute name, or one that leads out of the archive, neither reads nor writes the file of that name."""
    there = tmp_path / "there.png"
    there.write_bytes(png("blue"))
    outside = tmp_path / "inner" / "pictures"
    outside.mkdir(parents=True)
    monkeypatch.chdir(outside)
    path = make(
        tmp_path / f"pictures.{make.__name__[:3]}", [(str(there), png()), (f"../..{tmp_path}/up.png", png("lime"))]
    )
    before = sorted(tmp_path.rglob("*"))
    found = colours(image_folder(str(path), "train")) | colours(image_folder(str(path), "test"))
    assert sorted(found.values()) == [(0, 255, 0), (255, 0, 0)]
    assert all(name.startswith(f"{path}/") and ".." not in name for name in found)
    assert sorted(tmp_path.rglob("*")) == before
    assert there.read_bytes() == png("blue")


@pytest.mark.parametrize("suffix", [".tar", ".tgz"])
def test_what_is_no_file_in_a_tar_is_left_out_and_told(tmp_path, suffix):
    members = [("1.png", png()), ("2.png", png()), ("link.png", None), ("read me", b""), ("2.png", png("blue"))]
    pictures = [image_folder(str(tarred(tmp_path / f"p{suffix}", members)), split) for split in ("train", "test")]
    assert "left out: 1 .png that is no file, 1 file without a suffix" in pictures[0].notes[0]
    found = colours(pictures[0]) | colours(pictures[1])
    assert {Path(name).name: colour for name, colour in found.items()} == {"1.png": (255, 0, 0), "2.png": (0, 0, 255)}


def test_a_link_in_a_zip_is_no_picture(tmp_path):
    link = zipfile.ZipInfo("link.png")
    link.external_attr = 0o120777 << 16
    path = zipped(tmp_path / "pictures.zip", [("1.png", png()), ("2.png", png()), (link, "/etc/passwd")])
    assert "1 .png that is no file" in image_folder(str(path), "train").notes[0]


@pytest.mark.parametrize("suffix", [".zip", ".tar", ".tgz"])
def test_a_damaged_picture_is_named_by_its_archive_and_name_and_can_be_skipped(folder, tmp_path, suffix):
    root = folder(*(f"train/{i}.png" for i in range(4)), "test/1.png")
    (root / "train/2.png").write_bytes(b"<html>")
    path = pack(root, suffix)
    with pytest.raises(ValueError, match=rf"pictures\{suffix}/train/2.png \(cannot identify image file"):
        decoded(path, tmp_path / "cache")
    assert len(decoded(path, tmp_path / "cache", damaged="skip", max_damaged=0.5)) == 3


def test_a_zip_that_was_changed_on_its_way_names_the_picture(folder, tmp_path):
    path = pack(folder("train/1.bmp", "train/2.bmp", "test/1.bmp"), ".zip")
    with zipfile.ZipFile(path) as archive:
        at = archive.getinfo("train/2.bmp").header_offset
    content = bytearray(path.read_bytes())
    content[at + 100] ^= 255
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"pictures\.zip/train/2\.bmp \((Bad CRC-32|Error -3)"):
        decoded(path, tmp_path / "cache")


@pytest.mark.parametrize("suffix", [".zip", ".tar", ".tgz"])
@pytest.mark.parametrize("damage", ["cut", "text", "empty"])
def test_a_broken_archive_is_one_line(folder, suffix, damage):
    path = pack(folder(*(f"{i}.png" for i in range(40))), suffix)
    whole = path.read_bytes()
    path.write_bytes(
        {"cut": whole[: len(whole) // 2 + 100], "text": b"<html>not found</html>" * 99, "empty": b""}[damage]
    )
    with pytest.raises(ValueError, match=rf"^data\.path=.*pictures\{suffix}: cannot be read as an archive \(.+\)$"):
        image_folder(str(path), "train")


@pytest.mark.parametrize("suffix", [".tar", ".tgz"])
def test_a_damaged_header_does_not_end_a_tar_unseen(folder, suffix):
    path = pack(folder(*(f"{i}.png" for i in range(9))), ".tar")
    with tarfile.open(path) as archive:
        at = archive.getmembers()[5].offset
    content = bytearray(path.read_bytes())
    content[at] ^= 1
    path = path.with_suffix(suffix)
    path.write_bytes(gzip.compress(content) if suffix == ".tgz" else content)
    with pytest.raises(ValueError, match=r"cannot be read as an archive \(bad checksum\)"):
        image_folder(str(path), "train")


def test_an_encrypted_zip_is_one_line(tmp_path):
    path = zipped(tmp_path / "pictures.zip", [("1.png", png()), ("2.png", png())])
    content = path.read_bytes()
    at = content.index(b"PK\x01\x02") + 8  # its flags in the index
    path.write_bytes(content[:at] + b"\x01" + content[at + 1 :])
    with pytest.raises(ValueError, match=r"^data\.path=.*pictures\.zip: cannot be read .*\(it is encrypted\)$"):
        image_folder(str(path), "train")


def test_a_file_that_is_no_archive_is_told_from_a_folder_that_does_not_exist(tmp_path):
    (tmp_path / "pictures.rar").write_bytes(b"Rar!")
    with pytest.raises(ValueError, match=r"data\.path=.*\.rar: neither a folder nor an archive \(\.zip, .*unpack it"):
        image_folder(str(tmp_path / "pictures.rar"), "train")


@pytest.mark.parametrize("suffix", [".zip", ".tar", ".tgz"])
def test_a_changed_archive_is_decoded_anew(folder, tmp_path, suffix):
    def pixels():
        return decoded(path, tmp_path / "cache", max_memory_mib=0).pixels.copy()

    root = folder("train/1.bmp", "train/2.bmp", "test/1.bmp")
    path = pack(root, suffix)
    before = pixels()
    assert np.array_equal(before, pixels())
    folder("train/2.bmp")
    pack(root, suffix)
    after = pixels()
    assert np.array_equal(before[0], after[0])
    assert not np.array_equal(before[1], after[1])


@pytest.mark.parametrize(
    ("suffix", "opener"), [(".zip", "zipfile.ZipFile"), (".tar", "tarfile.open"), (".tgz", "tarfile.open")]
)
def test_an_archive_is_opened_once_and_read_by_many_threads_and_by_processes_after_a_fork(
    folder, tmp_path, monkeypatch, suffix, opener
):
    root = folder(*(f"{name}/{i}.png" for name in ("a", "b") for i in range(100)))
    path = pack(root, suffix)
    module, _, name = opener.partition(".")
    opened, original = [], getattr(getattr(archives, module), name)
    monkeypatch.setattr(f"transfergen.data.archives.{opener}", lambda *a, **k: opened.append(a) or original(*a, **k))
    monkeypatch.setattr(os, "cpu_count", lambda: 16)
    splits = [image_folder(str(path), split) for split in ("train", "test")]
    for pictures, split in zip(splits, ("train", "test"), strict=True):
        assert len(pictures) in (180, 20)
        assert np.array_equal(decoded(path, tmp_path, split).pixels, decoded(root, tmp_path, split).pixels)
    assert len(opened) == 1
    monkeypatch.setattr(os, "getpid", lambda: -1)
    colours(splits[0])
    assert len(opened) == 1 + (suffix == ".zip"), "a fork shares the place in a file that zipfile reads from"


@pytest.mark.parametrize("make", [zipped, tarred])
def test_a_picture_that_would_fill_the_memory_is_damaged(tmp_path, monkeypatch, make):
    monkeypatch.setattr(archives, "_LARGEST", 2**20)
    bomb = bytes(2**20 + 1)
    members = [("train/1.png", png()), ("train/2.png", bomb), ("test/1.png", png())]
    path = make(tmp_path / f"pictures.{'zip' if make is zipped else 'tgz'}", members)
    assert path.stat().st_size < 2**15
    with pytest.raises(ValueError, match=r"train/2\.png \(1 MiB, more than 1\)"):
        decoded(path, tmp_path / "cache")


def test_a_compressed_tar_does_not_fill_the_disk(tmp_path, monkeypatch):
    path = tarred(tmp_path / "pictures.tgz", [("1.png", png()), ("2.png", png())])
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(2**40, 2**40, 2**20))
    with pytest.raises(ValueError, match=r"data\.path=.*pictures\.tgz: .*no space for what it unpacks to; set TMPDIR"):
        image_folder(str(path), "train")


def test_endless_names_are_refused(tmp_path):
    path = zipped(tmp_path / "pictures.zip", [("a/" * 30_000 + "1.png", png())])
    with pytest.raises(ValueError, match="a name in it is longer than 4,096 characters"):
        image_folder(str(path), "train")
