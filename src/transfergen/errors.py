"""Errors that end a command in their own way."""

import signal


class SignalError(Exception):
    """A training that a signal ended, and that has saved where it was.

    Args:
        number: of the signal.
        images_seen: where it stands.
    """

    def __init__(self, number: int, images_seen: int) -> None:
        self.number = number
        super().__init__(f"{signal.Signals(number).name}: saved after {images_seen:,} images; resume=RUN_DIR goes on")
