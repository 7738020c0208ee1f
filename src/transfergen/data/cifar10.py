"""CIFAR-10 by torchvision: 50,000 training and 10,000 test images, 32x32, ten classes. Krizhevsky 2009."""

from pathlib import Path

import numpy as np
from filelock import FileLock
from torchvision.datasets import CIFAR10

from transfergen.data.pictures import Pictures, Split, of_array


def cifar10(path: str, split: Split, *, download: bool = True, dataset: type[CIFAR10] = CIFAR10) -> Pictures:
    """The split as torchvision reads it from `path`/cifar-10-batches-py, downloaded and checked by MD5 if missing.

    Raises:
        ValueError: the files are neither there nor to be had, or they are damaged.
    """
    root = Path(path).expanduser()
    train = split == "train"
    try:
        try:
            data = dataset(root, train=train)
        except RuntimeError:  # not there, or damaged
            if not download:
                raise
            root.mkdir(parents=True, exist_ok=True)
            with FileLock(root / ".lock"):
                data = dataset(root, train=train, download=True)
    except (RuntimeError, OSError, EOFError) as error:
        raise ValueError(
            f"data.path={path}: CIFAR-10 is not there and {dataset.url} cannot be fetched ({error}); unpack a copy to "
            f"{root / dataset.base_folder}, or set data=huggingface data.path=FOLDER for its parquet layout"
        ) from error
    return of_array(f"cifar10/{split}", data.data, np.asarray(data.targets, np.int64), tuple(data.classes))
