"""What can be evaluated: a run's generator, or a folder of pictures."""

import json
import logging
from collections import Counter
from contextlib import suppress
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from omegaconf import DictConfig, OmegaConf
from PIL import Image
from torch import Tensor

from transfergen import artefacts
from transfergen.comparison import Comparison
from transfergen.config import instantiate
from transfergen.data.decoding import DamagedPictureError, check_damaged, opened
from transfergen.data.image_folder import SUFFIXES
from transfergen.data.pictures import Pictures, check_fit
from transfergen.data.store import Store, build
from transfergen.evaluation import BEST, flattered, shared_weights
from transfergen.features import Track, chosen, sample_features, store_features
from transfergen.generators.base import sample
from transfergen.images import to_float
from transfergen.metrics.extractors import Extractor

log = logging.getLogger(__name__)


def of_run(config: DictConfig, extractor: Extractor, device: torch.device, track: Track) -> Comparison:
    """Samples of a run's generator, against a split of its data.

    Raises:
        ValueError: no such run, or its files or its data are not there.
    """
    run_dir = Path(config.run).expanduser()
    folder = run_dir / BEST if config.checkpoint == "best" else run_dir
    if folder != run_dir and run_dir.is_dir() and not folder.is_dir():
        raise ValueError(f"checkpoint=best: run={run_dir} kept none; train with evaluation.every_images=N, or set last")
    generator = artefacts.load_generator(folder).to(device)
    saved = _config(run_dir)
    given = {key: value for key, value in config.data.items() if value is not None}
    foreign = sorted(given.keys() - {"path", "cache_dir"})
    if foreign:
        raise ValueError(f"data.{foreign[0]}={given[foreign[0]]}: a run has its own; this is for fake= and real=")
    data = instantiate(saved.data, **given)
    data.prepare_data()
    data.setup()

    def features(store: Store, split: str, count: int) -> Tensor:
        return store_features(
            extractor,
            store,
            what=f"{split} images",
            count=count,
            resolution=data.resolution,
            cache_dir=data.cache_dir,
            device=device,
            batch_size=config.batch_size,
            track=track,
        )

    real = features(data.test_set if config.split == "test" else data.train_set, config.split, config.count)
    fake = sample_features(
        extractor,
        generator,
        count=len(real),
        seed=config.seed,
        device=device,
        batch_size=config.batch_size,
        track=track,
    )
    wanted = config.neighbours > 0
    training = chosen(data.train_set, config.references if config.split == "test" else config.count)
    seen = json.loads((folder / f"{artefacts.GENERATOR}.json").read_text()).get("images_seen")
    shared = shared_weights(extractor, OmegaConf.to_container(saved))  # type: ignore[arg-type]
    if shared is not None:
        log.warning(flattered(extractor, shared))

    @torch.no_grad()
    def fake_image(i: int) -> Tensor:
        image: Tensor = sample(generator, [config.seed + i], device)[0].cpu()
        return image

    return Comparison(
        about=_about(run=str(run_dir), checkpoint=config.checkpoint, images_seen=seen, resolution=data.resolution),
        extractor=extractor,
        fake=fake,
        real=real,
        references=features(data.train_set, "train", config.references) if wanted and config.split == "test" else None,
        fake_image=fake_image,
        reference_image=lambda j: to_float(data.train_set[training[[j]]].pixels, data.resolution)[0],
        fake_name=lambda i: config.seed + i,
        reference_name=lambda j: int(training[j]),
        split=config.split,
        searched="training",
        seed=config.seed,
        shared=shared,
    )


def of_folders(config: DictConfig, extractor: Extractor, device: torch.device, track: Track) -> Comparison:
    """Pictures in a folder, against those in another.

    Raises:
        ValueError: no such folder, or no picture in it that can be read.
    """
    sides = {name: _pictures(name, Path(config[name]).expanduser(), config.count) for name in ("fake", "real")}
    resolution = config.data.resolution or _usual_side(sides["fake"])
    fit: Any = config.data.fit or "crop"
    check_fit(fit)
    check_damaged(config.data.damaged or "error")
    limits = {
        key: config.data[key] for key in ("damaged", "max_damaged", "max_megapixels") if config.data[key] is not None
    }
    cache_dir = Path(config.data.cache_dir or "~/.cache/transfergen").expanduser()
    stores = {
        name: build(pictures, resolution=resolution, fit=fit, max_memory_mib=4096, cache_dir=cache_dir, **limits)
        for name, pictures in sides.items()
    }
    features = {
        name: store_features(
            extractor,
            store,
            what=f"{name} pictures",
            count=config.count,
            resolution=resolution,
            cache_dir=cache_dir if name == "real" else None,
            device=device,
            batch_size=config.batch_size,
            track=track,
        )
        for name, store in stores.items()
    }
    order = {name: chosen(store, config.count) for name, store in stores.items()}

    def image(side: str, i: int) -> Tensor:
        return to_float(stores[side][order[side][[i]]].pixels, resolution)[0]

    def name(side: str, i: int) -> str:
        return sides[side].name(int(stores[side].rows(order[side])[i]))

    return Comparison(
        about=_about(fake=str(config.fake), real=str(config.real), resolution=resolution, fit=fit),
        extractor=extractor,
        fake=features["fake"],
        real=features["real"],
        references=None,
        fake_image=lambda i: image("fake", i),
        reference_image=lambda j: image("real", j),
        fake_name=lambda i: name("fake", i),
        reference_name=lambda j: name("real", j),
        split=str(config.real),
        searched="real",
    )


def _about(**what: Any) -> dict[str, Any]:
    return {"transfergen": version("transfergen"), **what}


def _config(run_dir: Path) -> DictConfig:
    path = run_dir / artefacts.CONFIG
    try:
        saved = OmegaConf.load(path)
        assert isinstance(saved, DictConfig)
        return saved
    except FileNotFoundError as error:
        raise ValueError(f"run={run_dir}: no {path.name} in it: give the run's own folder") from error
    except Exception as error:  # whatever the parser raises
        raise ValueError(f"run={run_dir}: {path.name} is damaged") from error


def _pictures(setting: str, folder: Path, count: int) -> Pictures:
    """At most `count` pictures of a folder and of those below it, at random, always the same ones."""
    if not folder.is_dir():
        raise ValueError(f"{setting}={folder}: there is no such folder")
    files = sorted(file for file in folder.rglob("*") if file.suffix.lower() in SUFFIXES and file.is_file())
    if not files:
        raise ValueError(f"{setting}={folder}: no picture in it or in its subfolders")
    below = [file for file in files if file.parent != folder]
    if below and len(below) < len(files):  # such as a grid of the images beside the folder that holds them
        raise ValueError(
            f"{setting}={folder}: pictures in it and in its subfolders; set {setting}={below[0].parent}, or move them"
        )
    some = [files[i] for i in np.random.default_rng(0).permutation(len(files))[:count]]
    stats = [(str(file), file.stat().st_size, file.stat().st_mtime_ns) for file in some]
    return Pictures(
        identity=f"evaluate/{stats}",
        open=lambda i: Image.open(some[i]),
        name=lambda i: str(some[i]),
        labels=np.zeros(len(some), np.int64),
    )


def _usual_side(pictures: Pictures) -> int:
    """The shorter side that most pictures have, in pixels."""
    sides: Counter[int] = Counter()
    for i in range(len(pictures)):
        with suppress(DamagedPictureError), opened(pictures, i) as picture:  # decoding tells of the damaged ones
            sides[min(picture.size)] += 1
    if not sides:
        raise ValueError(f"fake: none of its {len(pictures)} pictures can be read, {pictures.name(0)} first")
    return sides.most_common(1)[0][0]
