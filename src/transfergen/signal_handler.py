"""Signals that end a command: they are raised as an error, and told in a line."""

import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any, NoReturn

from transfergen.errors import SignalError

SIGNALS = [getattr(signal, name) for name in ("SIGTERM", "SIGINT", "SIGUSR1", "SIGHUP") if hasattr(signal, name)]

PATIENCE = 3.0
"""Seconds that a signal waits for the main thread."""
PARENT = "TRANSFERGEN_PARENT"
"""Environment variable with the process that has started this rank."""

if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=lambda: signal.set_wakeup_fd(-1))  # the signals of a fork are not its parent's


class SignalHandler:
    """Takes the signals that end a command, from `install` to `restore`. A second SIGINT ends the process at once.

    Args:
        raises: the first signal raises SignalError wherever the main thread is; otherwise it is only kept. If the main
            thread waits in C for more than `PATIENCE`, as for a rank that the same signal has ended, and so cannot
            raise, the process ends without it.

    Attributes:
        received: number of the first signal; 0 before.
        previous: the handlers before `install`, by number.
    """

    def __init__(self, *, raises: bool) -> None:
        self.raises, self.received = raises, 0
        self.previous: dict[int, Any] = {}
        self._pipe = self._pipe_before = -1

    def install(self, *more: int) -> None:
        """Handle `SIGNALS` and `more`, but no signal that is ignored, as SIGHUP is under `nohup`.

        SIGINT is taken even then: a shell ignores it for whatever runs in the background.
        """
        if threading.current_thread() is threading.main_thread():  # Python lets no other set handlers
            ignored = {n for n in SIGNALS if n != signal.SIGINT and signal.getsignal(n) is signal.SIG_IGN}
            self.previous = {number: signal.signal(number, self) for number in {*SIGNALS, *more} - ignored}
            if self.raises and os.name == "posix":
                reader, self._pipe = os.pipe()
                os.set_blocking(self._pipe, False)
                threading.Thread(target=self._insist, args=(reader,), daemon=True).start()
            self._pipe_before = signal.set_wakeup_fd(self._pipe, warn_on_full_buffer=False)

    def restore(self) -> None:
        """Put the handlers from before `install` back."""
        if self.previous:
            signal.set_wakeup_fd(self._pipe_before)
        for number, handler in self.previous.items():
            signal.signal(number, handler)
        self.previous = {}
        if self._pipe != -1:
            os.close(self._pipe)
            self._pipe = -1

    def _insist(self, reader: int) -> None:
        """End the process if the main thread does not handle a signal, whose number comes through a pipe, in time."""
        while number := os.read(reader, 1):
            time.sleep(PATIENCE)
            if not self.received and number[0] in self.previous:
                os._exit(_tell(SignalError(number[0])))
        os.close(reader)

    def __call__(self, number: int, frame: FrameType | None) -> None:
        """Handle a signal."""
        if number == signal.SIGINT == self.received:
            os._exit(128 + number)
        if not self.received:
            self.received = number
            if self.raises:
                raise SignalError(number)


@contextmanager
def ended_by_signals() -> Iterator[None]:
    """A context in which a signal ends the process, with a line and the exit code 128 + its number."""
    handler = SignalHandler(raises=True)
    try:
        handler.install()
        yield
    except SignalError as error:
        exit_by_signal(error)
    finally:
        handler.restore()


def exit_by_signal(error: SignalError) -> NoReturn:
    """Print the line and exit. Other ranks than 0 exit silently with 0: any other code would get rank 0 killed."""
    sys.exit(_tell(error))


def _tell(error: SignalError) -> int:
    """Print the line, if this is rank 0. Returns the exit code."""
    if int(os.environ.get("LOCAL_RANK", "0")):
        if error.images_seen is None:
            _end_first_rank()
        return 0
    print(f"transfergen: {error}", file=sys.stderr, flush=True)
    return 128 + error.number


def _end_first_rank() -> None:
    """End rank 0, which would wait for this rank, unless the same signal has ended it by then.

    Before a training begins, the ranks have no other way to tell each other of a signal that came to one of them.
    """
    parent = os.getppid()
    if os.environ.get(PARENT) == str(parent):
        time.sleep(2 * PATIENCE)
        if os.getppid() == parent:
            os.kill(parent, signal.SIGTERM)
