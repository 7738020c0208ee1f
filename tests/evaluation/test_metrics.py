"""The metrics in the loops of other people: in batches, in collections, in a LightningModule, on two ranks."""

import pytest
import torch
from lightning import LightningModule, Trainer
from ranks import on_two_ranks
from torch import nn
from torch.utils.data import DataLoader, TensorDataset
from torchmetrics import MetricCollection

from transfergen.evaluation import distances, neighbours
from transfergen.evaluation.extractors import PixelFeatures
from transfergen.evaluation.metrics import (
    CMMD,
    Authenticity,
    ClassFrechetDistance,
    DensityCoverage,
    Diversity,
    FrechetDistance,
    FrechetInfinity,
    InceptionScore,
    KernelDistance,
    MongeInceptionDistance,
    PrecisionRecall,
    SlicedWasserstein,
)

CASES = [
    (FrechetDistance, {}, distances.frechet),
    (KernelDistance, {}, distances.kernel),
    (SlicedWasserstein, {}, lambda real, fake: distances.sliced_wasserstein(fake[:30], real[:30])),
    (InceptionScore, {"splits": 3}, lambda _, fake: distances.inception_score(fake, splits=3)[0]),
    (PrecisionRecall, {"k": 2}, lambda real, fake: neighbours.precision_recall(real, fake, k=2)),
    (DensityCoverage, {"k": 2}, lambda real, fake: neighbours.density_coverage(real, fake, k=2)),
    (Diversity, {}, distances.diversity),
    (FrechetInfinity, {}, distances.frechet_infinity),
    (MongeInceptionDistance, {}, distances.mind),
    (CMMD, {}, distances.cmmd),
    (Authenticity, {}, neighbours.authenticity),
]


class Counting(PixelFeatures):
    """Pixels, and how many batches were extracted."""

    batches = 0

    def forward(self, images):
        self.batches += 1
        return super().forward(images)


def features():
    """Features of 40 real images and of 30 samples."""
    generator = torch.Generator().manual_seed(0)
    return torch.randn(40, 12, generator=generator), 0.8 * torch.randn(30, 12, generator=generator) + 0.3


def updated(metric, real, fake, batch_size=7):
    """The metric after an update for each batch, those of both kinds in turn."""
    for start in range(0, max(len(real), len(fake)), batch_size):
        for part, is_real in ((real, True), (fake, False)):
            if len(part) > start:
                metric.update(part[start : start + batch_size], real=is_real)
    return metric


def by_name(metric, computed):
    return computed if isinstance(computed, dict) else {metric.names[0]: computed}


@pytest.mark.parametrize(("kind", "settings", "function"), CASES, ids=[case[0].__name__ for case in CASES])
def test_batches_give_what_the_function_gives_for_all_features(kind, settings, function):
    metric = kind(**settings)
    real, fake = features()
    for pair in ((real, fake), (2 * fake, real)):  # the second after a reset
        found, expected = by_name(metric, updated(metric, *pair).compute()), function(*pair)
        assert tuple(found) == metric.names
        assert list(found.values()) == list(expected if isinstance(expected, tuple) else [expected])
        metric.reset()


def test_published_statistics_take_the_place_of_real_images():
    real, fake = features()
    for kind in (FrechetDistance, FrechetInfinity):
        metric = kind(reference=distances.fit_gaussian(real))
        metric.update(fake, real=False)
        assert float(metric.compute()) == pytest.approx(float(updated(kind(), real, fake).compute()), rel=1e-9)


def test_classes_come_with_the_batches():
    real, fake = features()
    classes = torch.arange(40) % 3
    collection = MetricCollection([FrechetDistance(), ClassFrechetDistance()])
    for start in range(0, 40, 20):
        end = start + 20
        collection.update(real[start:end], real=True, labels=classes[start:end])
        collection.update(fake[start:end], real=False, labels=classes[:30][start:end])
    expected = distances.class_frechet(real, classes, fake, classes[:30])
    assert collection.compute() == {"FrechetDistance": distances.frechet(real, fake), "ClassFrechetDistance": expected}


def test_images_go_through_the_extractor():
    images = torch.rand(2, 20, 3, 32, 32) * 2 - 1
    extractor = PixelFeatures(size=2)
    metric = updated(FrechetDistance(extractor), *images)
    assert metric.compute() == distances.frechet(extractor(images[0]), extractor(images[1]))


def test_inception_score_takes_the_logits_of_the_features():
    _, fake = features()
    classifier = nn.Linear(12, 5)
    metric = InceptionScore(to_logits=classifier, splits=2)
    metric.update(fake, real=False)
    assert metric.compute() == distances.inception_score(classifier(fake), splits=2)[0]


def test_a_collection_extracts_features_once_a_batch():
    extractor = Counting(size=2)
    images = torch.rand(2, 24, 3, 32, 32) * 2 - 1
    kinds = (InceptionScore, FrechetDistance, KernelDistance, PrecisionRecall, Diversity)
    collection = updated(MetricCollection([kind(extractor) for kind in kinds]), *images, batch_size=8)
    assert extractor.batches == len(kinds) + 5  # each metric its own first batch
    values = collection.compute()
    assert set(values) == {
        "InceptionScore",
        "FrechetDistance",
        "KernelDistance",
        "Diversity",
        "precision",
        "recall",
    }
    real, fake = map(extractor, images)
    assert values["FrechetDistance"] == distances.frechet(real, fake)
    assert values["precision"] == neighbours.precision_recall(real, fake)[0]


def test_without_images_of_a_kind_there_is_no_distance():
    metric = FrechetDistance()
    metric.update(features()[0], real=True)
    with pytest.raises(ValueError, match="No samples"):
        metric.compute()


class SomebodyElses(LightningModule):
    """A LightningModule that has nothing to do with transfergen's own, and logs the metrics."""

    def __init__(self):
        super().__init__()
        self.generator = nn.Linear(4, 3 * 32 * 32)
        extractor = PixelFeatures(size=2)
        self.distance = FrechetDistance(extractor)
        self.recall = PrecisionRecall(extractor)
        self.shown = []

    def validation_step(self, batch, batch_idx):
        (images,) = batch
        z = torch.randn(len(images), 4, generator=torch.Generator().manual_seed(batch_idx))
        fake = self.generator(z).tanh().view_as(images)
        self.shown.append((images, fake))
        for metric in (self.distance, self.recall):
            metric.update(images, real=True)
            metric.update(fake, real=False)
        self.log("distance", self.distance)

    def on_validation_epoch_end(self):
        self.log_dict(self.recall.compute())
        self.recall.reset()


def test_the_metrics_log_in_anyones_lightning_module(tmp_path):
    module = SomebodyElses()
    images = DataLoader(TensorDataset(torch.rand(20, 3, 32, 32) * 2 - 1), batch_size=6)
    trainer = Trainer(
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        default_root_dir=tmp_path,
    )
    for _ in range(2):  # the second epoch starts anew
        module.shown.clear()
        (logged,) = trainer.validate(module, images, verbose=False)
        real, fake = (PixelFeatures(size=2)(torch.cat(side)) for side in zip(*module.shown, strict=True))
        precision, recall = neighbours.precision_recall(real, fake)
        expected = {"distance": distances.frechet(real, fake), "precision": precision, "recall": recall}
        assert logged == {name: pytest.approx(value.item(), rel=1e-6) for name, value in expected.items()}


def computed(rank):
    """Each metric of all images, of which this rank has 24 and 15, or 16 and 15, in batches."""
    real, fake = features()
    parts = [
        [(True, real[:12]), (False, fake[:15]), (True, real[12:24])],
        [(False, fake[15:20]), (True, real[24:]), (False, fake[20:])],
    ]
    values = []
    for kind, settings, _ in CASES:
        metric = kind(**settings)
        for is_real, part in parts[rank]:
            metric.update(part, real=is_real)
        values.append(metric.compute())
    return values


def test_two_ranks_compute_the_metrics_of_all_images(tmp_path):
    real, fake = features()
    for found in on_two_ranks(tmp_path, computed):
        for (kind, settings, _), values in zip(CASES, found, strict=True):
            assert values == updated(kind(**settings), real, fake).compute()
