"""CIFAR-10, read by torchvision: 50,000 training and 10,000 test images of 32x32 in ten classes. Krizhevsky 2009."""

from pathlib import Path

import numpy as np
from filelock import FileLock
from torchvision.datasets import CIFAR10

from transfergen.data.pictures import Pictures, Split, from_array


def cifar10(path: str, split: Split, *, download: bool = True, dataset: type[CIFAR10] = CIFAR10) -> Pictures:
    """A split of CIFAR-10 from `path`/cifar-10-batches-py. Missing files are downloaded and checked by MD5.

    Args:
        path: the folder that holds cifar-10-batches-py, or gets it.
        split: train or test.
        download: whether to download missing or damaged files.
        dataset: torchvision's class, which knows the address and the checksums.

    Raises:
        ValueError: the files are missing or damaged, and cannot be downloaded; or `path` holds other files.
    """
    root = Path(path).expanduser()
    train = split == "train"
    others = "data=image_folder for pictures of your own, or data=huggingface for parquet files"
    if _holds_others(root, dataset):
        raise ValueError(f"data.path={path}: is not CIFAR-10; set {others}, or give CIFAR-10 a folder of its own")
    try:
        try:
            data = dataset(root, train=train)
        except RuntimeError:  # missing or damaged
            if not download:
                raise
            root.mkdir(parents=True, exist_ok=True)
            with FileLock(root / ".lock"):
                data = dataset(root, train=train, download=True)
    except (RuntimeError, OSError, EOFError) as error:
        raise ValueError(
            f"data.path={path}: there is no CIFAR-10, and {dataset.url} cannot be downloaded ({error}); unpack a "
            f"copy to {root / dataset.base_folder}, or set {others}"
        ) from error
    return from_array(f"cifar10/{split}", data.data, np.asarray(data.targets, np.int64), tuple(data.classes))


def _holds_others(root: Path, dataset: type[CIFAR10]) -> bool:
    """Whether something is there, but neither CIFAR-10 nor an empty folder to download it to."""
    if not root.is_dir():
        return root.exists()
    own = {dataset.base_folder, dataset.filename}
    names = {file.name for file in root.iterdir() if not file.name.startswith(".")}
    return bool(names - own) and not names & own
