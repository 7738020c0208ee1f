"""Standard streams that drop what nobody reads any more, so that a command still finishes its work."""

import errno
import io
import os
import sys
from contextlib import suppress
from typing import Any


class Expendable(io.FileIO):
    """An open file descriptor to write to, where a closed pipe, a full disk or a lost terminal is no error.

    Attributes:
        error: why something was dropped first; None: all was written.
    """

    error: OSError | None = None

    def write(self, content: Any) -> int:
        """Write, or drop, `content`. Returns the number of bytes."""
        try:
            return super().write(content) or len(content)
        except OSError as error:
            self.error = self.error or error
            return len(content)


def open_streams() -> None:
    """Make the process's own stdout and stderr expendable, and open those that it was started without."""
    while (opened := os.open(os.devnull, os.O_RDWR)) <= 2:  # or else the next file would be one of them
        pass
    os.close(opened)
    for name, descriptor in (("stdout", 1), ("stderr", 2)):
        stream = getattr(sys, name)
        if stream is getattr(sys, f"__{name}__"):  # and not what a test or a notebook put there
            with suppress(OSError, AttributeError):
                stream.flush()
            file = io.BufferedWriter(Expendable(descriptor, "w", closefd=False))
            encoding = getattr(stream, "encoding", None)
            lines = stream is None or stream.line_buffering or stream.write_through
            # Text that the encoding does not know is no reason to end either.
            setattr(sys, name, io.TextIOWrapper(file, encoding, errors="backslashreplace", line_buffering=lines))


def check_printed() -> None:
    """Raises OSError if some of stdout was lost, other than to a reader like `head`, which has read what it wanted."""
    sys.stdout.flush()
    error = getattr(getattr(getattr(sys.stdout, "buffer", None), "raw", None), "error", None)
    if error is not None and error.errno != errno.EPIPE:
        raise OSError(f"standard output: {error.strerror}; not all could be printed")
