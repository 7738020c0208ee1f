"""Signals to a command: a line, and an exit code that names them; and counts in words."""

import os
import signal

import pytest

from transfergen.errors import SIGNALS, SignalError, SignalHandler, counted, ended_by_signals


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


def test_sighup_stays_ignored_under_nohup():
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with ended_by_signals():
            os.kill(os.getpid(), signal.SIGHUP)
    finally:
        signal.signal(signal.SIGHUP, before)


def test_counts_have_their_noun_in_the_singular_or_plural():
    assert [counted(n, "picture") for n in (0, 1, 2_000)] == ["0 pictures", "1 picture", "2,000 pictures"]
    assert [counted(n, "class", "classes") for n in (1, 2)] == ["1 class", "2 classes"]
