"""A file of decoded pictures, written once and piece by piece: an interrupted writing goes on where it stopped."""

import errno
import hashlib
import io
import json
import logging
import os
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np
from filelock import FileLock, Timeout

from transfergen.data.decoding import OtherSizeError
from transfergen.data.pictures import ByteArray
from transfergen.digest import file_sha256
from transfergen.errors import counted

log = logging.getLogger(__name__)

KEPT_S = 7 * 24 * 3600
"""Seconds after which an unfinished file that nobody has gone on with is removed."""
Record = dict[str, Any]
"""The record of a chunk, for JSON: the result of its `decode`, its number of `rows`, and their `sha256`."""


class Chunk(NamedTuple):
    """Pictures that are decoded together."""

    rows: int
    """N, the number of pictures."""
    decode: Callable[[ByteArray], Record]
    """A function that writes the decoded pictures into pixels (N, H, W, C).

    It raises OtherSizeError if the file cannot be finished, of which nothing is kept then.
    """


def cache_path(cache_dir: Path, *state: object) -> Path:
    """The file for pictures of this identity that are decoded in this way."""
    return cache_dir / f"{hashlib.sha256(repr(state).encode()).hexdigest()[:24]}.npy"


def chunk_rows(row: tuple[int, int, int]) -> int:
    """How many pictures of this shape are decoded together: at most 1,024, and 256 MiB."""
    return min(1024, 2**28 // int(np.prod(row)))


def read_or_write(
    path: Path, row: tuple[int, int, int], chunks: Callable[[list[Record]], Iterator[Chunk]], *, count: int | None
) -> tuple[ByteArray, list[Record]]:
    """Map the pictures in a `.npy` file into memory, and give the record of each chunk; write the file if need be.

    If several processes want the same file at once, one writes it and the others wait. Chunks from an interrupted
    process are kept, once they are compared with their SHA-256.

    Args:
        path: the file, whose name stands for its content.
        row: shape of a picture (H, W, C).
        chunks: records of the chunks that are written -> the chunks that follow.
        count: the largest number of pictures, for which space is set aside first; None: unknown.

    Raises:
        OSError: the disk has no space for the file.
        OtherSizeError: a picture has another shape.
    """
    records = _read_record(path)
    if records is None:
        path.parent.mkdir(parents=True, exist_ok=True)
        _remove_debris(path.parent)
        with FileLock(_lock(path)):
            records = _read_record(path)  # another process may have written it since
            if records is None:
                records = _write(path, row, chunks, count)
    return np.load(path, mmap_mode="r"), records


def _write(
    path: Path, row: tuple[int, int, int], chunks: Callable[[list[Record]], Iterator[Chunk]], count: int | None
) -> list[Record]:
    partial, journal = path.with_suffix(".part"), path.with_suffix(".journal.part")
    size, start = int(np.prod(row)), len(_header((0, *row)))
    records, kept = _finished(partial, journal, start, size)
    done = sum(record["rows"] for record in records)
    if records:
        log.info(f"data.cache_dir={path.parent}: goes on after {counted(done, 'picture')} of an interrupted run")
    else:
        for left in (partial, journal):
            left.unlink(missing_ok=True)  # it might be a link
    try:
        with partial.open("r+b" if records else "x+b") as file, journal.open("ab") as lines:
            lines.truncate(kept)
            if count is not None:
                _reserve(file, start + count * size)
            for chunk in chunks(records):
                end = start + (done + chunk.rows) * size
                _reserve(file, end)
                pixels = np.memmap(file, np.uint8, "r+", start + done * size, (chunk.rows, *row))
                record = chunk.decode(pixels) | {"sha256": hashlib.sha256(pixels.data).hexdigest()}
                pixels.flush()
                lines.write(json.dumps(record).encode() + b"\n")
                lines.flush()
                records.append(record)
                done += chunk.rows
            file.truncate(start + done * size)
            file.seek(0)
            file.write(_header((done, *row)))
            os.fsync(file.fileno())
        temporary = path.with_suffix(".record.part")
        temporary.write_text(json.dumps({"sha256": file_sha256(partial), "chunks": records}))
        temporary.replace(path.with_suffix(".json"))
        partial.replace(path)
        journal.unlink()
    except OtherSizeError:
        records.clear()
        raise
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        needed = f"{count * size / 2**20:,.0f} MiB" if count else f"more than {done * size / 2**20:,.0f} MiB"
        free = shutil.disk_usage(path.parent).free
        raise OSError(
            f"data.cache_dir={path.parent}: the decoded pictures take {needed}, and {free / 2**20:,.0f} MiB are free; "
            "free some, or set another folder" + ("; what is written is kept, to go on from" if done else "")
        ) from error
    finally:
        if not records:
            partial.unlink(missing_ok=True)
            journal.unlink(missing_ok=True)
    return records


def _finished(partial: Path, journal: Path, start: int, size: int) -> tuple[list[Record], int]:
    """The records of the chunks that an interrupted writing has finished, and their length in the journal in bytes.

    A chunk whose pixels are not those that were written does not count, and neither do those after it.
    """
    records: list[Record] = []
    kept = 0
    if partial.is_symlink() or journal.is_symlink():
        return records, kept
    with suppress(OSError, ValueError, LookupError, TypeError), partial.open("rb") as file, journal.open("rb") as lines:
        file.seek(start)
        for line in lines:
            record = json.loads(line)
            if hashlib.sha256(file.read(record["rows"] * size)).hexdigest() != record["sha256"]:
                break
            records.append(record)
            kept += len(line)
    return records, kept


def _header(shape: tuple[int, ...]) -> bytes:
    """The start of a `.npy` file. It has the same length however many pictures there are."""
    buffer = io.BytesIO()
    np.lib.format.write_array_header_1_0(buffer, {"descr": "|u1", "fortran_order": False, "shape": shape})
    return buffer.getvalue()


def _reserve(file: BinaryIO, size: int) -> None:
    """Have the disk set aside a file's space: writing to a mapped page that has none would kill the process."""
    held = file.seek(0, os.SEEK_END)
    if size > held:
        if hasattr(os, "posix_fallocate"):
            os.posix_fallocate(file.fileno(), held, size - held)
        elif shutil.disk_usage(Path(file.name).parent).free < size - held:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def _read_record(path: Path) -> list[Record] | None:
    """The records of a file's chunks; None if there is no such file, or it is not what was written."""
    record_path = path.with_suffix(".json")
    if not path.exists() or path.is_symlink() or record_path.is_symlink():
        return None
    try:
        record = json.loads(record_path.read_text())
        if record["sha256"] == file_sha256(path):
            return list(record["chunks"])
    except (OSError, ValueError, LookupError, TypeError):
        pass
    log.warning(f"data.cache_dir={path.parent}: {path.name} is damaged; the pictures are decoded again")
    return None


def _remove_debris(cache_dir: Path) -> None:
    """Remove what processes that were killed have left, once it is old: files whose lock nobody holds."""
    for partial in cache_dir.glob("[0-9a-f]*.part"):
        with suppress(Timeout, OSError), FileLock(_lock(cache_dir / partial.name.split(".")[0]), timeout=0):
            if time.time() - partial.lstat().st_mtime > KEPT_S:
                partial.unlink(missing_ok=True)


def _lock(path: Path) -> Path:
    return path.with_suffix(".npy.lock")
