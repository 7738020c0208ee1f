"""Signals and lost processes, as real processes meet them."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from runs import ANY_MODEL, ROOT, SMALL_MODELS, train

SMALL = [*ANY_MODEL, *SMALL_MODELS["dcgan"], "trainer.max_epochs=100000"]
AFTER = "evaluation.count=16"


def children(pid):
    """Processes whose parent is `pid`, and theirs."""
    found = subprocess.run(["pgrep", "-P", str(pid)], capture_output=True, text=True, check=False).stdout.split()
    return [int(child) for child in found] + [c for child in found for c in children(child)]


def alive(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


class Running:
    """A training in a process of its own, once its first curve is written."""

    def __init__(self, run_dir, *overrides):
        self.run_dir = run_dir
        command = [sys.executable, str(ROOT / "train.py"), f"hydra.run.dir={run_dir}", *SMALL, AFTER, *overrides]
        env = os.environ | {"OMP_NUM_THREADS": "1"}
        self.process = subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True, env=env)

    def wait_for_steps(self):
        deadline = time.monotonic() + 120
        while not [f for f in self.run_dir.glob("csv/*/metrics.csv") if f.stat().st_size > 500]:
            assert self.process.poll() is None, self.process.stderr.read()
            assert time.monotonic() < deadline
            time.sleep(0.1)
        return self

    def end(self, timeout=60):
        """Exit code and what was on stderr; nobody is left behind."""
        family = children(self.process.pid)
        _, err = self.process.communicate(timeout=timeout)
        deadline = time.monotonic() + 10
        while any(map(alive, family)):
            assert time.monotonic() < deadline, "a process is left behind"
            time.sleep(0.1)
        return self.process.returncode, err

    def images_saved(self):
        saved = torch.load(self.run_dir / "checkpoints" / "last.ckpt", weights_only=True)
        return saved["transfergen"]["images_seen"]


@pytest.mark.parametrize("devices", [1, 2])
@pytest.mark.parametrize("name", ["SIGTERM", "SIGINT", "SIGUSR1"])
def test_signal_saves_the_step_that_it_came_in_and_ends_with_its_code(tmp_path, name, devices):
    number = getattr(signal, name)
    running = Running(tmp_path, f"trainer.devices={devices}").wait_for_steps()
    running.process.send_signal(number)
    code, err = running.end()
    assert code == 128 + number, err
    saved = running.images_saved()
    assert f"{name}: saved after {saved:,} images" in err
    assert "Traceback" not in err
    assert saved % 8 == 0
    curve = next(tmp_path.glob("csv/*/metrics.csv")).read_text().splitlines()
    assert saved - max(int(row.split(",")[curve[0].split(",").index("step")]) for row in curve[1:]) in (0, 8)
    if devices == 1:
        more = [f"resume={tmp_path}", f"max_images={saved + 8}"]
        assert train(tmp_path, *more, small=False)[0] == 0


def test_second_sigint_ends_at_once(tmp_path):
    running = Running(tmp_path, "evaluation.every_images=8", "evaluation.count=16").wait_for_steps()
    for _ in range(2):
        running.process.send_signal(signal.SIGINT)
        time.sleep(0.002)
    code, _ = running.end(timeout=30)
    assert code == 130


@pytest.mark.parametrize("wait", [0.5, 3.0])
def test_sigterm_at_the_start_leaves_no_process_behind(tmp_path, wait):
    running = Running(tmp_path, "trainer.devices=2")
    time.sleep(wait)
    running.process.terminate()
    code, _ = running.end()
    assert code in (-signal.SIGTERM, 128 + signal.SIGTERM)


def test_a_rank_that_is_killed_ends_the_whole_run(tmp_path):
    running = Running(tmp_path, "trainer.devices=2").wait_for_steps()
    other = [pid for pid in children(running.process.pid) if alive(pid)]
    os.kill(other[0], signal.SIGKILL)
    code, err = running.end(timeout=60)
    assert code in (4, -signal.SIGKILL)  # the lost connection, or Lightning's own watch over its processes
    assert code != 4 or "another process of this run has ended" in err
