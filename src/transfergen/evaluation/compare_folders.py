"""Compares the pictures of two folders or archives."""

from collections import Counter
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import torch
from omegaconf import DictConfig

from transfergen.data.archives import find_pictures
from transfergen.data.decoding import DamagedPictureError, open_picture
from transfergen.data.pictures import Pictures
from transfergen.data.store import build_store
from transfergen.evaluation.comparison import Comparison, ImageSet
from transfergen.evaluation.extractors import Extractor
from transfergen.evaluation.feature_extraction import Track, chosen, store_features
from transfergen.images import to_float


def compare_folders(config: DictConfig, extractor: Extractor, device: torch.device, track: Track) -> Comparison:
    """Compare the pictures of the folder or archive `config.fake` with those of `config.real`.

    Args:
        config: of the command `evaluate`.
        extractor: on `device`.
        device: computes features.
        track: shows progress.

    Raises:
        ValueError: a folder does not exist, or no picture in it can be read.
    """
    sides = {name: _pictures(name, Path(config[name]).expanduser(), config.count) for name in ("fake", "real")}
    resolution = config.data.resolution or _most_common_side(sides["fake"])
    fit: Any = config.data.fit or "crop"
    limits = {
        key: config.data[key] for key in ("damaged", "max_damaged", "max_megapixels") if config.data[key] is not None
    }
    cache_dir = Path(config.data.cache_dir or "~/.cache/transfergen").expanduser()
    stores = {
        name: build_store(pictures, resolution=resolution, fit=fit, max_memory_mib=4096, cache_dir=cache_dir, **limits)
        for name, pictures in sides.items()
    }

    def images(side: str) -> ImageSet:
        order = chosen(stores[side], config.count)
        features = store_features(
            extractor,
            stores[side],
            what=f"{side} pictures",
            count=config.count,
            resolution=resolution,
            cache_dir=cache_dir if side == "real" else None,
            device=device,
            batch_size=config.batch_size,
            track=track,
        )
        return ImageSet(
            str(config[side]),
            features,
            image=lambda i: to_float(stores[side][order[[i]]].pixels, resolution)[0],
            name=lambda i: sides[side].name(int(stores[side].rows(order)[i])),
        )

    fake, real = images("fake"), images("real")
    subject = {"fake": str(config.fake), "real": str(config.real), "resolution": resolution, "fit": fit}
    return Comparison(subject, extractor, fake=fake, real=real, references=real, searched="real")


def _pictures(setting: str, folder: Path, count: int) -> Pictures:
    """At most `count` pictures of a folder or archive and its subfolders: a choice at random that is always the same.

    Raises:
        ValueError: there is no such folder, no picture in it, or pictures both in it and in its subfolders. The message
            names the `setting`.
    """
    files = find_pictures(setting, folder)
    names = files.names
    below = [name for name in names if "/" in name]
    if below and len(below) < len(names):  # perhaps a grid of the images beside the folder that holds them
        raise ValueError(
            f"{setting}={folder}: pictures in it and in its subfolders; set {setting}={Path(folder, below[0]).parent}, "
            "or move them"
        )
    selected = [names[i] for i in np.random.default_rng(0).permutation(len(names))[:count]]
    return files.pictures(selected, "evaluate", labels=np.zeros(len(selected), np.int64))


def _most_common_side(pictures: Pictures) -> int:
    """The most common length of the pictures' shorter sides, in pixels."""
    sides: Counter[int] = Counter()
    for i in range(len(pictures)):
        with suppress(DamagedPictureError), open_picture(pictures, i) as picture:  # decoding tells of the damaged ones
            sides[min(picture.size)] += 1
    if not sides:
        raise ValueError(f"fake: none of its {len(pictures)} pictures can be read, {pictures.name(0)} first")
    return sides.most_common(1)[0][0]
