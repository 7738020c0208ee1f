"""A folder of pictures of any size and colour mode."""

import os
from collections import Counter
from collections.abc import Container, Iterator
from pathlib import Path

import numpy as np

from transfergen.data.formats import SUFFIXES, file_digest, files_digest, open_image
from transfergen.data.pictures import Pictures, Split, hold_out

_TEST_NAMES = ("test", "val", "valid", "validation")
_SPLIT_NAMES = {"train", *_TEST_NAMES}
_RUN_FILES = {".hydra", "multirun.yaml"}
"""What Hydra leaves in the folder of a run or of a sweep."""


def image_folder(path: str, split: Split, *, holdout: float = 0.1) -> Pictures:
    """A split of the pictures in a folder. Its subfolders are the classes; without subfolders there are no classes.

    Args:
        path: the folder. If its pictures are in folders `train` and `test` (or `val`, `valid`, `validation`; upper and
            lower case do not matter) and nowhere else, these are the splits. They are so, too, if all are in `train`.
        split: train or test.
        holdout: otherwise, the fraction of the pictures that is the test split.

    Raises:
        ValueError: there is no such folder, there is no picture in it, or its subfolders cannot be taken as classes.
    """
    root = Path(path).expanduser().resolve()
    if not root.is_dir():
        what = "a file is no folder; unpack an archive first" if root.is_file() else "there is no such folder"
        raise ValueError(f"data.path={path}: {what}")
    files, left_out = list_pictures(root)
    kinds = ", ".join(f"{count:,} {kind}" for kind, count in left_out.most_common())
    notes = [f"data.path={path}: left out are {kinds}"] if kinds else []
    if not files:
        raise ValueError("; ".join([f"data.path={path}: no picture in it or in its subfolders", *notes]))
    counts = Counter(_parts_below(root, files))
    splits = {name.lower(): name for name in counts}
    if "train" not in splits or not splits.keys() <= _SPLIT_NAMES or len(splits) < len(counts):
        notes.append(f"data.path={path}: read as {len(counts.keys() - {''})} class folders, a part of them for tests")
        if named := sorted(name for name in counts if name.lower() in _SPLIT_NAMES):
            notes[-1] += f"; {', '.join(named)} would be splits if a folder train, and only these, held pictures"
        return hold_out(_label(root, files, notes), split, holdout)
    splits = {name.lower(): name for name in _empty_folders(root, counts)} | splits
    tests = [splits[name] for name in _TEST_NAMES if name in splits]
    told = f"{splits['train']} for training and {tests[0] if tests else 'a part of it'} for tests"
    notes.append(f"data.path={path}: read as splits, {told}")
    notes += [f"data.path={path}: the {counts[name]:,} pictures in {name} are not used" for name in tests[1:]]

    def of_folder(name: str, classes: tuple[str, ...] | None = None) -> Pictures:
        prefix = f"{root / name}{os.sep}"
        return _label(root / name, [file for file in files if file.startswith(prefix)], notes, classes)

    train = of_folder(splits["train"])
    if not tests:
        return hold_out(train, split, holdout)
    return train if split == "train" else of_folder(tests[0], train.classes)


def list_pictures(root: Path) -> tuple[list[str], Counter[str]]:
    """The pictures in a folder and in its subfolders, sorted, and how many other files of each kind there are.

    Hidden files are passed over, and so are the folders of runs, whose pictures are samples. Links are followed, but
    each folder is read once.
    """
    files: list[Path] = []
    left_out: Counter[str] = Counter()
    seen: set[tuple[int, int]] = set()

    def fail(error: OSError) -> None:
        raise error

    for folder, folders, names in os.walk(root, onerror=fail, followlinks=True):
        status = Path(folder).stat()
        identity = status.st_dev, status.st_ino
        is_run = folder != str(root) and not _RUN_FILES.isdisjoint([*folders, *names])
        if identity in seen or is_run:
            left_out["folders of runs" if is_run else "links to folders that are read already"] += 1
            folders.clear()
            continue
        seen.add(identity)
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for file in (Path(folder, name) for name in names if not name.startswith(".")):
            suffix = file.suffix.lower()
            if suffix not in SUFFIXES:
                left_out[suffix or "files without a suffix"] += 1
            elif file.is_file():
                files.append(file)
            else:
                left_out[f"{suffix} that are no files"] += 1
    return [str(file) for file in sorted(files)], left_out


def _label(root: Path, files: list[str], notes: list[str], known: tuple[str, ...] | None = None) -> Pictures:
    """The pictures `files` below `root`, with `known` as their classes, or else with its subfolders."""
    if not files:
        raise ValueError(f"data.path={root}: no picture in it or in its subfolders; remove it, or fill it")
    folders = list(_parts_below(root, files))
    found = tuple(sorted(set(folders))) if set(folders) != {""} else ()
    if "" in found:
        raise ValueError(f"data.path={root}: {folders.count('')} picture(s) lie beside the class folders; move them")
    if found and (empty := _empty_folders(root, found)):
        raise ValueError(f"data.path={root}: the class folder {empty[0]} holds no picture; remove it, or fill it")
    classes = found if known is None else known
    if unknown := set(found) - set(classes):
        raise ValueError(f"data.path={root}: the training split has no class {min(unknown)}")
    if classes and not found:
        raise ValueError(f"data.path={root}: the training split has class folders, and this has none")
    numbers = {name: number for number, name in enumerate(classes)}

    return Pictures(
        identity=lambda: f"image_folder/{files_digest(files)}",
        open=lambda i: open_image(files[i]),
        name=lambda i: files[i],
        labels=np.array([numbers.get(folder, 0) for folder in folders], np.int64),
        classes=classes,
        digest=lambda i: file_digest(files[i]),
        notes=tuple(notes),
    )


def _parts_below(root: Path, files: list[str]) -> Iterator[str]:
    """The subfolder of `root` that each file is in; "" for a file in `root` itself."""
    start = len(str(root).rstrip(os.sep)) + 1
    return (file[start:].partition(os.sep)[0] if os.sep in file[start:] else "" for file in files)


def _empty_folders(root: Path, full: Container[str]) -> list[str]:
    """The subfolders of `root` that are not in `full`, without hidden ones and those that runs were written to."""
    with os.scandir(root) as entries:
        names = sorted(e.name for e in entries if e.name not in full and not e.name.startswith(".") and e.is_dir())
    return [
        name for name in names if not any(_RUN_FILES & {*folders, *files} for _, folders, files in os.walk(root / name))
    ]
