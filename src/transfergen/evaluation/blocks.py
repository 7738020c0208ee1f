"""Blocks of a matrix that has an entry for each pair of samples, and is too large to be held at once."""

BLOCK_ENTRIES = 2**23
"""64 MiB in float64."""


def rows_per_block(columns: int) -> int:
    """How many rows of a matrix a block has."""
    return max(1, BLOCK_ENTRIES // columns)
