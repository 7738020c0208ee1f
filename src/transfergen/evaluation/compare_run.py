"""What can be evaluated: a run's generator, or a folder of pictures."""

import logging
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig, OmegaConf
from torch import Tensor

from transfergen.config import instantiate
from transfergen.data.store import Store
from transfergen.evaluation.comparison import Comparison
from transfergen.evaluation.extractors import Extractor
from transfergen.evaluation.feature_extraction import Track, chosen, sample_features, store_features
from transfergen.evaluation.shared_weights import shared_weights, shared_weights_warning
from transfergen.images import to_float
from transfergen.networks.generators.base import sample
from transfergen.runs import artefacts
from transfergen.runs.generator_files import load_generator, read_metadata

log = logging.getLogger(__name__)


def compare_run(config: DictConfig, extractor: Extractor, device: torch.device, track: Track) -> Comparison:
    """Samples of a run's generator, against a split of its data.

    Raises:
        ValueError: no such run, or its files or its data are not there.
    """
    run_dir = Path(config.run).expanduser()
    folder = run_dir / artefacts.BEST if config.checkpoint == "best" else run_dir
    if folder != run_dir and run_dir.is_dir() and not folder.is_dir():
        raise ValueError(f"checkpoint=best: run={run_dir} kept none; train with evaluation.every_images=N, or set last")
    generator = load_generator(folder).to(device)
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
    seen = read_metadata(folder)["images_seen"]
    shared = shared_weights(extractor, OmegaConf.to_container(saved))  # type: ignore[arg-type]
    if shared is not None:
        log.warning(shared_weights_warning(extractor, shared))

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
