from types import SimpleNamespace

import pytest
import torch
from runs import ANY_MODEL, SMALL_MODELS, train

from transfergen.training.callbacks import threads
from transfergen.training.callbacks.threads import Threads


@pytest.fixture
def machine(monkeypatch, trainer):
    """Four cores that this process may use, on which torch has three threads, and one rank."""
    machine = SimpleNamespace(now=0.0, others=5.0, threads=3)
    monkeypatch.setattr(threads, "time", SimpleNamespace(perf_counter=lambda: machine.now))
    monkeypatch.setattr(threads, "seconds_of_others", lambda: machine.others)
    monkeypatch.setattr(threads, "usable_cores", lambda: {0, 1, 2, 3})
    monkeypatch.setattr(torch, "get_num_threads", lambda: machine.threads)
    monkeypatch.setattr(torch, "set_num_threads", lambda count: setattr(machine, "threads", count))
    trainer.world_size = 1
    return machine


def followed(machine, trainer, module, callback):
    """Threads after intervals of two seconds in which other processes use that many cores."""
    callback.on_train_start(trainer, module)
    found = []
    for cores in (0.2, 1.0, 2.0, 2.7, 4.0, 4.0, 1.0, 0.0):
        machine.now += 2.0
        machine.others += 2.0 * cores
        callback.on_train_batch_start(trainer, module, None, 0)
        found.append(machine.threads)
    return found


def test_threads_are_as_many_as_the_cores_that_other_processes_leave_free(machine, trainer, module):
    callback = Threads(every_s=2.0)
    assert followed(machine, trainer, module, callback) == [3, 3, 2, 1, 1, 1, 3, 3]
    machine.now, machine.others, before = machine.now + 1.9, machine.others + 8, machine.threads
    callback.on_train_batch_start(trainer, module, None, 0)
    assert machine.threads == before  # it is not yet time


def test_a_number_stays_and_so_do_the_threads_of_several_ranks(machine, trainer, module):
    assert followed(machine, trainer, module, Threads(2)) == [2] * 8
    machine.threads, trainer.world_size = 3, 2
    assert followed(machine, trainer, module, Threads()) == [3] * 8


@pytest.mark.parametrize("lr", [1e-4, 1e30], ids=["finished", "diverged"])
def test_the_number_of_a_run_is_in_its_curves_and_torch_has_its_own_again(tmp_path, lr):
    small = [*ANY_MODEL, *SMALL_MODELS["dcgan"], "max_images=24", "trainer.threads=2", f"optimizer.generator.lr={lr}"]
    code, _, err = train(tmp_path, *small, small=False)
    assert code == (0 if lr < 1 else 3), err
    assert torch.get_num_threads() == 1
    header, *rows = [row.split(",") for row in next(tmp_path.glob("csv/*/metrics.csv")).read_text().splitlines()]
    assert rows[0][header.index("threads")] in ("2", "2.0")
