"""Files that are written whole or not at all, and folders in which one process works at a time."""

import os
import resource
import subprocess
import sys

import pytest

from transfergen.runs.artefacts import claim, partial, write

HOLD = "import sys; from pathlib import Path; from transfergen.runs.artefacts import claim\n"
HOLD += "with claim(Path(sys.argv[1]), 'out'): print('held', flush=True); sys.stdin.read()"


@pytest.fixture
def small_files():
    """No file of this process grows beyond 64 KiB, as on a disk that is nearly full."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (65536, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_file_that_finds_no_space_is_named_and_leaves_what_was_there(tmp_path, small_files):
    path = tmp_path / "new" / "file"
    write(path, b"old")
    with pytest.raises(OSError, match=r"File too large.*new/file"):
        write(path, bytes(100_000))
    assert [file.name for file in path.parent.iterdir()] == ["file"]
    assert path.read_bytes() == b"old"


def test_what_is_not_put_in_its_place_is_removed(tmp_path):
    with partial(tmp_path / "file") as part:
        part.write_text("half")
    assert list(tmp_path.iterdir()) == []


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
            assert (tmp_path / ".lock").read_text().startswith(f"process {os.getpid()} on ")
        assert list(tmp_path.iterdir()) == []
