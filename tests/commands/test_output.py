"""A command outlives its standard output."""

import io
import os
import subprocess
import sys

import pytest
from runs import ANY_MODEL, ROOT, SMALL_MODELS

from transfergen.commands.output import Expendable, check_printed


@pytest.fixture
def closed_pipe():
    """The end for writing of a pipe that nobody reads."""
    reading, writing = os.pipe()
    os.close(reading)
    yield writing
    os.close(writing)


def stream(descriptor):
    return io.TextIOWrapper(io.BufferedWriter(Expendable(descriptor, "w", closefd=False)), encoding="ascii")


def test_what_nobody_reads_is_dropped_and_what_can_be_written_is(closed_pipe, tmp_path, monkeypatch):
    lost = stream(closed_pipe)
    print("lost", file=lost, flush=True)
    monkeypatch.setattr(sys, "stdout", lost)
    check_printed()  # the reader has had enough
    with (tmp_path / "out").open("w") as file:
        kept = stream(file.fileno())
        print("kept", file=kept, flush=True)
        monkeypatch.setattr(sys, "stdout", kept)
        check_printed()
    assert (tmp_path / "out").read_text() == "kept\n"


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="there is no /dev/full")  # noqa: PTH110
def test_command_whose_result_finds_no_space_says_so(monkeypatch):
    with open("/dev/full", "w") as full:  # noqa: PTH123
        monkeypatch.setattr(sys, "stdout", stream(full.fileno()))
        print("result")
        with pytest.raises(OSError, match="standard output: No space left on device; not all could be printed"):
            check_printed()


def test_a_training_outlives_a_lost_stdout_and_stderr(tmp_path, closed_pipe):
    """Its stdout is closed from the start, as under `| head`."""
    arguments = [str(ROOT / "train.py"), f"hydra.run.dir={tmp_path}", *ANY_MODEL, *SMALL_MODELS["dcgan"]]
    arguments += ["max_images=8", "evaluation.every_images=8", "evaluation.count=16"]
    done = subprocess.run(
        ["sh", "-c", 'exec "$@" >&-', "sh", sys.executable, *arguments],
        stderr=closed_pipe,
        check=False,
        timeout=120,
        env=os.environ | {"OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "always"},
    )
    assert done.returncode == 0
    assert (tmp_path / "checkpoints" / "last.ckpt").exists()
    assert (tmp_path / "metrics.json").exists()


def test_text_that_the_encoding_does_not_know_is_no_error():
    arguments = ["-c", "from transfergen.commands.output import open_streams as o; o(); print('größe', '图')"]
    env = os.environ | {"PYTHONIOENCODING": "ascii"}
    done = subprocess.run([sys.executable, *arguments], capture_output=True, text=True, check=True, env=env)
    assert done.stdout == "gr\\xf6\\xdfe \\u56fe\n"
