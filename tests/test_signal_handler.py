"""Signals to a command: a line, and an exit code that names them."""

import os
import signal
import subprocess
import sys
import time

import pytest

from transfergen import signal_handler
from transfergen.errors import SignalError
from transfergen.signal_handler import SIGNALS, SignalHandler, ended_by_signals


@pytest.mark.parametrize("number", SIGNALS, ids=lambda number: number.name)
def test_signal_ends_with_a_line_and_its_code_and_cleans_up(capsys, number):
    before, cleaned_up = signal.getsignal(number), []

    def work():
        try:
            os.kill(os.getpid(), number)
        except Exception as error:  # as around work that may fail
            pytest.fail(f"{error!r} was taken for an error of the work")
        finally:
            cleaned_up.append(True)

    with pytest.raises(SystemExit) as stop, ended_by_signals():
        work()
    assert stop.value.code == 128 + number
    assert capsys.readouterr().err == f"transfergen: {number.name}: ended before all was done\n"
    assert cleaned_up == [True]
    assert signal.getsignal(number) is before


def test_rank_of_another_number_ends_in_silence_and_with_0(capsys, monkeypatch):
    monkeypatch.setenv("LOCAL_RANK", "1")
    with pytest.raises(SystemExit) as stop, ended_by_signals():
        os.kill(os.getpid(), signal.SIGTERM)
    assert stop.value.code == 0
    assert capsys.readouterr().err == ""


def test_second_sigint_ends_at_once_while_a_second_sighup_does_not_disturb(monkeypatch):
    codes = []
    monkeypatch.setattr(os, "_exit", codes.append)
    for number, expected in ((signal.SIGHUP, []), (signal.SIGINT, [130])):
        handler = SignalHandler(raises=True)
        with pytest.raises(SignalError):
            handler(number, None)
        handler(number, None)
        assert codes == expected


WAITS = """
import ctypes, sys
from transfergen import signal_handler
signal_handler.PATIENCE = 0.1
mutex, c = ctypes.create_string_buffer(64), ctypes.CDLL(None)
with signal_handler.ended_by_signals():
    c.pthread_mutex_lock(mutex)
    print("waits", flush=True)
    c.pthread_mutex_lock(mutex)  # for ever, and no signal handler of Python runs meanwhile
"""


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere a mutex is larger")
@pytest.mark.parametrize(("rank", "number"), [(0, signal.SIGINT), (0, signal.SIGTERM), (1, signal.SIGINT)])
def test_signal_ends_a_process_that_waits_in_c_as_for_a_rank_that_has_ended(rank, number):
    streams = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    env = os.environ | {"LOCAL_RANK": str(rank), signal_handler.PARENT: ""}  # a test before may have named this process
    process = subprocess.Popen([sys.executable, "-c", WAITS], env=env, **streams)
    try:
        assert process.stdout.readline() == "waits\n"
        process.send_signal(number)
        _, err = process.communicate(timeout=60)
    finally:
        process.kill()
    told = f"transfergen: {number.name}: ended before all was done\n"
    assert (process.returncode, err) == ((0, "") if rank else (128 + number, told))


def test_signal_to_a_fork_is_not_its_parents(monkeypatch):
    told = []
    monkeypatch.setattr(signal_handler, "PATIENCE", 0.0)
    monkeypatch.setattr(signal_handler, "_tell", told.append)
    parent, (reader, writer) = os.getpid(), os.pipe()
    with ended_by_signals():
        try:
            fork = os.fork()
            if not fork:
                os.write(writer, b"begun")
                time.sleep(60)
        finally:
            if os.getpid() != parent:
                os._exit(0)
        os.read(reader, 1)
        os.kill(fork, signal.SIGTERM)
        os.waitpid(fork, 0)
        time.sleep(0.1)
    assert told == []


def test_a_signal_that_a_training_keeps_until_the_end_of_its_step_has_time(monkeypatch):
    told = []
    monkeypatch.setattr(signal_handler, "PATIENCE", 0.05)
    monkeypatch.setattr(signal_handler, "_tell", told.append)
    with ended_by_signals():
        training = SignalHandler(raises=False)
        training.install()
        os.kill(os.getpid(), signal.SIGTERM)
        training.restore()
        time.sleep(0.15)
    assert (training.received, told) == (signal.SIGTERM, [])


def test_sighup_stays_ignored_under_nohup():
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with ended_by_signals():
            os.kill(os.getpid(), signal.SIGHUP)
    finally:
        signal.signal(signal.SIGHUP, before)
