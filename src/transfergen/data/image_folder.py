"""A folder, or an archive, of pictures of any size and colour mode."""

from collections import Counter
from pathlib import Path

import numpy as np

from transfergen.data.archives import Archive, find_pictures
from transfergen.data.picture_files import PictureFiles
from transfergen.data.pictures import Pictures, Split, hold_out
from transfergen.errors import counted

_TEST_NAMES = ("test", "val", "valid", "validation")
_SPLIT_NAMES = {"train", *_TEST_NAMES}


def image_folder(path: str, split: Split, *, holdout: float = 0.1) -> Pictures:
    """A split of the pictures in a folder. Its subfolders are the classes; without subfolders there are no classes.

    Args:
        path: the folder, or a zip or tar archive. Folders `train` and `test` (or `val`, `valid`, `validation`; upper
            and lower case do not matter) are the splits if no picture is outside them, also if all are in `train`. A
            single folder around everything in an archive is not taken for a class.
        split: train or test.
        holdout: fraction of the pictures that is the test split, if there is no folder for it.

    Raises:
        ValueError: there is no such folder, there is no picture in it, its subfolders cannot be taken as classes, or an
            archive is broken.
    """
    files = find_pictures("data.path", Path(path).expanduser().resolve())
    top = _outer_folders(files)
    notes = [f"data.path={files.root}: {text}"] if (text := files.left_out_text()) else []
    notes += [f"data.path={files.root}: read as the folder {top[:-1]} in it"] if top else []
    counts = Counter(_parts_below(top, files.names))
    splits = {name.lower(): name for name in counts}
    if "train" not in splits or not splits.keys() <= _SPLIT_NAMES or len(splits) < len(counts):
        folders = len(counts.keys() - {""})
        kind = counted(folders, "class folder") if folders else "pictures without classes"
        notes.append(f"data.path={files.root}: read as {kind}, a part of them for tests")
        if named := sorted(name for name in counts if name.lower() in _SPLIT_NAMES):
            notes[-1] += f"; {', '.join(named)} would be splits if a folder train, and only these, held pictures"
        return hold_out(_label(files, top, notes), split, holdout)
    splits = {name.lower(): name for name in _empty_folders(files, top)} | splits
    tests = [splits[name] for name in _TEST_NAMES if name in splits]
    told = f"{splits['train']} for training and {tests[0] if tests else 'a part of it'} for tests"
    notes.append(f"data.path={files.root}: read as splits, {told}")
    notes += [f"data.path={files.root}: not used: {counted(counts[name], 'picture')} in {name}" for name in tests[1:]]
    train = _label(files, f"{top}{splits['train']}/", notes)
    if not tests:
        return hold_out(train, split, holdout)
    return train if split == "train" else _label(files, f"{top}{tests[0]}/", notes, train.classes)


def _label(files: PictureFiles, above: str, notes: list[str], known: tuple[str, ...] | None = None) -> Pictures:
    """The pictures below a folder, with `known` as their classes, or else with its subfolders."""
    root = Path(files.root, above)
    names = [name for name in files.names if name.startswith(above)]
    if not names:
        raise ValueError(f"data.path={root}: no picture in it or in its subfolders; remove it, or fill it")
    folders = _parts_below(above, names)
    found = tuple(sorted(set(folders))) if set(folders) != {""} else ()
    if "" in found:
        beside = counted(folders.count(""), "picture lies", "pictures lie")
        them = "it" if folders.count("") == 1 else "them"
        raise ValueError(f"data.path={root}: {beside} beside the class folders; move {them}")
    if found and (empty := _empty_folders(files, above)):
        raise ValueError(f"data.path={root}: the class folder {empty[0]} holds no picture; remove it, or fill it")
    classes = found if known is None else known
    if unknown := set(found) - set(classes):
        raise ValueError(f"data.path={root}: the training split has no class {min(unknown)}")
    if classes and not found:
        raise ValueError(f"data.path={root}: the training split has class folders, and this has none")
    numbers = {name: number for number, name in enumerate(classes)}
    labels = np.array([numbers.get(folder, 0) for folder in folders], np.int64)
    return files.pictures(names, "image_folder", labels=labels, classes=classes, notes=tuple(notes))


def _outer_folders(files: PictureFiles) -> str:
    """The folders around everything in an archive: many are made of a folder, and not of what is in it."""
    above = ""
    while isinstance(files, Archive):
        inner = set(_parts_below(above, files.names))
        if len(inner) > 1 or {name.lower() for name in inner} & {"", *_SPLIT_NAMES}:
            break
        above += f"{inner.pop()}/"
    return above


def _parts_below(above: str, names: list[str]) -> list[str]:
    """The subfolder of a folder that each file below it is in; "" for a file in the folder itself."""
    parts = (name[len(above) :].partition("/") for name in names)
    return [first if slash else "" for first, slash, _ in parts]


def _empty_folders(files: PictureFiles, above: str) -> list[str]:
    """The subfolders of a folder that hold no picture, without hidden ones and those that runs were written to."""
    below = (name[len(above) :].partition("/")[0] for name in files.folders if name.startswith(above))
    full = _parts_below(above, [name for name in files.names if name.startswith(above)])
    return sorted(set(below) - set(full))
