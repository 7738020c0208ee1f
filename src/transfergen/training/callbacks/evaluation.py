"""Evaluation during a training, and the best generator so far."""

import csv
import json
import logging
import math
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from lightning import LightningModule, Trainer
from omegaconf import DictConfig

from transfergen.config import instantiate
from transfergen.errors import counted
from transfergen.evaluation.extractors import Extractor, PixelFeatures
from transfergen.evaluation.feature_extraction import chosen, sample_features, store_features
from transfergen.evaluation.measure import (
    LARGER_IS_BETTER,
    measurable,
    measure,
    metric_records,
    sample_count,
    small_sample_warning,
)
from transfergen.evaluation.shared_weights import shared_weights, shared_weights_warning
from transfergen.networks.generators.base import Generator
from transfergen.networks.weights import WeightsError
from transfergen.runs import artefacts
from transfergen.runs.curves import PrecisionRecall, plot_precision_recall, precision_recall, read_curves, to_picture
from transfergen.training.base_module import GenerativeModule
from transfergen.training.callbacks.checkpointing import save_files
from transfergen.training.callbacks.collapse_warning import MIN_DIVERSITY, DiversityAlarm, HasAlarms, what_to_try
from transfergen.training.callbacks.progress import track_on_bar
from transfergen.training.loggers import log_picture

log = logging.getLogger(__name__)

SPLIT = "test"
LAST_SEED_OFFSET = 1_000_000
"""The last measurement's seed is `seed` plus this, so that its latents are not those that chose the best generator."""


class Evaluation(HasAlarms):
    """Measures samples against the test split at the end and, if wanted, at intervals. All ranks share the work.

    With intervals it keeps the best generator and its metrics in best/, and its checkpoint in checkpoints/best.ckpt.
    Samples of a conditional generator have each class as often as the test images.

    Args:
        run_dir: gets the best generator.
        metrics: config of the extractor.
        generator: config, for generator.json.
        config: of the training, to find weights that it shares with the extractor.
        every_images: real images between two measurements; None measures at the end only.
        count: samples, and images of the test split, at most; see `sample_count`.
        seed: of the first latent; the others have the seeds that follow. At the end, `LAST_SEED_OFFSET` is added.
        best: the metric that decides which generator is best; None keeps none.
        required: False measures on pixels if the extractor's weights cannot be read.

    Raises:
        ValueError: the extractor cannot be built.

    Attributes:
        records: the latest measurement, as `metric_records` gives it; empty before the first.
    """

    def __init__(
        self,
        run_dir: Path,
        metrics: DictConfig,
        generator: dict[str, Any],
        config: dict[str, Any],
        *,
        every_images: int | None = None,
        count: int = 2048,
        seed: int = 1_000_000,
        best: str | None = "kernel_distance",
        required: bool = True,
    ) -> None:
        super().__init__(every_images)
        self.run_dir, self.generator_config = run_dir, generator
        self.count, self.seed, self.best = count, seed, best
        self.extractor = _extractor(metrics, required=required)
        self.shared = shared_weights(self.extractor, config)
        self.records: list[dict[str, Any]] = []
        self._minimised = best or "kernel_distance"
        self._best_value: float | None = None
        self._precision_recall: PrecisionRecall = []
        self.measured_by = self.extractor.name
        self.alarms = {
            "diversity": DiversityAlarm("the samples' diversity, relative to real images,", floor=MIN_DIVERSITY),
            "recall": DiversityAlarm("the samples' recall"),
        }

    @property
    def last_seed(self) -> int:
        """The seed of the first latent of the last measurement."""
        return self.seed + LAST_SEED_OFFSET

    @property
    def objective(self) -> float:
        """The value that a sweep minimises: the metric `best`, negative where larger is better."""
        value = next(float(record["value"]) for record in self.records if record["name"] == self._minimised)
        return -value if LARGER_IS_BETTER[self._minimised] else value

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Extract the features of the test split, and warn of what the metrics will not show.

        Raises:
            ValueError: `best` cannot be measured on so few images or with this extractor.
        """
        assert isinstance(pl_module, GenerativeModule)
        self.extractor.to(pl_module.device)
        data = trainer.datamodule  # type: ignore[attr-defined]
        self._real = store_features(
            self.extractor,
            data.test_set,
            what=f"{SPLIT} images",
            count=self.count,
            size=data.image_shape.size,
            cache_dir=data.cache_dir,
            device=pl_module.device,
            track=track_on_bar(trainer),
        )
        self._classes = data.test_set.labels[chosen(data.test_set, self.count)].tolist()
        self._samples = sample_count(len(self._real), self.count)
        names = measurable(self.extractor, len(self._real), self._samples)
        if self._minimised not in names:
            choose = f"choose {', '.join(names)}, or " if names else ""
            raise ValueError(
                f"evaluation.best={self._minimised}: not measured on {counted(len(self._real), f'{SPLIT} image')} with "
                f"{self.extractor.name}; {choose}have more, as by a larger data.source.holdout"
            )
        if trainer.is_global_zero:
            if self.shared is not None:
                log.warning(shared_weights_warning(self.extractor, self.shared))
            if self.every_images is not None and len(self._real) < self.extractor.dimensions:  # or else at the end
                log.warning(small_sample_warning(self.extractor, len(self._real)))
            self._precision_recall = self._measured_until(pl_module.images_seen)
        # Rank 0 decides for all, since all take part in saving the best.
        self._best_value = trainer.strategy.broadcast(self._saved_best() if pl_module.images_seen else None)

    def act(self, trainer: Trainer, module: GenerativeModule) -> None:
        """Measure the generator, log the metrics, and keep the generator if it is the best so far."""
        self.measured_at = images_seen = module.images_seen
        values = self._measure(trainer, module, self.last_seed if self.every_images is None else self.seed)
        for logger in trainer.loggers:
            logger.log_metrics({f"metrics/{name}": value for name, value in values.items()}, step=images_seen)
            logger.save()
        if trainer.is_global_zero:
            if "precision" in values:
                self._log_precision_recall(trainer, images_seen, values)
            for name, alarm in self.alarms.items():
                if name in values:
                    alarm(values[name], images_seen, what_to_try(module))
        if self.every_images is None:
            return
        if self.best is not None:
            self._keep_if_best(trainer, module, values[self.best])
        if trainer.is_global_zero:
            shown = ", ".join(f"{name} {value:.4g}" for name, value in values.items())
            print(f"{images_seen:,} images: {shown}", flush=True)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Compare the last generator with the best one, too; then measure it on latents that had no part in that."""
        super().on_train_end(trainer, pl_module)
        if self.every_images is not None:
            assert isinstance(pl_module, GenerativeModule)
            self._measure(trainer, pl_module, self.last_seed)

    def _log_precision_recall(self, trainer: Trainer, images_seen: int, values: dict[str, float]) -> None:
        """Log precision against recall so far as a picture, from the second point on."""
        earlier = [point for point in self._precision_recall if point[0] < images_seen]  # it may be measured again
        self._precision_recall = [*earlier, (images_seen, values["precision"], values["recall"])]
        if len(self._precision_recall) > 1:
            picture = to_picture(plot_precision_recall({"": self._precision_recall}))
            for logger in trainer.loggers:
                log_picture(logger, "precision_recall", picture, images_seen)

    def _measure(self, trainer: Trainer, module: GenerativeModule, seed: int) -> dict[str, float]:
        module.updates.raise_if_not_finite()
        values = self.measure_generator(trainer, module.ema_generator, module.device, seed=seed)
        self.records = metric_records(
            values,
            extractor=self.extractor,
            generated=self._samples,
            real=len(self._real),
            split=SPLIT,
            seed=seed,
            shared_weights=self.shared,
        )
        return values

    def measure_generator(
        self, trainer: Trainer, generator: Generator, device: torch.device, *, seed: int
    ) -> dict[str, float]:
        """All metrics of a generator by name. To be called on all ranks, which share the work."""
        fake = sample_features(
            self.extractor,
            generator,
            count=self._samples,
            seed=seed,
            device=device,
            classes=self._classes,
            track=track_on_bar(trainer),
        )
        return measure(self.extractor, self._real, fake)

    def _keep_if_best(self, trainer: Trainer, module: GenerativeModule, value: float) -> None:
        assert self.best is not None
        sign = -1 if LARGER_IS_BETTER[self.best] else 1
        if not math.isfinite(value) or (self._best_value is not None and sign * value >= sign * self._best_value):
            return
        self._best_value = value
        checkpoint, folder = self.run_dir / artefacts.BEST_CHECKPOINT, self.run_dir / artefacts.BEST
        save_files(trainer, module, checkpoint, folder, self.generator_config)
        if trainer.is_global_zero:
            about = {"images_seen": module.images_seen, "metrics": self.records}
            artefacts.write_json(folder / artefacts.METRICS, about)

    def _measured_until(self, images_seen: int) -> PrecisionRecall:
        """Precision and recall that this run measured before it was resumed; none if its curves are damaged."""
        with suppress(OSError, ValueError, csv.Error):
            return [point for point in precision_recall(read_curves(self.run_dir)) if point[0] <= images_seen]
        return []

    def _saved_best(self) -> float | None:
        """The metric of the best generator that this run kept before it was resumed; None if there is none."""
        ours = (self.best, self.extractor.name, self._samples, self.seed)  # others are not comparable
        try:
            records = json.loads(artefacts.read(self.run_dir, f"{artefacts.BEST}/{artefacts.METRICS}"))["metrics"]
            same = [r for r in records if (r["name"], r["extractor"], r["generated"], r["seed"]) == ours]
            return float(same[0]["value"])
        except (OSError, ValueError, LookupError, TypeError, RecursionError):  # none, or a damaged one
            return None


def _extractor(config: DictConfig, *, required: bool) -> Extractor:
    try:
        extractor: Extractor = instantiate(config)
    except WeightsError as error:
        if required:
            raise ValueError(f"{error}; or evaluation.required=false to measure on pixels instead") from error
        log.warning(f"{error}; evaluation.required=false: going on, measured on pixels")
        return PixelFeatures()
    return extractor
