"""Signals during the steps of a training: the step, a checkpoint, and only then the end."""

import os
import signal

import pytest

from transfergen.errors import SignalError
from transfergen.signal_handler import SIGNALS
from transfergen.training.callbacks.checkpointing import Checkpointing
from transfergen.training.callbacks.interval import IntervalCallback
from transfergen.training.callbacks.signals import Signals
from transfergen.training.callbacks.stop_at_images import StopAtImages

CONFIG = {"_target_": "transfergen.networks.generators.dcgan.DCGAN", "resolution": 32, "width": 4}


class Sends(IntervalCallback):
    """Sends signals to this process, after a step or at the end."""

    def __init__(self, *numbers, every_images=16):
        super().__init__(every_images)
        self.numbers = numbers

    def act(self, trainer, module):
        for number in self.numbers:
            os.kill(os.getpid(), number)


@pytest.fixture(autouse=True)
def _on_one_device(trainer):
    trainer.world_size, trainer.current_epoch, trainer.max_epochs, trainer.is_last_batch = 1, 1, 2, False


@pytest.fixture
def signals(tmp_path):
    """The callback, with a file for its checkpoints; afterwards signals do what they did before."""
    before = [signal.getsignal(number) for number in SIGNALS]
    callback = Signals(Checkpointing(tmp_path, CONFIG, every_images=1_000_000))
    yield callback
    callback.on_exception(None, None, None)
    assert [signal.getsignal(number) for number in SIGNALS] == before


def finish(signals, write):
    with signals.finishing(16):
        write()


@pytest.mark.parametrize("number", SIGNALS, ids=lambda number: number.name)
def test_signal_ends_the_training_once_all_is_saved(fit, signals, tmp_path, number):
    with pytest.raises(SignalError, match=rf"^{number.name}: saved after 16 images; resume={tmp_path} goes on$"):
        fit(Sends(number), signals, images=100)
    assert (tmp_path / "checkpoints" / "last.ckpt").read_text() == "16"


def test_signal_after_the_last_step_waits_until_all_is_written(fit, signals, tmp_path):
    fit(Sends(signal.SIGTERM, every_images=None), signals, images=16)
    written = []
    with pytest.raises(SignalError, match=rf"^SIGTERM: saved after 16 images; resume={tmp_path} goes on$"):
        finish(signals, lambda: written.append("metrics.json"))
    assert written == ["metrics.json"]


@pytest.mark.parametrize("ends_by", ["images", "epochs"])
def test_signal_in_the_last_step_waits_until_all_is_written(fit, trainer, signals, ends_by, tmp_path):
    trainer.is_last_batch = ends_by == "epochs"
    stop = [StopAtImages(16)] if ends_by == "images" else []
    fit(*stop, Sends(signal.SIGTERM), signals, images=16)
    with pytest.raises(SignalError, match=rf"^SIGTERM: saved after 16 images; resume={tmp_path} goes on$"):
        finish(signals, lambda: None)


def test_last_batch_of_an_epoch_that_others_follow_is_not_the_last_step(fit, trainer, signals):
    trainer.is_last_batch, trainer.current_epoch = True, 0
    with pytest.raises(SignalError, match="saved after 16 images"):
        fit(Sends(signal.SIGTERM), signals, images=16)


def test_a_job_whose_time_is_up_ends_as_any_other_once_all_is_written(fit, signals):
    fit(Sends(signal.SIGUSR1, every_images=None), signals, images=16)
    finish(signals, lambda: None)  # raises nothing, so that the script of docs/clusters.md does not queue it again


def test_results_that_cannot_be_written_leave_signals_as_they_were(fit, signals):
    before = [signal.getsignal(number) for number in SIGNALS]
    fit(signals, images=16)
    with pytest.raises(ZeroDivisionError):
        finish(signals, lambda: 1 / 0)
    assert [signal.getsignal(number) for number in SIGNALS] == before


def test_other_signals_change_nothing_once_one_has_come_and_a_second_sigint_ends_at_once(fit, signals, monkeypatch):
    codes = []
    monkeypatch.setattr(os, "_exit", codes.append)
    with pytest.raises(SignalError, match="SIGHUP: saved"):
        fit(Sends(signal.SIGHUP, signal.SIGHUP, signal.SIGTERM, signal.SIGINT), signals, images=100)
    assert codes == []
    second = Signals(signals.files)
    with pytest.raises(SignalError, match="SIGINT: saved"):
        fit(Sends(signal.SIGINT, signal.SIGINT), second, images=200)
    second.on_exception(None, None, None)
    assert codes == [130]


def test_a_cluster_job_is_queued_again_by_its_own_handler_once_all_is_saved(fit, signals, tmp_path):
    queued = []
    before = signal.signal(signal.SIGUSR2, lambda *_: queued.append((tmp_path / "checkpoints" / "last.ckpt").exists()))
    try:
        with pytest.raises(SignalError, match="SIGUSR2: saved"):
            fit(Sends(signal.SIGUSR2), signals, images=100)
        signals.on_exception(None, None, None)
        assert queued == [True]
        last = Signals(signals.files)
        fit(Sends(signal.SIGUSR2, every_images=None), last, images=100)
        finish(last, lambda: None)
    finally:
        signal.signal(signal.SIGUSR2, before)
    assert queued == [True]  # a job that is done is not queued again
