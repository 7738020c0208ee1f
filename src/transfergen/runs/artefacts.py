"""The files of a run directory: their names, and how a file is written whole or not at all."""

import glob
import io
import json
import os
import platform
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from PIL import Image

from filelock import FileLock, Timeout

CONFIG = "config.yaml"
"""The config with every interpolation resolved."""
COMPOSED = ".composed.yaml"
"""The config, which of its keys refer to others, and the model and experiment that were chosen: what a resumed run
starts from."""
SPLITS = "splits.json"
"""Where the data were, and a digest of each split."""
OVERRIDES, RESUMED_OVERRIDES = ".hydra/overrides.yaml", ".hydra/resumed/overrides.yaml"
"""The command line that began the run, and the one that last resumed it."""

CHECKPOINTS, LAST, PREVIOUS = "checkpoints", "last.ckpt", "previous.ckpt"
LAST_CHECKPOINT, BEST_CHECKPOINT = f"{CHECKPOINTS}/{LAST}", f"{CHECKPOINTS}/best.ckpt"

GENERATOR_WEIGHTS, GENERATOR_METADATA = "generator.safetensors", "generator.json"
BEST = "best"
"""Folder with the files of the best generator so far, and its metrics."""
SNAPSHOTS = "snapshots"
"""Folder of generators from during the training, each in a folder named by the images seen."""

METRICS = "metrics.json"
"""The metrics at the end of the training."""
EVALUATION, NEIGHBOURS = "evaluation.json", "neighbours.png"
"""The results of `transfergen evaluate`, and its picture of samples beside their nearest training images."""
DISTILLATION = "distillation.json"
CURVES = "csv/version_*/metrics.csv"
"""Scalars over images seen; every resumption begins a new version."""

GRID = "grid.png"
SAMPLES, RECONSTRUCTIONS, INTERPOLATIONS = "samples", "reconstructions", "interpolations"
"""Folders of grids, each named by the images seen when it was made."""
REPORT = "report.html"
LOCK = ".lock"
"""Held by the process that works in a folder; beside it, `.lock.holder` names that process."""

CACHE = "~/.cache/transfergen"
"""Where decoded pictures and features are kept, unless `data.cache_dir` says otherwise."""

TRIAL, SWEEP, SWEEP_PLOT = "trial.json", "sweep.json", "sweep.png"
"""The outcome of one trial of a sweep, in its run directory; and those of all, in the sweep's."""

_OF_A_TRAINING = (
    *(CONFIG, COMPOSED, CHECKPOINTS, GENERATOR_WEIGHTS, GENERATOR_METADATA, BEST, SNAPSHOTS),
    *(METRICS, EVALUATION, NEIGHBOURS, SPLITS, DISTILLATION, GRID, SAMPLES, RECONSTRUCTIONS, INTERPOLATIONS, REPORT),
    *("csv", "tensorboard", "wandb", "mlflow", "mlflow.db"),
    ".hydra/resumed",
)


def check_folder(folder: Path, override: str) -> None:
    """Check that there is a folder.

    Raises:
        ValueError: there is none. The message names the `override`.
    """
    if not folder.is_dir():
        raise ValueError(f"{override}={folder}: there is no such folder")


def is_run(folder: Path) -> bool:
    """Whether a training has begun in a folder."""
    return any((folder / name).exists() for name in (CONFIG, COMPOSED, CHECKPOINTS))


def remove_run(folder: Path) -> None:
    """Remove what an earlier training left in a folder, so that none of it stays among the files of a new one."""
    for name in _OF_A_TRAINING:
        path = folder / name
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)


def refuse_run(out: Path) -> None:
    """Keep other files than a run's own out of its folder, and out of those of its generators.

    Raises:
        ValueError: names the setting `out`.
    """
    above = (folder for folder in out.parents if out.relative_to(folder).parts[0] in (BEST, SNAPSHOTS))
    if any(is_run(folder) for folder in (out, *above)):
        raise ValueError(f"out={out}: is the folder of a run, whose files would be overwritten; choose another")


_LARGEST = 64 * 2**20
"""Bytes of the largest file that `read` reads."""


def refuse_links(folder: Path, what: str) -> None:
    """Check that all below a folder is folders and files, so that whoever writes there writes nowhere else.

    Raises:
        ValueError: a link, a pipe or a device is among them. The message begins with `what`.
    """
    for path in folder.rglob("*"):
        if path.is_symlink() or not (path.is_file() or path.is_dir()):
            raise ValueError(
                f"{what}: {path} is a link or no file, through which others would be written to; remove it"
            )


def read(folder: Path, name: str) -> bytes:
    """The content of a file in a folder that may be somebody else's.

    Raises:
        FileNotFoundError: there is none.
        ValueError: it is reached by a link inside the folder, is no file, or is too large.
    """
    path = folder / name
    below = [path, *list(path.parents)[: len(Path(name).parts) - 1]]
    if any(each.is_symlink() for each in below):
        raise ValueError("it is a link")
    if path.exists() and not path.is_file():  # a pipe would be waited for
        raise ValueError("it is no file")
    if path.stat().st_size > _LARGEST:
        raise ValueError(f"it is larger than {_LARGEST:,} bytes")
    return path.read_bytes()


@contextmanager
def partial(path: Path) -> Iterator[Path]:
    """A context with a file to write beside `path`, which then replaces `path`, or is removed after an error.

    Raises:
        OSError: it cannot be written. The message names `path`.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name[:40]}.{os.getpid()}.part")  # a name has 255 bytes at most
    part.unlink(missing_ok=True)  # it may be a link
    try:
        yield part
        if part.exists():  # a checkpoint has put it there itself
            part.replace(path)
    except OSError as error:
        if error.errno is None or error.filename is not None:
            raise
        raise OSError(error.errno, error.strerror, str(path)) from error  # a full disk does not say where
    finally:
        part.unlink(missing_ok=True)


def write(path: Path, content: bytes) -> None:
    """Write a file, whole or not at all; its folder is made."""
    with partial(path) as part:
        part.write_bytes(content)


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write indented JSON, whole or not at all."""
    write(path, (json.dumps(content, indent=2) + "\n").encode())


def write_picture(path: Path, picture: "Image.Image") -> None:
    """Write a PNG, whole or not at all."""
    buffer = io.BytesIO()
    picture.save(buffer, "PNG")
    write(path, buffer.getvalue())


@contextmanager
def claim(path: Path, override: str) -> Iterator[None]:
    """A context in which no other process works in a folder, or on a file that is to be.

    Unfinished files that a killed process has left there are removed.

    Raises:
        ValueError: another process does. The message names it, and the `override`.
    """
    if path.is_dir():
        file, debris = path / LOCK, [*path.glob(".*.part"), *path.glob("*/.*.part")]
    else:
        name = f".{path.name[:40]}"
        file, debris = path.with_name(f"{name}{LOCK}"), [*path.parent.glob(f"{glob.escape(name)}.*.part")]
    lock, holder = FileLock(file, timeout=0), file.with_name(f"{file.name}.holder")
    try:
        lock.acquire()
    except Timeout:
        name = holder.read_text() if holder.is_file() else "another process"
        raise ValueError(f"{override}={path}: {name} works there; wait for its end, or choose another") from None
    try:
        write(holder, f"process {os.getpid()} on {platform.node()}".encode())
        for part in debris:
            part.unlink(missing_ok=True)
        yield
    finally:
        for each in (holder, file):
            each.unlink(missing_ok=True)
        lock.release()
