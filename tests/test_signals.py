"""Signals and lost processes, as real processes meet them."""

import os
import select
import signal
import threading
import time
from pathlib import Path

import pytest
import torch
from forks import start_python
from runs import ANY_MODEL, ROOT, SMALL_MODELS

SMALL = [*ANY_MODEL, *SMALL_MODELS["dcgan"], "trainer.max_epochs=100000", "evaluation.count=16"]


def children(pid):
    """Processes whose parent is `pid`, and theirs."""
    try:
        found = [int(c) for file in Path(f"/proc/{pid}/task").glob("*/children") for c in file.read_text().split()]
    except FileNotFoundError:
        return []
    return found + [grandchild for child in found for grandchild in children(child)]


def alive(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


class Running:
    """A training in a session of its own."""

    def __init__(self, run_dir, *overrides, start=(str(ROOT / "train.py"),), terminal=None):
        self.run_dir = run_dir
        self.stderr = run_dir.with_name(f"{run_dir.name}.stderr")
        streams = {"stderr": str(self.stderr)} if terminal is None else {"stdout": terminal, "stderr": terminal}
        self.process = start_python(*start, f"hydra.run.dir={run_dir}", *SMALL, *overrides, **streams)

    def wait_for(self, condition):
        deadline = time.monotonic() + 300  # on a busy machine the imports of two ranks take minutes
        while not condition():
            assert self.process.exitcode is None, self.stderr.exists() and self.stderr.read_text()
            assert time.monotonic() < deadline
            time.sleep(0.01)
        return self

    def wait_for_steps(self):
        """Wait until the first curve is written."""
        return self.wait_for(lambda: any(f.stat().st_size > 500 for f in self.run_dir.glob("csv/*/metrics.csv")))

    def end(self, timeout=60):
        """Wait for the end: exit code and stderr. No process may be left behind."""
        family = children(self.process.pid)
        self.process.join(timeout)
        deadline = time.monotonic() + 10
        while any(map(alive, family)):
            assert time.monotonic() < deadline, "a process is left behind"
            time.sleep(0.1)
        return self.process.exitcode, self.stderr.exists() and self.stderr.read_text()

    def images_saved(self):
        saved = torch.load(self.run_dir / "checkpoints" / "last.ckpt", weights_only=True)
        return saved["transfergen"]["images_seen"]


@pytest.mark.parametrize(("name", "devices"), [("SIGTERM", 1), ("SIGINT", 2)])
def test_signal_saves_the_step_that_it_came_in_and_ends_with_its_code(tmp_path, name, devices):
    number = getattr(signal, name)
    running = Running(tmp_path, f"trainer.devices={devices}").wait_for_steps()
    if number == signal.SIGINT:
        os.killpg(running.process.pid, number)  # a terminal sends it to all
    else:
        os.kill(running.process.pid, number)
    code, err = running.end()
    assert code == 128 + number, err
    saved = running.images_saved()
    assert err.splitlines()[-1] == f"transfergen: {name}: saved after {saved:,} images; resume={tmp_path} goes on"
    assert "Traceback" not in err
    assert saved % 8 == 0
    curve = next(tmp_path.glob("csv/*/metrics.csv")).read_text().splitlines()
    assert saved - max(int(row.split(",")[curve[0].split(",").index("step")]) for row in curve[1:]) in (0, 8)


def test_a_closed_terminal_ends_a_training_with_a_checkpoint(tmp_path):
    """It sends SIGHUP and takes no more output, of which the progress bar has much."""
    screen, terminal = os.openpty()
    running = Running(tmp_path, terminal=os.ttyname(terminal))
    reader = threading.Thread(target=read_all, args=(screen, stop := threading.Event()))
    reader.start()
    running.wait_for_steps()
    os.close(terminal)
    stop.set()
    reader.join()
    os.close(screen)
    code, _ = running.end()
    assert code == 128 + signal.SIGHUP
    assert running.images_saved() % 8 == 0


def read_all(screen, stop):
    """Read what comes until `stop` is set; a program waits for a terminal that nobody reads."""
    while not stop.is_set():
        if select.select([screen], [], [], 0.1)[0]:
            os.read(screen, 65536)


@pytest.mark.parametrize("name", ["SIGTERM", "SIGKILL"])
def test_no_process_is_left_of_a_training_that_ends_when_its_second_rank_has_just_begun(tmp_path, name):
    running = Running(tmp_path, "trainer.devices=2")
    running.wait_for(lambda: children(running.process.pid))
    number = getattr(signal, name)
    os.kill(running.process.pid, number)
    code, err = running.end()
    assert code == (-number if name == "SIGKILL" else 128 + number)
    assert name == "SIGKILL" or "transfergen: SIGTERM: ended before all was done\n" in err


def handles_sigterm(pid):
    """Whether a process is rank 1 and has set a handler of SIGTERM."""
    try:
        caught = next(line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if "SigCgt" in line)
        is_second = b"LOCAL_RANK=1" in Path(f"/proc/{pid}/environ").read_bytes()
    except OSError:
        return False
    return is_second and bool(int(caught.split()[1], 16) >> (signal.SIGTERM - 1) & 1)


def test_a_signal_to_the_second_rank_alone_ends_a_training_that_has_not_begun(tmp_path):
    """Rank 0 would wait for it for half an hour."""
    running = Running(tmp_path, "trainer.devices=2")
    running.wait_for(lambda: any(map(handles_sigterm, children(running.process.pid))))
    os.kill(next(filter(handles_sigterm, children(running.process.pid))), signal.SIGTERM)
    code, err = running.end()
    assert code == 128 + signal.SIGTERM
    assert "transfergen: SIGTERM: ended before all was done\n" in err


def test_a_rank_that_is_killed_ends_the_whole_run(tmp_path):
    """Lightning starts rank 1 from sys.argv, which differs between `python -m` and a script such as train.py."""
    start = ["-m", "transfergen", "train"]
    running = Running(tmp_path / "run", "trainer.devices=2", start=start).wait_for_steps()
    assert [entry.name for entry in tmp_path.iterdir() if entry.is_dir()] == ["run"]
    other = [pid for pid in children(running.process.pid) if alive(pid)]
    os.kill(other[0], signal.SIGKILL)
    code, err = running.end(timeout=60)
    assert code in (4, -signal.SIGKILL)  # the lost connection, or Lightning's own watch over its processes
    assert code != 4 or "another process of this run has ended" in err
