"""A folder of pictures of any size and colour mode."""

import hashlib
from pathlib import Path

import numpy as np
from PIL import Image

from transfergen.data.pictures import Pictures, Split, hold_out

_TEST_NAMES = ("test", "val", "valid", "validation")
SUFFIXES = {".bmp", ".gif", ".jpeg", ".jpg", ".png", ".ppm", ".tif", ".tiff", ".webp"}


def image_folder(path: str, split: Split, *, holdout: float = 0.1) -> Pictures:
    """A split of the pictures in a folder. Its subfolders are the classes; without subfolders there are no classes.

    Args:
        path: the folder. If it holds folders `train` and `test` (or `val`), these are the splits.
        split: train or test.
        holdout: otherwise, the fraction of the pictures that is the test split.

    Raises:
        ValueError: there is no such folder, there is no picture in it, or its subfolders cannot be taken as classes.
    """
    root = Path(path).expanduser()
    if not root.is_dir():
        raise ValueError(f"data.path={path}: there is no such folder")
    test = next((root / name for name in _TEST_NAMES if (root / name).is_dir()), None)
    if (root / "train").is_dir() and test is not None:
        train = _pictures(root / "train")
        return train if split == "train" else _pictures(test, train.classes)
    return hold_out(_pictures(root / "train" if (root / "train").is_dir() else root), split, holdout)


def _pictures(root: Path, known: tuple[str, ...] | None = None) -> Pictures:
    """All pictures below `root`, with `known` as their classes, or else with its subfolders."""
    files = sorted(
        file
        for file in root.rglob("*")
        if file.suffix.lower() in SUFFIXES
        and file.is_file()
        and not any(part.startswith(".") for part in file.relative_to(root).parts)
    )
    if not files:
        raise ValueError(f"data.path={root}: no picture ({', '.join(sorted(SUFFIXES))}) in it or in its subfolders")
    folders = [file.relative_to(root).parts[0] if file.parent != root else "" for file in files]
    found = tuple(sorted(set(folders))) if set(folders) != {""} else ()
    if "" in found:
        raise ValueError(f"data.path={root}: {folders.count('')} picture(s) lie beside the class folders; move them")
    empty = [
        f.name for f in sorted(root.iterdir()) if f.is_dir() and not f.name.startswith(".") and f.name not in found
    ]
    if found and empty:
        raise ValueError(f"data.path={root}: the class folder {empty[0]} holds no picture; remove it, or fill it")
    classes = found if known is None else known
    if not set(found) <= set(classes):
        raise ValueError(f"data.path={root}: the training split has no class {min(set(found) - set(classes))}")
    labels = np.array([classes.index(folder) if classes else 0 for folder in folders], np.int64)
    stats = [(str(file), file.stat().st_size, file.stat().st_mtime_ns) for file in files]
    return Pictures(
        identity=f"image_folder/{root}/{hashlib.sha256(repr(stats).encode()).hexdigest()}",
        open=lambda i: Image.open(files[i]),
        name=lambda i: str(files[i]),
        labels=labels,
        classes=classes,
    )
