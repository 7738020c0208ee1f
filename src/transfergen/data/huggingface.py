"""Image data sets of the Hugging Face hub, or local parquet files in the hub's layout."""

import io
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from transfergen.data.formats import bytes_digest, file_digest, open_image
from transfergen.data.pictures import IntArray, Pictures, Split, hold_out
from transfergen.errors import first_line

_TEST_NAMES = ("test", "validation", "valid", "val")


def huggingface(
    path: str,
    split: Split,
    *,
    config: str | None = None,
    train_split: str | None = None,
    test_split: str | None = None,
    image_column: str | None = None,
    label_column: str | None = None,
    holdout: float = 0.1,
) -> Pictures:
    """A split of a data set. Pictures without a class, such as those labelled -1, are left out if others have one.

    Args:
        path: a name on the hub, or a local folder of parquet files in the hub's layout. Nothing but these files is read
            of a folder, and nothing outside it.
        split: train or test.
        config: the data set's configuration, where it has several; of a local folder, a folder in it.
        train_split: None: `train`, or the only one there is.
        test_split: None: the first of `test`, `validation`, `valid` and `val`, passing over one whose classes are
            hidden. Where there is none but the training split, a part of that is held out.
        image_column: of images, or of the bytes of their files; None: the first column of images, or else of bytes.
        label_column: of class labels, whole numbers or strings; None: the first column of class labels.
        holdout: fraction of the training split that is held out.

    Raises:
        ValueError: there is no such data set, split or column, or the hub cannot be reached.
    """
    import datasets  # takes two seconds, so only where it is used

    splits = _load(path, config)
    train = train_split or (next(iter(splits)) if len(splits) == 1 else "train")
    for setting, name in {"train_split": train, "test_split": test_split}.items():
        if name is not None and name not in splits:
            raise ValueError(f"data.source.{setting}={name}: {path} has no such split; choose {' or '.join(splits)}")
    features = splits[train].features
    images = [name for name, feature in features.items() if isinstance(feature, datasets.Image)]
    images += [name for name, feature in features.items() if _holds_files(feature)]
    image = _column(path, features, image_column, "image_column", images)
    if image is None:
        raise ValueError(f"data.path={path}: no column holds images; the columns are {', '.join(features)}")
    if image not in images:
        raise ValueError(f"data.source.image_column={image}: the column holds {features[image]}, not images")
    class_labels = [name for name, feature in features.items() if isinstance(feature, datasets.ClassLabel)]
    label = _column(path, features, label_column, "label_column", class_labels)
    labels, classes = _labels(splits[train], train, label, None)
    test, name, notes = train, train, []
    for each in [test_split] if test_split else [each for each in _TEST_NAMES if each in splits and each != train]:
        found, _ = _labels(splits[each], each, label, classes)
        if classes and not (found >= 0).any():
            notes.append(f"data.path={path}: split {each} is passed over, since its classes are hidden")
            continue
        test = each
        if split == "test":
            name, labels = test, found
        break
    notes.append(
        f"data.path={path}: split {train} is for training, {'a part of it' if test == train else test} for tests"
    )
    pictures = _pictures(path, name, splits[name], image)
    pictures = replace(pictures, labels=labels, classes=tuple(map(str, classes)), notes=tuple(notes))
    if unknown := int((labels < 0).sum()):
        notes.append(f"data.path={path}: {unknown:,} pictures of split {name} have no class and are left out")
        pictures = replace(pictures.subset(np.flatnonzero(labels >= 0), "labelled"), notes=tuple(notes))
    return pictures if test != train else hold_out(pictures, split, holdout)


def _pictures(path: str, name: str, table: Any, column: str) -> Pictures:
    """The pictures in a column of a split, all of class 0."""
    import datasets

    encoded = table.select_columns(column).cast_column(column, datasets.Image(decode=False))
    cache = None if Path(path).expanduser().is_dir() else Path(datasets.config.HF_CACHE_HOME).resolve()

    def content(i: int) -> bytes:
        entry = encoded[i][column] or {"bytes": None, "path": None}
        if entry["bytes"] is not None:
            return bytes(entry["bytes"])
        file = Path(entry["path"] or "").resolve()
        if cache is None or not file.is_file() or not file.is_relative_to(cache):
            raise ValueError("the cell holds no picture, and a path in it is not followed")
        return file.read_bytes()  # of a folder of pictures on the hub, which the library has downloaded

    return Pictures(
        identity=lambda: f"huggingface/{name}/{column}/{encoded._fingerprint}",
        open=lambda i: open_image(io.BytesIO(content(i))),
        name=lambda i: f"{path}, split {name}, row {i}",
        labels=np.zeros(len(table), np.int64),
        digest=lambda i: bytes_digest((entry := encoded[i][column] or {}).get("bytes") or repr(entry).encode()),
    )


def _load(path: str, config: str | None) -> Any:
    """All splits of a data set by name, as `datasets` reads them."""
    import datasets

    datasets.disable_progress_bars()
    folder = Path(path).expanduser().resolve()
    local = folder.is_dir()
    if not local and (path.startswith(("/", ".", "~")) or path.count("/") > 1):
        raise ValueError(f"data.path={path}: there is no such folder, and this is no name of a data set on the hub")
    try:
        if local:
            return datasets.load_dataset("parquet", data_files=_parquet_files(folder, folder / (config or "")))
        return datasets.load_dataset(path, config, download_config=datasets.DownloadConfig(max_retries=1))
    except Exception as error:  # the library's and the hub's errors have no common class
        what = "cannot be loaded as a data set" if local else "no such folder, and not found on the hub"
        what += f" with data.source.config={config}" if config else ""
        raise ValueError(f"data.path={path}: {what} ({first_line(error)})") from error


def _parquet_files(folder: Path, root: Path) -> Any:
    """The parquet files of each split below `root`, by the names that the hub gives to files and folders.

    A README could name other files, and even addresses, so it is not read. The digests of the files take the place of
    their times in the key of the library's cache.
    """
    from datasets.data_files import DataFilesDict, DataFilesList, get_data_patterns

    patterns = get_data_patterns(str(root))
    found = DataFilesDict.from_patterns(patterns, base_path=str(root), allowed_extensions=[".parquet"])
    for file in (file for files in found.values() for file in files):
        if not Path(file).resolve().is_relative_to(folder):
            raise ValueError(f"{file} leads out of the folder; put the file itself there")
    return {
        split: DataFilesList(list(files), [(file_digest(file).hex(),) for file in files])
        for split, files in found.items()
        if files
    }


def _column(path: str, features: Any, given: str | None, setting: str, found: list[str]) -> str | None:
    """The name of a column: the one given, or the first one found; None if there is none."""
    if given is not None and given not in features:
        raise ValueError(f"data.source.{setting}={given}: {path} has the columns {', '.join(features)}")
    return given or next(iter(found), None)


def _holds_files(feature: Any) -> bool:
    """Whether a column holds the bytes of files, as pandas writes pictures."""
    return "bytes" in feature if isinstance(feature, dict) else getattr(feature, "dtype", "").endswith("binary")


def _labels(
    table: Any, split: str, column: str | None, classes: tuple[Any, ...] | None
) -> tuple[IntArray, tuple[Any, ...]]:
    """(N,), the class numbers of a split, -1 where the class is unknown; and the classes.

    Args:
        table: the split.
        split: its name, for messages.
        column: of the labels; None: all have class 0, and there are no classes.
        classes: of the training split; None: this is the training split.

    Raises:
        ValueError: the column does not hold classes, or one that the training split does not have.
    """
    if column is None or classes == ():
        return np.zeros(len(table), np.int64), ()
    feature, values = table.features[column], table[column][:]
    if not all(value is None or isinstance(value, int | str) for value in values):
        raise ValueError(f"data.source.label_column={column}: holds {feature}; choose one of whole numbers or strings")
    present = set(values) - {None, -1}
    names = getattr(feature, "names", None)
    known = range(len(names)) if names else sorted(present) if classes is None else classes
    if present - set(known):
        raise ValueError(
            f"data.source.label_column={column}: the split {split} has the class {min(present - set(known))}, which "
            f"{'has no name' if names else 'the training split does not have'}"
        )
    if classes is None and not present:
        return np.zeros(len(table), np.int64), ()
    numbers = {value: number for number, value in enumerate(known)}
    return np.array([numbers.get(value, -1) for value in values], np.int64), tuple(names or known)
