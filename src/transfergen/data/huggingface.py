"""Image data sets of the Hugging Face hub, or local parquet files in the hub's layout."""

import io
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from transfergen.data.pictures import Pictures, Split, hold_out

_TEST_NAMES = ("test", "validation", "valid", "val")


def huggingface(
    path: str,
    split: Split,
    *,
    config: str | None = None,
    image_column: str | None = None,
    label_column: str | None = None,
    holdout: float = 0.1,
) -> Pictures:
    """A split of a data set.

    Args:
        path: a name on the hub, or a local folder of parquet files in the hub's layout.
        split: train or test.
        config: the data set's configuration, where it has several.
        image_column: None: the first column of images.
        label_column: None: the first column of class labels.
        holdout: fraction of the training split that is the test split where the data set has none.

    Raises:
        ValueError: there is no such data set or column, or the hub cannot be reached.
    """
    import datasets  # takes two seconds, so only where it is used

    splits = _load(path, config)
    test = next((name for name in _TEST_NAMES if name in splits), None)
    name = "train" if split == "train" or test is None else test
    if name not in splits:
        raise ValueError(f"data.path={path}: there is no split train; the data set has the splits {', '.join(splits)}")
    table = splits[name]
    image = _column(path, table, image_column, datasets.Image, "image_column")
    label = _column(path, table, label_column, datasets.ClassLabel, "label_column")
    if image is None:
        raise ValueError(f"data.path={path}: no column holds images; the columns are {', '.join(table.features)}")
    if not isinstance(table.features[image], datasets.Image):
        raise ValueError(f"data.source.image_column={image}: the column holds {table.features[image]}, not images")
    encoded = table.select_columns(image).cast_column(image, datasets.Image(decode=False))

    def open_picture(i: int) -> Image.Image:
        entry = encoded[i][image]
        if entry is None:
            raise ValueError("the cell is empty")
        return Image.open(io.BytesIO(entry["bytes"]) if entry["bytes"] is not None else entry["path"])

    feature = table.features[label] if label else None
    labels = table[label][:] if label else [0] * len(table)
    if not all(isinstance(value, int) for value in labels):
        raise ValueError(f"data.source.label_column={label}: needs a class number in every row")
    pictures = Pictures(
        identity=f"huggingface/{path}/{name}/{table._fingerprint}",
        open=open_picture,
        name=lambda i: f"{path}, split {name}, row {i}",
        labels=np.asarray(labels, np.int64),
        classes=tuple(getattr(feature, "names", None) or ()),
    )
    return pictures if test is not None else hold_out(pictures, split, holdout)


def _load(path: str, config: str | None) -> Any:
    """All splits of a data set by name, as `datasets` reads them."""
    import datasets

    datasets.disable_progress_bars()
    folder = Path(path).expanduser()
    local = folder.is_dir()
    if not local and (path.startswith(("/", ".", "~")) or path.count("/") > 1):
        raise ValueError(f"data.path={path}: there is no such folder, and this is no name of a data set on the hub")
    try:
        options = datasets.DownloadConfig(max_retries=1)
        return datasets.load_dataset(str(folder) if local else path, config, download_config=options)
    except Exception as error:  # the library's and the hub's errors have no common class
        what = "cannot be loaded as a data set" if local else "no such folder, and not found on the hub"
        what += f" with data.source.config={config}" if config else ""
        raise ValueError(f"data.path={path}: {what} ({str(error).strip().splitlines()[0][:200]})") from error


def _column(path: str, table: Any, given: str | None, kind: type, setting: str) -> str | None:
    """The name of a column: the one given, or the first of this kind; None if there is none."""
    if given is not None and given not in table.features:
        raise ValueError(f"data.source.{setting}={given}: {path} has the columns {', '.join(table.features)}")
    return given or next((name for name, feature in table.features.items() if isinstance(feature, kind)), None)
