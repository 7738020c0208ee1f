import pytest
import torch
from lightning.pytorch.accelerators import AcceleratorRegistry

from transfergen import devices
from transfergen.runs.checkpoint import SafeCheckpointIO
from transfergen.training import trainer
from transfergen.training.trainer import PRECISIONS, Hardware, build_trainer, choose_hardware


@pytest.fixture
def machine(monkeypatch):
    """A function that sets how many devices of each kind there are, and whether a GPU has bfloat16."""

    def has(*, bf16=True, **counts):
        for module in (devices, trainer):
            monkeypatch.setattr(module, "device_counts", lambda: {"cuda": 0, "mps": 0, "cpu": 4} | counts)
        monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: bf16)

    return has


@pytest.mark.parametrize(
    ("has", "asked", "chosen"),
    [
        ({}, {}, Hardware("cpu", 1, 1, "32-true")),
        ({"cuda": 2}, {}, Hardware("cuda", -1, 2, "bf16-mixed")),
        ({"cuda": 1, "bf16": False}, {}, Hardware("cuda", -1, 1, "32-true")),
        ({"mps": 1}, {}, Hardware("mps", -1, 1, "32-true")),
        ({"cuda": 2}, {"accelerator": "cpu", "devices": 2}, Hardware("cpu", 2, 2, "32-true")),
        ({"cuda": 4}, {"devices": [1, 3]}, Hardware("cuda", [1, 3], 2, "bf16-mixed")),
        ({"cuda": 4}, {"devices": "2", "precision": "32-true"}, Hardware("cuda", "2", 2, "32-true")),
    ],
)
def test_hardware_is_what_the_machine_has_unless_it_is_set(machine, has, asked, chosen):
    machine(**has)
    assert choose_hardware(**asked) == chosen


@pytest.mark.parametrize(
    ("asked", "line"),
    [
        (
            {"devices": 5},
            "trainer.devices=5: this machine has 4 CPU devices; set trainer.devices=4, or",
        ),
        ({"devices": [4]}, "trainer.devices=[4]: this machine has 4 CPU devices; set trainer.devices=4"),
        ({"devices": 0}, "trainer.devices=0: at least 1"),
        ({"devices": "all"}, "trainer.devices=all: give a number, a list of indices, or auto"),
        ({"accelerator": "cuda"}, "trainer.accelerator=cuda: this machine has none"),
        ({"precision": "16-mixed"}, "trainer.precision=16-mixed: set bf16-mixed or 32-true"),
    ],
)
def test_hardware_that_is_not_there_is_refused_by_its_override(machine, asked, line):
    machine()
    with pytest.raises(ValueError, match=r"^trainer\.") as error:
        choose_hardware(**asked)
    assert str(error.value).startswith(line)


def test_other_accelerators_of_lightning_are_left_to_it(machine, monkeypatch):
    machine()
    monkeypatch.setattr(AcceleratorRegistry, "available_accelerators", lambda: {"tpu"})
    assert choose_hardware("tpu", 8) == Hardware("tpu", 8, 8, "32-true")


def test_lightning_neither_saves_nor_samples_nor_handles_signals_itself(tmp_path):
    built = build_trainer(run_dir=tmp_path, callbacks=[], accelerator="cpu", max_epochs=3)
    assert isinstance(built.strategy.checkpoint_io, SafeCheckpointIO)
    assert built.checkpoint_callback is None
    assert built.logger is None
    assert built.max_epochs == 3
    assert built._signal_connector.register_signal_handlers() is None


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("has_bf16", [False, True])
def test_a_cpu_that_is_slow_in_bfloat16_is_told_once(tmp_path, monkeypatch, caplog, precision, has_bf16):
    monkeypatch.setattr(trainer, "has_kernels", lambda dtype: dtype != torch.bfloat16 or has_bf16)
    trainer._set_up_process.cache_clear()
    for _ in range(2):
        build_trainer(run_dir=tmp_path, callbacks=[], accelerator="cpu", precision=precision)
    told = [record.getMessage() for record in caplog.records if "bfloat16" in record.getMessage()]
    line = f"trainer.precision={precision}: {trainer.SLOW_BF16}; set trainer.precision=32-true"
    assert told == ([] if has_bf16 or precision.startswith("32") else [line])


@pytest.mark.parametrize(
    ("option", "line"),
    [
        ({"max_time": "1h"}, r"^trainer\.max_time: 1h is no time; give DD:HH:MM:SS"),
        ({"profiler": "none such"}, r"^trainer: .*profiler"),
    ],
)
def test_what_lightning_refuses_names_the_setting(tmp_path, option, line):
    with pytest.raises(ValueError, match=line):
        build_trainer(run_dir=tmp_path, callbacks=[], accelerator="cpu", **option)
