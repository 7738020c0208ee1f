"""Compares samples of a generator with its run's data, or with other pictures."""

import json
import logging
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig, OmegaConf

from transfergen.config import instantiate
from transfergen.data.store import Store
from transfergen.errors import counted
from transfergen.evaluation.compare_folders import describe_shape, image_set, read_set
from transfergen.evaluation.comparison import Comparison, ImageSet
from transfergen.evaluation.extractors import Extractor
from transfergen.evaluation.feature_extraction import Track, chosen, sample_features, store_features
from transfergen.evaluation.measure import sample_count
from transfergen.evaluation.shared_weights import shared_weights, shared_weights_warning
from transfergen.images import to_float
from transfergen.networks.generators.base import Generator, sample
from transfergen.runs import artefacts
from transfergen.runs.generator_files import load_pretrained
from transfergen.runs.kept_generators import choose_generator
from transfergen.runs.saved_config import read_config
from transfergen.runs.splits import warn_of_other_splits

log = logging.getLogger(__name__)


_Reals = tuple[ImageSet, ImageSet, dict[str, Any]]
"""The real images that samples are measured against, those that the nearest are searched among, and facts for JSON."""


def compare_run(config: DictConfig, extractor: Extractor, device: torch.device, track: Track) -> Comparison:
    """Compare samples of the generator of `config.run` with a split of its data, or with what `config.real` names.

    Without the config of its training, a generator that `load_pretrained` takes can be compared with the latter only.

    Raises:
        ValueError: the run, its files, its data or what `config.real` names cannot be read.
    """
    run_dir = Path(config.run).expanduser()
    source = choose_generator(str(config.run), config.checkpoint)
    has_config = (run_dir / artefacts.CONFIG).is_file()
    if config.real is None and not has_config:  # before a generator is downloaded
        raise ValueError(
            f"run={config.run}: no folder of a run, whose {artefacts.CONFIG} says where its data are; give one, or add "
            "real=FOLDER"
        )
    generator, metadata, folder = load_pretrained(source, "run")
    generator = generator.to(device)
    how: dict[str, Any] = {"device": device, "track": track}
    if config.real is None:
        saved, (real, references, facts) = _of_the_run(run_dir, config, extractor, generator, **how)
    else:
        saved = read_config(run_dir) if has_config else DictConfig({})
        real, references, facts = _named_by_real(config, extractor, generator, **how)
    count = sample_count(real.count or config.count, config.count)
    classes = range(generator.num_classes) if real.labels is None else real.labels.tolist()
    fake = ImageSet(
        "samples",
        sample_features(
            extractor,
            generator,
            count=count,
            seed=config.seed,
            classes=classes,
            batch_size=config.batch_size,
            **how,
        ),
        image=lambda i: sample(generator, [config.seed + i], device, classes=classes)[0].cpu(),
        name=lambda i: config.seed + i,
        labels=torch.tensor([classes[(config.seed + i) % len(classes)] for i in range(count)])
        if generator.num_classes
        else None,
    )
    shared = _warn_of_shared_weights(extractor, saved, config.run)
    choice = _choice(folder, OmegaConf.select(saved, "evaluation.best")) if config.checkpoint == "best" else {}
    for how_chosen in choice.values():
        log.warning(f"checkpoint=best was chosen by {how_chosen}; numbers on the same images are a little too good")
    about = {"run": str(run_dir), "checkpoint": config.checkpoint, "images_seen": metadata["images_seen"]}
    about |= {} if has_config else {"sha256": metadata["sha256"]}
    return Comparison(
        subject=about | facts | choice,
        extractor=extractor,
        fake=fake,
        real=real,
        references=references,
        searched="training" if config.real is None else "real",
        seed=config.seed,
        shared=shared,
        generator=generator,
    )


def _warn_of_shared_weights(extractor: Extractor, saved: DictConfig, run: str) -> str | None:
    """Warn if an extractor and a training share pretrained weights, or if an empty config `saved` does not tell.

    Returns:
        The weights that they share; None if there are none, or if it is not known.
    """
    shared = shared_weights(extractor, OmegaConf.to_container(saved))  # type: ignore[arg-type]
    if shared is not None:
        log.warning(shared_weights_warning(extractor, shared))
    elif not saved and extractor.weights_id is not None:
        log.warning(
            f"run={run}: no {artefacts.CONFIG} tells which pretrained weights it was trained with; those of "
            f"{extractor.name} would make its distances too good: give those of another extractor too, such as "
            "metrics=pixels"
        )
    return shared


def _named_by_real(
    config: DictConfig, extractor: Extractor, generator: Generator, *, device: torch.device, track: Track
) -> _Reals:
    """The images that `config.real` names, in the shape of the generator's; they are also the references."""
    data, shape = config.data, generator.image_shape
    if data.path is not None:
        raise ValueError(f"data.path={data.path}: real={config.real} takes the place of the run's data; leave one out")
    for key, ours in {"resolution": shape.resolution, "aspect": None, "channels": shape.channels}.items():
        if data[key] not in (None, ours):
            made = f"{shape.width}x{shape.height} px with {counted(shape.channels, 'channel')}"
            raise ValueError(f"data.{key}={data[key]}: the generator makes images of {made}; leave it out")
    given = read_set("real", config, extractor)
    real = image_set("real", given, config, extractor, device, track, shape=shape)
    return real, real, {"real": str(config.real), **describe_shape(shape), "fit": data.fit or "crop"}


def _of_the_run(
    run_dir: Path,
    config: DictConfig,
    extractor: Extractor,
    generator: Generator,
    *,
    device: torch.device,
    track: Track,
) -> tuple[DictConfig, _Reals]:
    """The run's config and its real images: those of the split, and of the training split as references."""
    saved, data = read_data(run_dir, config.data)
    if generator.num_classes not in (0, len(data.test_set.classes)):
        raise ValueError(
            f"data.path={data.path}: these pictures have {counted(len(data.test_set.classes), 'class', 'classes')}, "
            f"and the generator was told of {generator.num_classes}; give the pictures that it was trained on"
        )
    warn_of_other_splits(run_dir, data)
    where = Path(str(data.path)).expanduser()

    def images(store: Store, split: str, count: int) -> ImageSet:
        order = chosen(store, count)
        features = store_features(
            extractor,
            store,
            what=f"{split} images",
            count=count,
            size=data.image_shape.size,
            cache_dir=data.cache_dir,
            device=device,
            batch_size=config.batch_size,
            track=track,
        )
        return ImageSet(
            split,
            features,
            image=lambda i: to_float(store[order[[i]]].pixels, data.image_shape.size)[0],
            name=lambda i: int(order[i]),
            shape=data.image_shape,
            labels=torch.from_numpy(store.labels[order]),
        )

    real = images(data.test_set if config.split == "test" else data.train_set, config.split, config.count)
    searched = config.split == "test" and (config.neighbours or "authenticity" in config.extra)
    references = images(data.train_set, "train", config.references) if searched else real
    path = str(where.resolve()) if data.path and where.exists() else data.path
    return saved, (real, references, {"data_path": path, **describe_shape(data.image_shape)})


def read_data(run_dir: Path, overrides: DictConfig) -> tuple[DictConfig, Any]:
    """The config of a run, and its data, decoded. Overrides may say where the data are now.

    Raises:
        ValueError: the config or the data cannot be read, or the overrides say more than where the data are.
    """
    given = {str(key): value for key, value in overrides.items() if value is not None}
    foreign = sorted(given.keys() - {"path", "cache_dir"})
    if foreign:
        raise ValueError(f"data.{foreign[0]}={given[foreign[0]]}: a run has its own; this is for fake= and real=")
    saved = read_config(run_dir, given=[f"data.{key}" for key in given])
    data = instantiate(saved.data, **given)
    data.prepare_data()
    data.setup()
    return saved, data


def _choice(folder: Path, metric: str | None) -> dict[str, str]:
    """The metric that chose the best generator in a folder, for JSON, as `chosen_by`; empty if it is damaged."""
    with suppress(OSError, ValueError, LookupError, TypeError):
        records = json.loads(artefacts.read(folder, artefacts.METRICS))["metrics"]
        r = next((r for r in records if r["name"] == metric), records[0])
        return {"chosen_by": f"{r['name']} on {r['real']} {r['split']} images, latents from seed {r['seed']} on"}
    return {}
