"""The metrics while the generator learns, and the best generator so far."""

import json
import logging
import math
from pathlib import Path
from typing import Any

import torch
from lightning import Callback, LightningModule, Trainer

from transfergen.config import instantiate
from transfergen.evaluation.extractors import Extractor, PixelFeatures
from transfergen.evaluation.feature_extraction import Track, sample_features, silently, store_features
from transfergen.evaluation.measure import (
    LARGER_IS_BETTER,
    measurable,
    measure,
    metric_records,
    small_sample_warning,
)
from transfergen.evaluation.shared_weights import shared_weights, shared_weights_warning
from transfergen.networks.generators.base import Generator
from transfergen.networks.weights import WeightsError
from transfergen.runs import artefacts
from transfergen.runs.generator_files import save_generator
from transfergen.training.base_module import GenerativeModule
from transfergen.training.callbacks.checkpointing import save_checkpoint
from transfergen.training.callbacks.collapse_warning import LEAST_DIVERSITY, DiversityAlarm, what_to_try
from transfergen.training.callbacks.progress import ProgressBar

log = logging.getLogger(__name__)

SPLIT = "test"


class Evaluation(Callback):
    """Measures samples against the test split at intervals, if wanted, and at the end; all ranks share the work.

    Args:
        run_dir: gets checkpoints/best.ckpt, and best/ with that generator and its metrics, if there are intervals.
        metrics: config of the extractor.
        generator: config, for generator.json.
        config: of the training, to find weights that it shares with the extractor.
        every_images: interval between measurements; None measures at the end only.
        count: samples, and images of the test split, at most.
        seed: of the first latent; the others follow it.
        best: the metric that picks the best generator; None keeps none.
        required: False goes on with pixels if the extractor cannot be had.

    Raises:
        ValueError: a setting out of range, or an extractor that cannot be had.
    """

    def __init__(
        self,
        run_dir: Path,
        metrics: dict[str, Any],
        generator: dict[str, Any],
        config: dict[str, Any],
        *,
        every_images: int | None = None,
        count: int = 2048,
        seed: int = 1_000_000,
        best: str | None = "kernel_distance",
        required: bool = True,
    ) -> None:
        if (every_images is not None and every_images < 1) or count < 2:
            raise ValueError("evaluation.every_images is at least 1, or null, and evaluation.count at least 2")
        self.run_dir, self.generator_config = run_dir, generator
        self.every_images, self.count, self.seed, self.best = every_images, count, seed, best
        self.extractor = _extractor(metrics, required=required)
        self._minimised = best or "kernel_distance"
        self.shared = shared_weights(self.extractor, config)
        self.entries: list[dict[str, Any]] = []
        self._intervals_done = 0
        self._last_at = -1
        self._best_value: float | None = None
        self._recall = DiversityAlarm("the samples' recall")
        self._diversity = DiversityAlarm("the samples' diversity, as a part of the reals',", floor=LEAST_DIVERSITY)

    @property
    def objective(self) -> float:
        """The metric that a sweep minimises: `best`, with its sign turned where larger is better."""
        value = next(float(entry["value"]) for entry in self.entries if entry["name"] == self._minimised)
        return -value if LARGER_IS_BETTER[self._minimised] else value

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Features of the reals; where in the intervals a resumed run stands; what the numbers will not tell.

        Raises:
            ValueError: `best` is not measured on so few images or with this extractor.
        """
        assert isinstance(pl_module, GenerativeModule)
        self.extractor.to(pl_module.device)
        data = trainer.datamodule  # type: ignore[attr-defined]
        self._real = store_features(
            self.extractor,
            data.test_set,
            what=f"{SPLIT} images",
            count=self.count,
            resolution=data.resolution,
            cache_dir=data.cache_dir,
            device=pl_module.device,
            track=_track(trainer),
        )
        names = measurable(self.extractor, len(self._real), len(self._real))
        if self._minimised not in names:
            raise ValueError(
                f"evaluation.best={self._minimised}: not measured on {len(self._real)} {SPLIT} image(s) with "
                f"{self.extractor.name}; choose {', '.join(names)}, or a larger test split"
            )
        if trainer.is_global_zero:
            if self.shared is not None:
                log.warning(shared_weights_warning(self.extractor, self.shared))
            if len(self._real) < self.extractor.dimensions:
                log.warning(small_sample_warning(self.extractor, len(self._real)))
        if self.every_images is not None:
            self._intervals_done = pl_module.images_seen // self.every_images
        # One rank's word, since it decides whether all ranks save.
        self._best_value = trainer.strategy.broadcast(self._saved_best() if pl_module.images_seen else None)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Measures whenever an interval is full."""
        assert isinstance(pl_module, GenerativeModule)
        if self.every_images is not None and pl_module.images_seen // self.every_images > self._intervals_done:
            self._intervals_done = pl_module.images_seen // self.every_images
            self._measure(trainer, pl_module)
            if trainer.is_global_zero:
                shown = ", ".join(f"{entry['name']} {entry['value']:.4g}" for entry in self.entries)
                print(f"{pl_module.images_seen:,} images: {shown}", flush=True)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """The last measurement."""
        assert isinstance(pl_module, GenerativeModule)
        if self._last_at != pl_module.images_seen:
            self._measure(trainer, pl_module)

    def values_of(self, trainer: Trainer, generator: Generator, device: torch.device) -> dict[str, float]:
        """The metrics of a generator by name; all ranks share the work."""
        fake = sample_features(
            self.extractor,
            generator,
            count=len(self._real),
            seed=self.seed,
            device=device,
            track=_track(trainer),
        )
        return measure(self.extractor, self._real, fake)

    def _measure(self, trainer: Trainer, module: GenerativeModule) -> None:
        module.updates.raise_if_not_finite()
        self._last_at = images_seen = module.images_seen
        values = self.values_of(trainer, module.ema_generator, module.device)
        self.entries = metric_records(
            values,
            extractor=self.extractor,
            generated=len(self._real),
            real=len(self._real),
            split=SPLIT,
            seed=self.seed,
            shared_weights=self.shared,
        )
        for logger in trainer.loggers:
            logger.log_metrics({f"metrics/{name}": value for name, value in values.items()}, step=images_seen)
            logger.save()
        if trainer.is_global_zero:
            advice = what_to_try(module)
            self._diversity(values["diversity"], images_seen, advice)
            if "recall" in values:
                self._recall(values["recall"], images_seen, advice)
        if self.best is not None and self.every_images is not None:
            self._keep_if_best(trainer, module, values[self.best])

    def _keep_if_best(self, trainer: Trainer, module: GenerativeModule, value: float) -> None:
        assert self.best is not None
        sign = -1 if LARGER_IS_BETTER[self.best] else 1
        if not math.isfinite(value) or (self._best_value is not None and sign * value >= sign * self._best_value):
            return
        self._best_value = value
        save_checkpoint(trainer, self.run_dir / artefacts.BEST_CHECKPOINT)
        if trainer.is_global_zero:
            folder = self.run_dir / artefacts.BEST
            ema, images_seen = module.ema is not None, module.images_seen
            save_generator(folder, module.ema_generator, self.generator_config, ema=ema, images_seen=images_seen)
            artefacts.write_json(folder / artefacts.METRICS, {"images_seen": images_seen, "metrics": self.entries})

    def _saved_best(self) -> float | None:
        """The metric of the best generator that an earlier process of this run kept; None if there is none."""
        path = self.run_dir / artefacts.BEST / artefacts.METRICS
        listed = json.loads(path.read_text())["metrics"] if path.is_file() else []
        ours = (self.best, self.extractor.name, len(self._real), self.seed)  # others cannot be compared with
        same = (e for e in listed if (e["name"], e["extractor"], e["generated"], e["seed"]) == ours)
        return next((float(entry["value"]) for entry in same), None)


def _extractor(config: dict[str, Any], *, required: bool) -> Extractor:
    try:
        extractor: Extractor = instantiate(config)
    except WeightsError as error:
        if required:
            raise ValueError(f"{error}; or evaluation.required=false to measure on pixels instead") from error
        log.warning(f"{error}; evaluation.required=false: going on, measured on pixels")
        return PixelFeatures()
    return extractor


def _track(trainer: Trainer) -> Track:
    bar = trainer.progress_bar_callback
    return bar.track if isinstance(bar, ProgressBar) else silently
