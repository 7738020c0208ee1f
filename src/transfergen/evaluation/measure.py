"""All metrics between features of real images and of samples, with the facts they depend on."""

from typing import Any

import torch
from rich.console import Group
from rich.table import Column, Table
from rich.text import Text
from torch import Tensor
from torchmetrics import MetricCollection

from transfergen.distributed import all_gather_objects, rank_and_world_size
from transfergen.evaluation import metrics
from transfergen.evaluation.distances import Gaussian
from transfergen.evaluation.extractors import Extractor, PixelFeatures

LARGER_IS_BETTER = {name: m.higher_is_better for m in metrics.ALL for name in m.names} | {
    "nearest_distance_ratio": True,
    "path_length": False,
}
"""For each reported metric by name, in the order of the report; None: neither larger nor smaller is better."""
MIN_SAMPLES = 256
"""Samples that are drawn at least: as few of them as there are test images would make a distance a matter of luck."""


def sample_count(real: int, most: int) -> int:
    """The number of samples to measure against `real` images, themselves `most` at most.

    As many, or a multiple of it, so that each class keeps its share; `MIN_SAMPLES` or more where `most` allows.
    """
    real = min(real, most)
    return real * max(1, min(-(-MIN_SAMPLES // real), most // real)) if real else 0


def measurable(extractor: Extractor, real: int, fake: int) -> list[str]:
    """Names of what `measure` returns for this extractor and these numbers of images."""
    names = {name for metric in _metrics(extractor, real, fake) for name in metric.names}
    return [name for name in LARGER_IS_BETTER if name in names]


def measure(extractor: Extractor, real: Tensor | Gaussian, fake: Tensor) -> dict[str, float]:
    """All metrics that features (N, D) of real images and (M, D) of samples allow, by name.

    To be called with the same features on all ranks: each rank computes some metrics, and all return the same dict.

    Args:
        extractor: of the features. `sliced_wasserstein` is for pixels only, `inception_score` for classifiers only.
        real: features of real images. With no more than their Gaussian, what needs each of them is left out.
        fake: features of samples.
    """
    rank, world_size = rank_and_world_size()
    share = _metrics(extractor, real if isinstance(real, Gaussian) else len(real), len(fake))[rank::world_size]
    ours = MetricCollection({metric.names[0]: metric for metric in share}, compute_groups=False)
    if isinstance(real, Tensor):
        ours.update(real, real=True)
    ours.update(fake, real=False)
    values: dict[str, float] = {}
    for part in all_gather_objects({name: float(value) for name, value in ours.compute().items()}):
        values |= part
    return {name: values[name] for name in LARGER_IS_BETTER if name in values}


def _metrics(extractor: Extractor, real: int | Gaussian, fake: int) -> list[metrics.FeatureMetric]:
    """The metrics that these numbers of images, or statistics of the real ones, allow, the slowest ones first."""
    here: dict[str, Any] = {"sync_on_compute": False}  # all ranks have all features
    allowed: list[metrics.FeatureMetric] = []
    if isinstance(real, Gaussian):
        fewest, reference = 0, real
    else:
        fewest, reference = min(real, fake), None
    allowed += [m for m in (metrics.PrecisionRecall(**here), metrics.DensityCoverage(**here)) if fewest > m.k]
    if fake >= 2 and (fewest >= 2 or reference):
        allowed.append(metrics.FrechetDistance(reference=reference, **here))
    if fewest >= 2:
        allowed += [metrics.KernelDistance(**here), metrics.Diversity(**here)]
    if fewest >= 2 and isinstance(extractor, PixelFeatures):
        allowed.append(metrics.SlicedWasserstein(**here))
    score = metrics.InceptionScore(to_logits=lambda features: _logits(extractor, features), **here)
    if fake >= score.splits and _logits(extractor, torch.zeros(1, extractor.dimensions)) is not None:
        allowed.append(score)
    return allowed


@torch.no_grad()
def _logits(extractor: Extractor, features: Tensor) -> Any:
    """Features (B, D) -> class logits (B, K) on the CPU; None if the extractor is no classifier."""
    weights = next(extractor.parameters(), None)
    logits = extractor.score_logits(features if weights is None else features.to(weights.device))
    return None if logits is None else logits.cpu()


def metric_records(
    values: dict[str, float],
    *,
    extractor: Extractor,
    generated: int,
    real: int | None,
    split: str,
    seed: int | None,
    shared_weights: str | None,
) -> list[dict[str, Any]]:
    """One dict for each metric, with all that its value depends on, for JSON.

    Args:
        values: metrics by name.
        extractor: of the features that they were computed on.
        generated: number of samples.
        real: number of real images; None if it is unknown.
        split: of the real images.
        seed: of the first sample; None for images of unknown origin.
        shared_weights: pretrained weights that extractor and training share; None for none.
    """
    records = []
    for name, value in values.items():
        record = {
            "name": name,
            "value": value,
            "larger_is_better": LARGER_IS_BETTER[name],
            "extractor": extractor.name,
            "generated": generated,
            "real": real,
            "split": split,
            "seed": seed,
            "shares_weights_with_discriminator": shared_weights,
        }
        fewest = min(filter(None, (generated, real)))
        if "frechet" in name and fewest < extractor.dimensions:
            record["warning"] = small_sample_warning(extractor, fewest)
        records.append(record)
    return records


def small_sample_warning(extractor: Extractor, images: int, what: str = "the Fréchet distance") -> str:
    """The warning that a Fréchet distance, called `what`, on so few images is biased."""
    return (
        f"{what} on {images} images is biased upwards, since they are fewer than the "
        f"{extractor.dimensions} dimensions of {extractor.name}; go by the kernel distance"
    )


def to_table(records: list[dict[str, Any]], *, warnings: bool = True) -> Group:
    """Records of one extractor -> a table for the screen, with what they depend on below it.

    Args:
        records: what `metric_records` gives.
        warnings: whether theirs are below the table; False where they have been told before.
    """
    first = records[0]
    about = _about(first)
    others = [f"{record['name']}: {_about(record)}" for record in records if _about(record) != about]
    notes = [about, *others, *(listed_warnings(records) if warnings else ())]
    if first["shares_weights_with_discriminator"]:
        notes.append(f"the training shares the weights of {first['shares_weights_with_discriminator']}")
    table = Table("metric", Column("value", justify="right"), "better")
    for record in records:
        better = {True: "larger", False: "smaller", None: ""}[record["larger_is_better"]]
        if "value_of_real" in record:
            better = f"real images have {record['value_of_real']:.4g}"
        table.add_row(record["name"], f"{record['value']:.4g}", better)
    return Group(table, *map(Text, notes))


def listed_warnings(records: list[dict[str, Any]]) -> list[str]:
    """The warnings of records, each once."""
    return list(dict.fromkeys(record["warning"] for record in records if "warning" in record))


def _about(record: dict[str, Any]) -> str:
    count = "" if record["real"] is None else f"{record['real']:,} "
    real = "" if record["split"] == "none" else f", {count}real images ({record['split']})"
    return f"{record['extractor']}; {record['generated']:,} generated{real}"
