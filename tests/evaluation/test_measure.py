import json

import pytest
import torch
from rich.console import Console

from transfergen.evaluation.comparison import EXTRA, Comparison, ImageSet
from transfergen.evaluation.distances import kernel
from transfergen.evaluation.extractors import PixelFeatures
from transfergen.evaluation.measure import (
    LARGER_IS_BETTER,
    measurable,
    measure,
    metric_records,
    sample_count,
    to_table,
)


class Classes(PixelFeatures):
    """Pixels whose first ten are class logits."""

    def score_logits(self, features):
        return features[:, :10]


def test_all_metrics_are_measured_and_recorded_with_what_they_depend_on():
    extractor, (real, fake) = Classes(), torch.randn(2, 40, 768)
    values = measure(extractor, real, fake)
    assert list(values) == [name for name in LARGER_IS_BETTER if name not in {"nearest_distance_ratio", *EXTRA}]
    assert set(measurable(PixelFeatures(), 40, 40)) == set(values) - {"inception_score"}
    records = metric_records(
        values, extractor=extractor, generated=40, real=40, split="test", seed=7, shared_weights="vgg19.tv_in1k"
    )
    assert json.loads(json.dumps(records)) == records
    for record in records:
        assert record["value"] == values[record["name"]]
        about = (record["extractor"], record["generated"], record["real"], record["split"], record["seed"])
        assert about == ("pixels, 16x16", 40, 40, "test", 7)
        assert record["shares_weights_with_discriminator"] == "vgg19.tv_in1k"
        assert ("warning" in record) == (record["name"] == "frechet_distance")


def test_a_frechet_distance_on_fewer_images_than_dimensions_has_a_warning():
    extractor = PixelFeatures(size=2)
    settings = {"extractor": extractor, "split": "test", "seed": 0, "shared_weights": None}
    for images, biased in ((11, True), (12, False)):
        values = {"frechet_distance": 1.0, "class_frechet": 1.0, "kernel_distance": 1.0}
        records = metric_records(values, generated=100, real=images, **settings)
        assert ["warning" in record for record in records] == [biased, biased, False]
        assert metric_records(values, generated=images, real=None, **settings)[0].get("warning") == records[0].get(
            "warning"
        )


def test_few_images_get_the_metrics_that_they_allow():
    for count in range(1, 7):
        names = measurable(PixelFeatures(), count, count)
        values = measure(PixelFeatures(), *torch.randn(2, count, 768))
        assert list(values) == names
        assert ("kernel_distance" in names, "recall" in names, "coverage" in names) == (count > 1, count > 3, count > 5)


def test_diversity_is_the_spread_of_samples_relative_to_real_images():
    real = torch.randn(30, 768)
    shifted = real * 0.25 + 3
    assert measure(PixelFeatures(), real, shifted)["diversity"] == pytest.approx(0.25, rel=1e-5)


def test_the_table_holds_each_metric_and_what_it_depends_on(capsys):
    (real, fake) = torch.randn(2, 10, 768)
    values = measure(PixelFeatures(), real, fake)
    records = metric_records(
        values, extractor=PixelFeatures(), generated=10, real=10, split="test", seed=0, shared_weights="vgg19.tv_in1k"
    )
    Console(width=200).print(to_table(records))
    shown = capsys.readouterr().out
    for word in (*values, "pixels, 16x16", "10 generated", "(test)", "biased", "shares the weights of vgg19.tv_in1k"):
        assert word in shown


def test_the_distances_of_classes_and_of_an_extrapolation_are_warned_of_by_their_smallest_sets():
    images = ImageSet("test", torch.randn(120, 12), labels=torch.arange(120) % 10)  # 12 of each class, and in a tenth
    less = ImageSet("samples", images.features[:-1], labels=images.labels[:-1])
    settings = {"extractor": PixelFeatures(size=2), "real": images, "references": images, "searched": "real"}
    for fake, biased in ((images, False), (less, True)):
        for name in ("class_frechet", "frechet_infinity"):
            record = Comparison({}, fake=fake, **settings).further(name)
            assert ("11 images is biased upwards" in record.get("warning", "")) == biased
            assert ("warning" in record) == biased


@pytest.mark.parametrize(
    ("real", "most", "samples"),
    [
        (10, 2048, 260),
        (2, 2048, 256),
        (255, 2048, 510),
        (256, 2048, 256),
        (300, 2048, 300),
        (5000, 2048, 2048),
        (10, 16, 10),
        (10, 35, 30),
        (10, 9, 9),
        (0, 2048, 0),
    ],
)
def test_few_real_images_are_measured_against_more_samples_which_keep_the_shares_of_classes(real, most, samples):
    assert sample_count(real, most) == samples


def test_among_ten_real_images_that_many_samples_tell_better_generators_more_often():
    torch.manual_seed(0)
    right = {}
    for samples in (10, sample_count(10, 2048)):
        right[samples] = 0
        for _ in range(200):
            real, better, worse = torch.randn(10, 8), torch.randn(samples, 8), torch.randn(samples, 8) + 0.5
            right[samples] += int(kernel(real, better) < kernel(real, worse))
    assert right[10] < 0.9 * right[260]
