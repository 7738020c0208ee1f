"""Files that are written whole or not at all, through no link; and folders in which one process works at a time."""

import os
import subprocess
import sys
from contextlib import suppress

import pytest
from PIL import Image
from runs import train

from transfergen.runs import artefacts
from transfergen.runs.artefacts import claim, partial, read, refuse_links, write, write_picture

HOLD = "import sys; from pathlib import Path; from transfergen.runs.artefacts import claim\n"
HOLD += "with claim(Path(sys.argv[1]), 'out'): print('held', flush=True); sys.stdin.read()"


def test_file_that_finds_no_space_is_named_and_leaves_what_was_there(tmp_path, small_files):
    path = tmp_path / "new" / "file"
    write(path, b"old")
    with pytest.raises(OSError, match=r"File too large.*new/file"):
        write(path, bytes(100_000))
    assert [file.name for file in path.parent.iterdir()] == ["file"]
    assert path.read_bytes() == b"old"


def test_what_is_written_takes_its_place_unless_an_error_comes_between(tmp_path):
    with suppress(LookupError), partial(tmp_path / "file") as part:
        part.write_text("half")
        raise LookupError
    assert list(tmp_path.iterdir()) == []
    with partial(tmp_path / "file") as part:
        part.write_text("whole")
    assert [file.read_text() for file in tmp_path.iterdir()] == ["whole"]


@pytest.mark.parametrize("name", ["folder", "images.zip"])
def test_a_second_process_is_told_of_the_first_and_removes_none_of_its_files(tmp_path, name):
    path = tmp_path / name
    if name == "folder":
        path.mkdir()
    unfinished = tmp_path / ("folder/.a.1.part" if name == "folder" else ".images.zip.1.part")
    other = subprocess.Popen(
        [sys.executable, "-c", HOLD, path], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert other.stdout.readline() == "held\n"
    unfinished.touch()
    with pytest.raises(ValueError, match=rf"^out={path}: process {other.pid} on .* works there; wait for its end, or"):
        claim(path, "out").__enter__()
    assert unfinished.exists()
    other.kill()
    other.wait()
    with claim(path, "out"):  # of a killed one nothing stays, least of all its claim
        assert not unfinished.exists()
    assert [file.name for file in tmp_path.rglob("*")] == (["folder"] if name == "folder" else [])


def test_a_claim_ends_with_its_context(tmp_path):
    for _ in range(2):
        with claim(tmp_path, "out"):
            assert (tmp_path / ".lock.holder").read_text().startswith(f"process {os.getpid()} on ")
        assert list(tmp_path.iterdir()) == []


@pytest.fixture
def victim(tmp_path):
    """A file outside the run directory; it must stay as it is."""
    file = tmp_path / "victim"
    file.write_text("mine")
    yield file
    assert file.read_text() == "mine"


@pytest.fixture
def run_dir(tmp_path):
    folder = tmp_path / "run"
    folder.mkdir()
    return folder


def test_no_file_of_a_run_is_read_through_a_link_or_waited_for(run_dir, victim, monkeypatch):
    (run_dir / "grid.png").symlink_to(victim)
    (run_dir / "samples").symlink_to(victim.parent)
    os.mkfifo(run_dir / "metrics.json")
    (run_dir / "config.yaml").write_text("seed: 1")
    assert read(run_dir, "config.yaml") == b"seed: 1"
    for name, reason in {"grid.png": "a link", "samples/victim": "a link", "metrics.json": "no file"}.items():
        with pytest.raises(ValueError, match=reason):
            read(run_dir, name)
    with pytest.raises(FileNotFoundError):
        read(run_dir, "evaluation.json")
    monkeypatch.setattr(artefacts, "_LARGEST", 3)
    with pytest.raises(ValueError, match="larger than 3 bytes"):
        read(run_dir, "config.yaml")


def test_a_run_directory_that_is_itself_reached_by_a_link_is_read(run_dir):
    (run_dir / "config.yaml").write_text("seed: 1")
    latest = run_dir.with_name("latest")
    latest.symlink_to(run_dir)
    assert read(latest, "config.yaml") == b"seed: 1"


def test_nothing_is_written_through_a_link(run_dir, victim):
    for name in ("neighbours.png", f".neighbours.png.{os.getpid()}.part"):
        (run_dir / name).symlink_to(victim)
    write_picture(run_dir / "neighbours.png", Image.new("RGB", (2, 2)))
    assert [file.name for file in run_dir.iterdir()] == ["neighbours.png"]
    assert not (run_dir / "neighbours.png").is_symlink()
    assert Image.open(run_dir / "neighbours.png").size == (2, 2)


@pytest.mark.parametrize("name", ["a" * 250, "图" * 80])
def test_a_name_as_long_as_a_disk_takes_is_written(run_dir, name):
    write(run_dir / name, b"x")
    assert (run_dir / name).read_bytes() == b"x"


@pytest.mark.parametrize("name", ["train.log", "samples/000000008.png", ".hydra", "tensorboard"])
def test_a_run_with_links_is_not_resumed(run_dir, victim, name):
    (run_dir / name).parent.mkdir(exist_ok=True)
    (run_dir / name).symlink_to(victim)
    with pytest.raises(ValueError, match=r"^resume=there: .* is a link"):
        refuse_links(run_dir, "resume=there")


@pytest.mark.parametrize("resume", ["{}", "auto", "null"])
def test_nothing_is_written_to_a_run_before_its_links_are_refused(run_dir, victim, resume):
    (run_dir / "train.log").symlink_to(victim)
    (run_dir / ".composed.yaml").touch()
    folder = run_dir if resume in ("auto", "null") else None
    code, _, err = train(folder, f"resume={resume.format(run_dir)}", small=False)
    assert code == 2
    assert "train.log is a link" in err
    assert {file.name for file in run_dir.iterdir()} == {"train.log", ".composed.yaml"}
