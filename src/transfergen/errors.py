"""The error that ends a command after a signal."""

import signal


class SignalError(Exception):
    """A signal has ended a training, whose checkpoint is saved.

    Args:
        number: of the signal.
        images_seen: real images at the checkpoint.
    """

    def __init__(self, number: int, images_seen: int) -> None:
        self.number = number
        super().__init__(f"{signal.Signals(number).name}: saved after {images_seen:,} images; resume=RUN_DIR goes on")
