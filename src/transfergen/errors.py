"""The error of a signal, and how errors, names and counts are shown."""

import shlex
import signal
from pathlib import Path


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
    """The first line of an error's message, short enough for a part of another line; its class if it has none.

    A long one ends with its last whole sentence or, where little would be left, with its last whole word.
    """
    line = (str(error).strip().splitlines() or [""])[0]
    if len(line) > 200:
        sentences, word = (line[:200].rpartition(end)[0] for end in (". ", " "))
        line = sentences if len(sentences) >= 50 else f"{word or line[:200]} ..."
    return line or type(error).__name__
