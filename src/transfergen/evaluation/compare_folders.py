"""Compares two sets of images: pictures of folders, archives or array files, or features that were saved."""

from collections import Counter
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import torch
from omegaconf import DictConfig
from torch import Tensor

from transfergen.data.archives import find_pictures
from transfergen.data.array_file import read_pictures
from transfergen.data.decoding import MEGAPIXELS, DamagedPictureError, open_picture, pillow_limit
from transfergen.data.pictures import Pictures, upright_size
from transfergen.data.store import build_store
from transfergen.evaluation.comparison import Comparison, ImageSet
from transfergen.evaluation.distances import Gaussian
from transfergen.evaluation.extractors import Extractor
from transfergen.evaluation.feature_extraction import Track, chosen, store_features
from transfergen.evaluation.features_file import load_features
from transfergen.image_shape import ImageShape, image_shape
from transfergen.images import to_float
from transfergen.runs import artefacts


def compare_folders(config: DictConfig, extractor: Extractor, device: torch.device, track: Track) -> Comparison:
    """Compare the images that `config.fake` names with those that `config.real` names, see `image_set`.

    Raises:
        ValueError: one of them cannot be read, or `config.fake` holds statistics only.
    """
    given = {setting: read_set(setting, config, extractor) for setting in ("fake", "real")}
    fake = image_set("fake", given["fake"], config, extractor, device, track)
    real = image_set("real", given["real"], config, extractor, device, track, shape=fake.shape)
    about = describe_shape(fake.shape or real.shape) | {"fit": config.data.fit or "crop"}
    subject = {"fake": str(config.fake), "real": str(config.real), **about}
    return Comparison(subject, extractor, fake=fake, real=real, references=real, searched="real")


def read_set(setting: str, config: DictConfig, extractor: Extractor) -> Pictures | Tensor | Gaussian:
    """Read what a setting, `fake` or `real`, names: pictures of a folder, an archive or an array, or their features.

    At most `config.count` pictures or features are read: a random choice that is always the same.

    Raises:
        ValueError: it cannot be read, or its features are not those of the `extractor`. The message begins with the
            setting.
    """
    path = Path(config[setting]).expanduser()
    if path.suffix not in (".npy", ".npz"):
        return _pictures(setting, path, config.count)
    try:
        features = load_features(path, extractor) if path.suffix == ".npz" else None
        if isinstance(features, Gaussian):
            return features
        if features is not None:
            return features[chosen(features, config.count)]
        pictures = read_pictures(path)
    except ValueError as error:
        raise ValueError(f"{setting}={config[setting]}: {error}") from error
    return pictures.subset(chosen(pictures, config.count), f"{config.count}")


def image_set(
    setting: str,
    given: Pictures | Tensor | Gaussian,
    config: DictConfig,
    extractor: Extractor,
    device: torch.device,
    track: Track,
    *,
    shape: ImageShape | None = None,
) -> ImageSet:
    """The images that `read_set` has read of a setting, `fake` or `real`, with their features.

    Pictures get the `shape`; None: as `config.data` says, or their most common one, see `_most_common_shape`.

    Raises:
        ValueError: pictures cannot be read.
    """
    title = str(config[setting])
    if not isinstance(given, Pictures):
        return ImageSet(title, given)
    if shape is None:
        shape = _most_common_shape(setting, given, config.data)
    fit: Any = config.data.fit or "crop"
    limits = {
        key: config.data[key] for key in ("damaged", "max_damaged", "max_megapixels") if config.data[key] is not None
    }
    cache_dir = Path(config.data.cache_dir or artefacts.CACHE).expanduser()
    store = build_store(given, shape=shape, fit=fit, max_memory_mib=4096, cache_dir=cache_dir, **limits)
    order = chosen(store, config.count)
    features = store_features(
        extractor,
        store,
        what=f"{setting} pictures",
        count=config.count,
        size=shape.size,
        cache_dir=cache_dir if setting == "real" else None,
        device=device,
        batch_size=config.batch_size,
        track=track,
    )
    return ImageSet(
        title,
        features,
        image=lambda i: to_float(store[order[[i]]].pixels, shape.size)[0],
        name=lambda i: given.name(int(store.rows(order)[i])),
        shape=shape,
    )


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
        chosen_folder = f"set {setting}={Path(folder, below[0]).parent}, or move them"
        advice = chosen_folder if folder.is_dir() else "unpack it, and give one folder of it"
        raise ValueError(f"{setting}={folder}: pictures in it and in its subfolders; {advice}")
    selected = [names[i] for i in chosen(names, count)]
    return files.pictures(selected, "evaluate", labels=np.zeros(len(selected), np.int64))


def describe_shape(shape: ImageShape | None) -> dict[str, Any]:
    """The shape of the images that are compared, for JSON: `aspect` unless they are squares, `channels` unless 3."""
    if shape is None:
        return {"resolution": None}
    aspect = {} if shape.is_square else {"aspect": list(shape.aspect)}
    return {"resolution": shape.resolution, **aspect} | ({} if shape.channels == 3 else {"channels": shape.channels})


def _most_common_shape(setting: str, pictures: Pictures, data: DictConfig) -> ImageShape:
    """The shape of pictures that `data` gives, or their own.

    Where `data` gives neither resolution nor aspect, it is that of the pictures if all have one size. Otherwise they
    become squares, or of the aspect of `data`, and their shorter side gets its most common length.
    """
    aspect, resolution = data.aspect, data.resolution
    if resolution is None:
        sizes: list[tuple[int, int]] = []
        limit = data.max_megapixels or MEGAPIXELS
        with pillow_limit(limit):
            for i in range(len(pictures)):  # decoding tells of the damaged ones
                with suppress(DamagedPictureError), open_picture(pictures, i, limit) as picture:
                    sizes.append(upright_size(picture))
        if not sizes:
            raise ValueError(f"{setting}: none of its pictures can be read, {pictures.name(0)} first")
        if aspect is None and len(set(sizes)) == 1:
            aspect = sizes[0]
        resolution = Counter(map(min, sizes)).most_common(1)[0][0]
    try:
        return image_shape(resolution, aspect or (1, 1), data.channels or 3)
    except ValueError as error:
        raise ValueError(f"data.{error}") from error
