import os
from types import SimpleNamespace

import pytest
import torch

from transfergen import devices
from transfergen.devices import choose_device, choose_devices, choose_kind


@pytest.fixture
def machine(monkeypatch):
    """A function that sets how many devices of each kind there are."""

    def has(**counts):
        monkeypatch.setattr(devices, "device_counts", lambda: {"cuda": 0, "mps": 0, "cpu": 4} | counts)

    return has


@pytest.mark.parametrize(
    ("counts", "auto", "gpu"),
    [({"cuda": 2}, "cuda", "cuda"), ({"mps": 1}, "mps", "mps"), ({}, "cpu", None)],
)
def test_auto_is_the_fastest_kind_and_gpu_whichever_there_is(machine, counts, auto, gpu):
    machine(**counts)
    assert choose_kind("auto") == choose_device("auto").type == auto
    assert choose_kind("cpu") == "cpu"
    if gpu:
        assert choose_kind("gpu") == gpu


@pytest.mark.parametrize("name", ["gpu", "cuda", "mps"])
def test_device_that_is_not_there_is_refused(machine, name):
    machine()
    with pytest.raises(ValueError, match=rf"^trainer\.accelerator={name}: this machine has none; choose auto or cpu$"):
        choose_kind(name, setting="trainer.accelerator")


def test_unknown_kind_is_refused_with_those_that_are_known(machine):
    machine()
    with pytest.raises(ValueError, match=r"^device=abacus: choose auto, gpu, cuda, mps, cpu$"):
        choose_device("abacus")


def test_several_gpus_are_numbered_and_the_cpu_is_used_again(machine):
    machine(cuda=2)
    assert choose_devices("cuda", 2) == [torch.device("cuda", 0), torch.device("cuda", 1)]
    assert choose_devices("cpu", 9) == 9 * [torch.device("cpu")]
    with pytest.raises(ValueError, match=r"^devices=3: this machine has 2 of cuda; set devices=2$"):
        choose_devices("cuda", 3)


def test_other_processes_have_the_busy_time_of_the_usable_cores_that_is_not_ours(tmp_path, monkeypatch):
    monkeypatch.setattr(devices, "usable_cores", lambda: {1, 3})
    monkeypatch.setattr(devices, "time", SimpleNamespace(process_time=lambda: 2.5))
    stat, second = tmp_path / "stat", os.sysconf("SC_CLK_TCK")
    assert devices.seconds_of_others(stat) == 0  # no such file
    parts = [4, 1, 2, 9, 8, 0.5, 0.25, 0.25, 3, 3]  # 8 s of work: not idle, not waiting for a disk, no guest's twice
    core = " ".join(str(int(seconds * second)) for seconds in parts)
    stat.write_text("".join(f"{name} {core}\n" for name in ("cpu ", "cpu0", "cpu1", "cpu2", "cpu3")) + "intr 7\n")
    assert devices.seconds_of_others(stat) == pytest.approx(2 * 8 - 2.5)


def test_this_machine_has_the_cores_that_torch_may_use():
    assert devices.device_counts()["cpu"] >= 1
    assert list(devices.device_counts()) == ["cuda", "mps", "cpu"]


def test_float32_is_not_rounded_to_tf32_within_the_context_and_as_before_after_it(tf32):
    with devices.full_float32():
        assert [each.fp32_precision for each in tf32] == ["ieee", "ieee"]
    assert [each.fp32_precision for each in tf32] == ["tf32", "tf32"]
