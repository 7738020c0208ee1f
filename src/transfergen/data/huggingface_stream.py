"""The stream of a split that `datasets` reads without a copy on the disk."""

import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from typing import Any

from transfergen.data.streaming import Example, Stream
from transfergen.errors import first_line

READERS = 4
"""Files that are read at once."""
_LARGEST = 2**26
"""Bytes after which a chunk ends, for each reader."""
_ON_THE_HUB = re.compile(r"(zip://[^:]*::)?hf://datasets/")


def stream(path: str, split: str, table: Any, image: str, label: str | None, builder: Any) -> Stream:
    """A split, in an order that is the same each time: up to four of its files at once, a few pictures of each in turn.

    Args:
        path: of the data set, for messages.
        split: its name.
        table: a `datasets.IterableDataset`.
        image: the column of pictures.
        label: the column of labels; None: there is none.
        builder: of the data set, which tells its version and its length.
    """
    import datasets

    table = table.select_columns([image, *([label] if label else [])])
    table = table.cast_column(image, datasets.Image(decode=False))
    readers = min(READERS, table.num_shards)

    def read(state: Any, size: int) -> Iterator[tuple[list[Example], Any]]:
        shards = [table.shard(num_shards=readers, index=i) for i in range(readers)]
        for shard, each in zip(shards, state or (), strict=bool(state)):
            shard.load_state_dict(each)
        rows = [iter(shard) for shard in shards]
        with ThreadPoolExecutor(readers) as pool:
            while True:
                try:
                    parts = list(pool.map(lambda each: _take(each, max(1, size // readers), image, label), rows))
                except Exception as error:  # whatever the library and the network raise
                    raise ValueError(
                        f"data.path={path}: reading split {split} stopped ({first_line(error)}); the same command goes "
                        "on from what was read"
                    ) from error
                if not any(parts):
                    return
                yield [example for part in parts for example in part], [shard.state_dict() for shard in shards]

    known = (builder.info.splits or {}).get(split)
    return Stream(
        identity=f"huggingface/{builder.config_id}/{builder.hash}/{split}/{image}/{label}/{readers}",
        name=f"{path}, split {split}",
        count=known and known.num_examples,
        read=read,
    )


def first_label(table: Any, label: str | None) -> list[Any]:
    """The label of the first picture, in a list."""
    return [row[label] for row in islice(table.select_columns([label]), 1)]


def _take(rows: Iterator[Any], count: int, image: str, label: str | None) -> list[Example]:
    """The next examples, at most so many, and about `_LARGEST` bytes."""
    examples: list[Example] = []
    size = 0
    for row in islice(rows, count):
        content = _content(row[image] or {})
        examples.append(Example(content, row[label] if label else None))
        size += len(content)
        if size > _LARGEST:
            break
    return examples


def _content(cell: dict[str, Any]) -> bytes:
    """The bytes of a picture's file; empty where there are none, or its path does not lead to the hub."""
    if cell.get("bytes") is not None:
        return bytes(cell["bytes"])
    if not _ON_THE_HUB.match(cell.get("path") or ""):
        return b""
    import fsspec

    with fsspec.open(cell["path"], "rb") as file:
        return bytes(file.read())
