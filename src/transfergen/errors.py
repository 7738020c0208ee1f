"""Signals that end a command, raised as an error and told in a line; and how errors, names and counts are shown."""

import os
import shlex
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

SIGNALS = [getattr(signal, name) for name in ("SIGTERM", "SIGINT", "SIGUSR1", "SIGHUP") if hasattr(signal, name)]

PATIENCE = 3.0
"""Seconds that a signal waits for the main thread."""
PARENT = "TRANSFERGEN_PARENT"
"""Environment variable with the process that has started this rank."""

if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=lambda: signal.set_wakeup_fd(-1))  # the signals of a fork are not its parent's


class SignalError(BaseException):
    """A signal ends the command. Like KeyboardInterrupt it is no Exception, so `except Exception` does not catch it.

    Args:
        number: of the signal.
        images_seen: real images at the checkpoint that a training has saved; None: nothing was trained since the last.
        run_dir: the folder of that training.
    """

    def __init__(self, number: int, images_seen: int | None = None, run_dir: Path | None = None) -> None:
        self.number, self.images_seen = number, images_seen
        name = signal.Signals(number).name
        if images_seen is None:
            super().__init__(f"{name}: ended before all was done")
        else:
            super().__init__(f"{name}: saved after {images_seen:,} images; {resume_override(run_dir)} goes on")


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


def resume_override(run_dir: Path | str | None) -> str:
    """The override that goes on with a run, as a shell takes it."""
    return shlex.quote(f"resume={run_dir or 'RUN_DIR'}")


def printable(text: str) -> str:
    """A text in which control characters are spelled out, as file names may hold them; line ends and tabs stay."""
    return "".join(c if c.isprintable() or c in "\n\t" else c.encode("unicode_escape").decode() for c in text)


def counted(count: int, one: str, many: str = "") -> str:
    """A count and its noun, such as "1 picture" and "2,000 pictures"; `many` is the plural if it is not `one` + s."""
    return f"{count:,} {one if count == 1 else many or f'{one}s'}"


def first_line(error: Exception) -> str:
    """The first line of an error's message, short enough for a part of another line; its class if it has none."""
    return (str(error).strip().splitlines() or [""])[0][:200] or type(error).__name__
