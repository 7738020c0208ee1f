"""Image data sets of the Hugging Face hub, or local parquet files in the hub's layout."""

import io
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from transfergen.data.formats import bytes_digest, file_digest, open_image
from transfergen.data.huggingface_stream import first_label, stream
from transfergen.data.labels import number_classes
from transfergen.data.pictures import Pictures, Split, hold_out
from transfergen.data.streaming import Streamed
from transfergen.errors import counted, first_line

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
    streaming: bool = False,
) -> Pictures | Streamed:
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
        streaming: whether the files are read in order and once, without a copy of them on the disk.

    Raises:
        ValueError: there is no such data set, split or column, or the hub cannot be reached.
    """
    import datasets  # takes two seconds, so only where it is used

    builder, splits = _load(path, config, streaming)
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
    tests = [test_split] if test_split else [name for name in _TEST_NAMES if name in splits and name != train]
    choice = _Choice(path, split, train, tests, label, getattr(features.get(label), "names", None), holdout)
    if streaming:
        return lambda fill: _choose(
            choice,
            lambda name: fill(stream(path, name, splits[name], image, label, builder)),
            lambda name: first_label(splits[name], label),
        )
    return _choose(
        choice,
        lambda name: (_pictures(path, name, splits[name], image), splits[name][label][:] if label else []),
        lambda name: splits[name][label][:],
    )


class _Choice(NamedTuple):
    """The splits of a data set for training and for tests, and where their classes are."""

    path: str
    split: Split
    train: str
    tests: list[str]
    label: str | None
    names: list[str] | None
    holdout: float


def _choose(
    choice: _Choice,
    read: Callable[[str], tuple[Pictures, Sequence[Any]]],
    labels_of: Callable[[str], Sequence[Any]],
) -> Pictures:
    """The pictures of a split with their classes.

    Args:
        choice: what was found out about the data set.
        read: gives the pictures of a split, all of class 0, and their labels.
        labels_of: gives labels of a split, all or the first, which tell whether its classes are hidden.
    """

    def labelled(name: str, known: tuple[Any, ...] | None) -> tuple[Pictures, tuple[Any, ...]]:
        pictures, values = read(name)
        if label is None:
            return pictures, ()
        setting = f"data.source.label_column={label}"
        labels, classes = number_classes(values, setting, name, names=choice.names, known=known)
        pictures = replace(pictures, labels=labels, classes=tuple(map(str, classes)))
        if unknown := int((labels < 0).sum()):
            notes.append(f"data.path={path}: left out: {counted(unknown, 'picture')} of split {name} without a class")
            pictures = pictures.subset(np.flatnonzero(labels >= 0), f"labelled/{label}")
        return pictures, classes

    path, split, train, label, notes = choice.path, choice.split, choice.train, choice.label, list[str]()
    pictures, classes = labelled(train, None)
    test = train
    for name in choice.tests:
        if classes and all(value in (None, -1) for value in labels_of(name)):
            notes.append(f"data.path={path}: split {name} is passed over, since its classes are hidden")
            continue
        test = name
        if split == "test":
            notes.clear()
            pictures, _ = labelled(test, classes)
        break
    told = "a part of it" if test == train else test
    notes.append(f"data.path={path}: split {train} is for training, {told} for tests")
    pictures = replace(pictures, notes=tuple(notes))
    return pictures if test != train else hold_out(pictures, split, choice.holdout)


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


def _load(path: str, config: str | None, streaming: bool) -> tuple[Any, Any]:
    """The builder of a data set, and its splits by name, as `datasets` reads them."""
    import datasets

    datasets.disable_progress_bars()
    folder = Path(path).expanduser().resolve()
    local = folder.is_dir()
    if not local and (path.startswith(("/", ".", "~")) or path.count("/") > 1):
        raise ValueError(f"data.path={path}: there is no such folder, and this is no name of a data set on the hub")
    try:
        once = datasets.DownloadConfig(max_retries=1)
        files = {"data_files": _parquet_files(folder, folder / (config or ""))} if local else {"name": config}
        builder = datasets.load_dataset_builder("parquet" if local else path, download_config=once, **files)
        if streaming:
            return builder, builder.as_streaming_dataset()
        builder.download_and_prepare(download_config=once)
        return builder, builder.as_dataset()
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
