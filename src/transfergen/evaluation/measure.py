"""Samples against real images: every number that their features give, with all that it depends on."""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from rich.console import Group
from rich.table import Table
from rich.text import Text
from torch import Tensor

from transfergen.distributed import all_gather_objects, rank_and_world_size
from transfergen.evaluation.distances import frechet, inception_score, kernel, sliced_wasserstein
from transfergen.evaluation.extractors import Extractor, PixelFeatures
from transfergen.evaluation.neighbours import density_coverage, precision_recall

PR_K, DC_K, IS_SPLITS = 3, 5, 10

LARGER_IS_BETTER = {
    "frechet_distance": False,
    "kernel_distance": False,
    "sliced_wasserstein": False,
    "inception_score": True,
    "precision": True,
    "recall": True,
    "density": True,
    "coverage": True,
    "diversity": True,
    "nearest_distance_ratio": True,
}
"""Every number that is reported, in this order."""


def measurable(extractor: Extractor, real: int, fake: int) -> list[str]:
    """Names of what `measure` gives for so many images."""
    least = min(real, fake)
    names = ["frechet_distance", "kernel_distance", "diversity"] if least >= 2 else []
    if isinstance(extractor, PixelFeatures) and least >= 2:
        names += ["sliced_wasserstein"]
    if _has_classes(extractor) and fake >= IS_SPLITS:
        names += ["inception_score"]
    if least > PR_K:
        names += ["precision", "recall"]
    if least > DC_K:
        names += ["density", "coverage"]
    return [name for name in LARGER_IS_BETTER if name in names]


def measure(extractor: Extractor, real: Tensor, fake: Tensor) -> dict[str, float]:
    """All that can be measured between features (N, D) of reals and (M, D) of samples.

    `sliced_wasserstein` is for pixels alone. `diversity` is how far the samples' features are apart, as a part of how
    far the reals' are: the root of the ratio of their mean squared pairwise distances.

    To be called on all ranks: each computes some, and all return the same numbers.
    """
    n = min(len(real), len(fake))
    ways: dict[tuple[str, ...], Callable[[], Iterable[Tensor]]] = {
        ("precision", "recall"): lambda: precision_recall(real, fake, k=PR_K),
        ("density", "coverage"): lambda: density_coverage(real, fake, k=DC_K),
        ("frechet_distance",): lambda: [frechet(real, fake)],
        ("kernel_distance",): lambda: [kernel(real, fake)],
        ("sliced_wasserstein",): lambda: [sliced_wasserstein(fake[:n], real[:n])],
        ("inception_score",): lambda: inception_score(_logits(extractor, fake), splits=IS_SPLITS)[:1],
        ("diversity",): lambda: [(fake.double().var(0).sum() / real.double().var(0).sum()).sqrt()],
    }
    names = measurable(extractor, len(real), len(fake))
    due = [group for group in ways if group[0] in names]
    rank, world = rank_and_world_size()
    values: dict[str, float] = {}
    for group in due[rank::world]:
        values |= zip(group, map(float, ways[group]()), strict=True)
    for part in all_gather_objects(values):
        values |= part
    return {name: values[name] for name in names}


def metric_records(
    values: dict[str, float],
    *,
    extractor: Extractor,
    generated: int,
    real: int,
    split: str,
    seed: int | None,
    shared_weights: str | None,
) -> list[dict[str, Any]]:
    """Each number with all that it depends on, for JSON.

    Args:
        values: by name.
        extractor: which measured them.
        generated: how many samples.
        real: how many reals.
        split: of the reals.
        seed: of the first sample; None for pictures from elsewhere.
        shared_weights: those that extractor and discriminator have in common.
    """
    listed = []
    for name, value in values.items():
        entry = {
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
        if name == "frechet_distance" and min(generated, real) < extractor.dimensions:
            entry["warning"] = small_sample_warning(extractor, min(generated, real))
        listed.append(entry)
    return listed


def small_sample_warning(extractor: Extractor, images: int) -> str:
    """What to say of a Fréchet distance on too few images."""
    return (
        f"the Fréchet distance on {images} images is biased upwards, since they are fewer than the "
        f"{extractor.dimensions} dimensions of {extractor.name}; go by the kernel distance"
    )


def _has_classes(extractor: Extractor) -> bool:
    return _logits(extractor, torch.zeros(1, extractor.dimensions)) is not None


@torch.no_grad()
def _logits(extractor: Extractor, features: Tensor) -> Any:
    weights = next(extractor.parameters(), None)
    logits = extractor.score_logits(features if weights is None else features.to(weights.device))
    return None if logits is None else logits.cpu()


def to_table(listed: list[dict[str, Any]]) -> Group:
    """Entries of one extractor -> a table for the screen, with what they depend on below it."""
    first = listed[0]
    about = f"{first['extractor']}; {first['generated']:,} generated, {first['real']:,} real images ({first['split']})"
    notes = [about, *(entry["warning"] for entry in listed if "warning" in entry)]
    if first["shares_weights_with_discriminator"]:
        notes.append(f"the training shares the weights of {first['shares_weights_with_discriminator']}")
    table = Table()
    table.add_column("metric")
    table.add_column("value", justify="right")
    table.add_column("better")
    for entry in listed:
        better = "larger" if entry["larger_is_better"] else "smaller"
        table.add_row(entry["name"], f"{entry['value']:.4g}", better)
    return Group(table, *map(Text, notes))
