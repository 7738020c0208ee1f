"""Pictures that can only be read in order, as from a set on the hub: resized into a file as they arrive."""

import io
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from transfergen.data.decoding import Damaged, decode, progress_bar, report
from transfergen.data.formats import bytes_digest, open_image
from transfergen.data.pictures import ByteArray, Fit, Pictures, picture_of
from transfergen.data.pixel_file import Chunk, Record, cache_path, chunk_rows, read_or_write
from transfergen.image_shape import ImageShape


class Example(NamedTuple):
    """One picture of a stream."""

    content: bytes
    """The bytes of its file; empty where the stream has none, which makes it a damaged picture."""
    label: int | str | None


@dataclass(frozen=True)
class Stream:
    """A split that is read in order.

    Attributes:
        identity: a string that no other split has.
        name: for messages.
        count: the number of pictures; None: unknown.
        read: (state, size) gives lists of up to `size` pictures, and with each the state to go on from, which is JSON.
            It starts after the pictures before `state`, or with the first where that is None.
    """

    identity: str
    name: str
    count: int | None
    read: Callable[[Any, int], Iterator[tuple[list[Example], Any]]]


class Filled(NamedTuple):
    """A stream after it was read."""

    pictures: Pictures
    """The pictures that can be read, with their pixels; all have class 0."""
    labels: list[Any]
    """The label of each picture."""


Fill = Callable[[Stream], Filled]
Streamed = Callable[[Fill], Pictures]
"""A split that is read later: a function that takes the reader of streams and returns the pictures."""


def fill(
    stream: Stream,
    *,
    shape: ImageShape,
    fit: Fit,
    cache_dir: Path,
    limit: int | None,
    damaged: Damaged,
    max_damaged: float,
    max_megapixels: float,
) -> Filled:
    """Read a stream once, into a file in `cache_dir`. Later runs read the file, and complete one that was interrupted.

    Args:
        stream: what to read.
        shape: that pictures get.
        limit: the largest number of pictures; None: all.
        fit: see `build_store`, as for the following.
        cache_dir: folder for the file.
        damaged: whether a picture that cannot be read may be skipped.
        max_damaged: the largest fraction that may be.
        max_megapixels: a larger picture counts as damaged.

    Raises:
        ValueError: a picture cannot be read, or more than `max_damaged` of them; or there is none.
        OSError: the disk has no space for the file.
    """
    row = (*shape.size, shape.channels)
    count = min((each for each in (stream.count, limit) if each is not None), default=None)

    def chunks(records: list[Record]) -> Iterator[Chunk]:
        done = sum(record["rows"] for record in records)
        parts = stream.read(records[-1]["state"] if records else None, chunk_rows(row))
        with ThreadPoolExecutor(1) as ahead, progress_bar(f"reading {stream.name}", count, done) as advance:
            decode_part = partial(decode, fit=fit, damaged=damaged, max_megapixels=max_megapixels, advance=advance)
            following = ahead.submit(next, parts, None)
            while (count is None or done < count) and (part := following.result()) is not None:
                following = ahead.submit(next, parts, None)  # is read while this one is decoded
                examples, state = part[0] if count is None else part[0][: count - done], part[1]
                yield Chunk(len(examples), partial(_decode, decode_part, stream.name, done, examples, state))
                done += len(examples)
        if not done:
            raise ValueError(f"{stream.name} has no pictures")

    path = cache_path(cache_dir, stream.identity, row, fit, max_megapixels, limit)
    pixels, records = read_or_write(path, row, chunks, count=count)
    kept = report(records, damaged, max_damaged)
    labels = [label for record in records for label in record["labels"]]
    digests = np.frombuffer(bytes.fromhex("".join(record["digests"] for record in records)), "V16")
    pictures = Pictures(
        identity=lambda: str(path),
        open=lambda i: picture_of(pixels[kept[i]]),
        name=lambda i: f"{stream.name}, picture {kept[i]}",
        labels=np.zeros(len(kept), np.int64),
        pixels=pixels,
        rows=kept,
        digest=lambda i: digests[kept[i]].tobytes(),
    )
    return Filled(pictures, [labels[i] for i in kept])


def _decode(
    decode_part: Callable[[Pictures, ByteArray], Record],
    name: str,
    first: int,
    examples: list[Example],
    state: Any,
    pixels: ByteArray,
) -> Record:
    """Decode a chunk, of which the first picture has the number `first`, and record what its file does not hold."""
    part = Pictures(
        identity=lambda: name,
        open=lambda i: open_image(io.BytesIO(examples[i].content)),
        name=lambda i: f"{name}, picture {first + i}",
        labels=np.zeros(len(examples), np.int64),
    )
    digests = b"".join(bytes_digest(example.content) for example in examples)
    labels = [example.label for example in examples]
    return decode_part(part, pixels) | {"labels": labels, "digests": digests.hex(), "state": state}
