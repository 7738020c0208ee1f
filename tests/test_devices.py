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


def test_this_machine_has_the_cores_that_torch_may_use():
    assert devices.device_counts()["cpu"] >= 1
    assert list(devices.device_counts()) == ["cuda", "mps", "cpu"]
