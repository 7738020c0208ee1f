"""Checkpoints that are written whole or not at all, each with its SHA-256 beside it and its predecessor kept."""

import errno
import hashlib
import io
import logging
import os
import shutil
from collections.abc import Iterator
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from lightning.fabric.plugins import CheckpointIO
from torch import Tensor

from transfergen.digest import file_sha256
from transfergen.errors import first_line
from transfergen.runs.artefacts import LAST, PREVIOUS, partial, write

log = logging.getLogger(__name__)

FORMAT = 1


class SafeCheckpointIO(CheckpointIO):
    """Writes on the target's own filesystem, and reads nothing that is damaged or holds more than tensors."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any | None = None) -> None:
        """See `save`."""
        save(checkpoint, Path(path))

    def load_checkpoint(
        self, path: Any, map_location: Any | None = None, weights_only: bool | None = None
    ) -> dict[str, Any]:
        """See `load`."""
        return load(Path(path), map_location or "cpu")

    def remove_checkpoint(self, path: Any) -> None:
        """Remove the file and its checksum."""
        for file in (Path(path), _sidecar(Path(path))):
            file.unlink(missing_ok=True)


def save(state: dict[str, Any], path: Path) -> None:
    """Write a checkpoint. The one that `LAST` replaces is kept as `PREVIOUS`.

    At every moment each file's sidecar holds its digest: it names both the old and the new one while the file changes.

    Raises:
        OSError: no space, or no permission; what was there is as it was.
    """
    buffer = io.BytesIO()
    torch.save(state, buffer)
    content = buffer.getbuffer()
    digest = hashlib.sha256(content).hexdigest()
    try:
        with partial(path) as part:
            with part.open("wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            if path.name == LAST:
                _sha256.cache_clear()  # the disk may have damaged the file since it was loaded
                with suppress(ValueError):  # there is none, or it is damaged
                    verify(path)
                    _keep(path, path.with_name(PREVIOUS))
            _replace(part, path, digest)
    except OSError as error:
        if error.errno == errno.ENOSPC:
            again = f"go on with resume={path.parents[1]}" if path.with_name(LAST).exists() else "start again"
            raise OSError(
                f"{path}: no space left for the checkpoint, {len(content):,} bytes are needed; free some and {again}"
            ) from error
        raise


def load(path: Path, device: Any = "cpu", setting: str = "resume") -> dict[str, Any]:
    """The checkpoint, verified and read by the unpickler that builds nothing but tensors and plain containers.

    Args:
        path: of the file.
        device: where its tensors go.
        setting: what asks for the file, which error messages begin with.

    Raises:
        ValueError: there is no such file, or it is damaged, or holds something else.
    """
    verify(path, setting)
    try:
        checkpoint: dict[str, Any] = torch.load(path, map_location=device, weights_only=True)
    except Exception as error:  # pickle.UnpicklingError and what else a hostile or broken file provokes
        raise ValueError(f"{setting}: {path} is damaged or holds more than tensors ({first_line(error)})") from error
    return checkpoint


def verify(path: Path, setting: str = "resume") -> None:
    """Compare a checkpoint with the digest beside it.

    Raises:
        ValueError: there is no such file, or it is not what was written. The message begins with the `setting`.
    """
    if not path.is_file():
        raise ValueError(f"{setting}: there is no {path}")
    known = _digests(path)
    if not known:
        log.warning(f"{path} has no checksum beside it: it cannot be told whether it is damaged")
        return
    file = path.stat()
    found = _sha256(path, file.st_ino, file.st_size, file.st_mtime_ns)
    if found not in known:
        raise ValueError(f"{setting}: {path} is damaged: its SHA-256 is {found}, expected {known[-1]}")


@lru_cache(maxsize=2)
def _sha256(path: Path, *identity: int) -> str:
    """The digest of a file, once for each `identity`: a resumed run first chooses a checkpoint, and then loads it."""
    return file_sha256(path)


def last_good(folder: Path) -> Path | None:
    """The newest checkpoint in a folder that is not damaged; None if there is none yet.

    Raises:
        ValueError: there are checkpoints, and all are damaged.
    """
    candidates = [folder / name for name in (LAST, PREVIOUS) if (folder / name).is_file()]
    problems = []
    for path in candidates:
        try:
            verify(path)
        except ValueError as error:
            log.error(f"{error}; looking for an older one")
            problems.append(str(error))
        else:
            return path
    if problems:
        raise ValueError(f"{problems[0]}; no older one is whole either: start a new run, or bring back a copy")
    return None


def tensors_digest(tensors: Iterator[tuple[str, Tensor]]) -> str:
    """SHA-256 of tensors with their names, in the order given."""
    digest = hashlib.sha256()
    for name, tensor in tensors:
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _keep(path: Path, older: Path) -> None:
    with partial(older) as link:
        link.unlink(missing_ok=True)
        try:
            os.link(path, link)
        except OSError:  # a filesystem without links
            shutil.copy2(path, link)
        _replace(link, older, *_digests(path))


def _replace(part: Path, path: Path, *digests: str) -> None:
    _write_digests(path, [*_digests(path)[-1:], *digests])
    part.replace(path)
    if os.name == "posix":
        folder = os.open(path.parent, os.O_RDONLY)
        os.fsync(folder)
        os.close(folder)
    _write_digests(path, list(digests))


def _sidecar(path: Path) -> Path:
    return path.with_name(f"{path.name}.sha256")


def _digests(path: Path) -> list[str]:
    sidecar = _sidecar(path)
    return [line.split()[0] for line in sidecar.read_text().splitlines() if line.strip()] if sidecar.is_file() else []


def _write_digests(path: Path, digests: list[str]) -> None:
    write(_sidecar(path), "".join(f"{digest}  {path.name}\n" for digest in digests).encode())
