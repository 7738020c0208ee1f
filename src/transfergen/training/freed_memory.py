"""Settings of the C library for the memory that a training step frees."""

import ctypes
import sys

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
"""Numbers of glibc's settings, as in its malloc.h."""


def keep_freed_memory(most: int = 2**31 - 1) -> None:
    """Let the C library keep up to `most` bytes that were freed, instead of giving them back to the system.

    A training step takes memory for its maps, frees it, and takes it again in the next one. What went back to the
    system comes again page by page, each filled with zeros first. Blocks above 32 MiB, the most that glibc allows,
    always go back. Only glibc on Linux has this choice (`man mallopt`); others stay as they are.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt is not None:
        mallopt(M_MMAP_THRESHOLD, 32 * 2**20)
        mallopt(M_TRIM_THRESHOLD, most)
