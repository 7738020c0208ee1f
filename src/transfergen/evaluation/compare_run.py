"""Compares samples of a run's generator with the run's data."""

import logging
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig, OmegaConf

from transfergen.config import instantiate
from transfergen.data.store import Store
from transfergen.evaluation.comparison import Comparison, ImageSet
from transfergen.evaluation.extractors import Extractor
from transfergen.evaluation.feature_extraction import Track, chosen, sample_features, store_features
from transfergen.evaluation.shared_weights import shared_weights, shared_weights_warning
from transfergen.images import to_float
from transfergen.networks.generators.base import sample
from transfergen.runs import artefacts
from transfergen.runs.generator_files import load_generator, read_metadata

log = logging.getLogger(__name__)


def compare_run(config: DictConfig, extractor: Extractor, device: torch.device, track: Track) -> Comparison:
    """Compare samples of the generator of `config.run` with a split of its data.

    Args:
        config: of the command `evaluate`.
        extractor: on `device`.
        device: computes samples and features.
        track: shows progress.

    Raises:
        ValueError: the run, its files or its data cannot be read.
    """
    run_dir = Path(config.run).expanduser()
    folder = run_dir / artefacts.BEST if config.checkpoint == "best" else run_dir
    if folder != run_dir and run_dir.is_dir() and not folder.is_dir():
        raise ValueError(f"checkpoint=best: run={run_dir} kept none; train with evaluation.every_images=N, or set last")
    generator = load_generator(folder).to(device)
    saved = _read_config(run_dir)
    data = _read_data(saved, config.data)
    how: dict[str, Any] = {"device": device, "batch_size": config.batch_size, "track": track}

    def images(store: Store, split: str, count: int) -> ImageSet:
        where = {"what": f"{split} images", "resolution": data.resolution, "cache_dir": data.cache_dir}
        order = chosen(store, count)
        return ImageSet(
            split,
            store_features(extractor, store, count=count, **where, **how),
            image=lambda i: to_float(store[order[[i]]].pixels, data.resolution)[0],
            name=lambda i: int(order[i]),
        )

    real = images(data.test_set if config.split == "test" else data.train_set, config.split, config.count)
    fake = ImageSet(
        "samples",
        sample_features(extractor, generator, count=len(real.features), seed=config.seed, **how),
        image=lambda i: sample(generator, [config.seed + i], device)[0].cpu(),
        name=lambda i: config.seed + i,
    )
    search_train = config.neighbours and config.split == "test"
    shared = shared_weights(extractor, OmegaConf.to_container(saved))  # type: ignore[arg-type]
    if shared is not None:
        log.warning(shared_weights_warning(extractor, shared))
    return Comparison(
        subject={
            "run": str(run_dir),
            "checkpoint": config.checkpoint,
            "images_seen": read_metadata(folder)["images_seen"],
            "resolution": data.resolution,
        },
        extractor=extractor,
        fake=fake,
        real=real,
        references=images(data.train_set, "train", config.references) if search_train else real,
        searched="training",
        seed=config.seed,
        shared=shared,
    )


def _read_data(saved: DictConfig, overrides: DictConfig) -> Any:
    """The data of a run, decoded, from where the overrides say if they say so."""
    given = {str(key): value for key, value in overrides.items() if value is not None}
    foreign = sorted(given.keys() - {"path", "cache_dir"})
    if foreign:
        raise ValueError(f"data.{foreign[0]}={given[foreign[0]]}: a run has its own; this is for fake= and real=")
    data = instantiate(saved.data, **given)
    data.prepare_data()
    data.setup()
    return data


def _read_config(run_dir: Path) -> DictConfig:
    path = run_dir / artefacts.CONFIG
    try:
        saved = OmegaConf.load(path)
        assert isinstance(saved, DictConfig)
        return saved
    except FileNotFoundError as error:
        raise ValueError(f"run={run_dir}: no {path.name} in it: give the run's own folder") from error
    except Exception as error:  # whatever the parser raises
        raise ValueError(f"run={run_dir}: {path.name} is damaged") from error
