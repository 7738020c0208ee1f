"""The comparison of samples with real images: metrics, novelty, and the samples nearest to training images."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from transfergen.errors import counted
from transfergen.evaluation.distances import Gaussian, class_frechet, cmmd, frechet_infinity, mind
from transfergen.evaluation.extractors import Extractor
from transfergen.evaluation.measure import measure, metric_records, small_sample_warning
from transfergen.evaluation.neighbours import authenticity, nearest
from transfergen.evaluation.path_length import lpips, path_length
from transfergen.image_shape import ImageShape
from transfergen.images import to_grid
from transfergen.networks.generators.base import Generator
from transfergen.runs import artefacts

NEIGHBOURS = 5
"""Reference images shown beside a sample."""


@dataclass(frozen=True)
class ImageSet:
    """A set of images to be compared: their features, or the Gaussian of these, and the images where they are known.

    Attributes:
        title: for reports.
        known: features (N, D), or no more than their Gaussian.
        image: index -> image (C, H, W) in [-1, 1]; None: the images are not known.
        name: index -> seed, number in a data set, or path.
        shape: of the images; None: unknown.
        labels: classes (N,); None: unknown.
    """

    title: str
    known: Tensor | Gaussian
    image: Callable[[int], Tensor] | None = None
    name: Callable[[int], int | str] = int
    shape: ImageShape | None = None
    labels: Tensor | None = None

    @property
    def features(self) -> Tensor:
        """Features (N, D).

        Raises:
            ValueError: no more than their Gaussian is known.
        """
        if isinstance(self.known, Gaussian):
            raise ValueError(f"{self.title} holds a mean and a covariance only; give the images, or features of them")
        return self.known

    @property
    def count(self) -> int | None:
        """N; None if it is unknown."""
        return None if isinstance(self.known, Gaussian) else len(self.known)


@dataclass(frozen=True)
class Comparison:
    """Samples and the real images that they are compared with.

    Attributes:
        subject: what is compared, for JSON.
        extractor: of the features.
        fake: the samples.
        real: the real images that the samples are measured against.
        references: the real images among which the nearest to a sample are searched; may be `real`.
        searched: what to call the references.
        seed: of the first sample; None for images of unknown origin.
        shared: weights that the extractor shares with the training; None for none.
        generator: of the samples; None if it is not known.

    Raises:
        ValueError: there are fewer than two samples or real images.
    """

    subject: dict[str, Any]
    extractor: Extractor
    fake: ImageSet
    real: ImageSet
    references: ImageSet
    searched: str
    seed: int | None = None
    shared: str | None = None
    generator: Generator | None = None

    def __post_init__(self) -> None:
        fake, real = len(self.fake.features), self.real.count
        if fake < 2 or (real is not None and real < 2):
            sizes = ", ".join([counted(fake, "sample"), *([] if real is None else [counted(real, "real image")])])
            raise ValueError(
                f"{sizes} ({self.real.title}): a distance needs two or more of each; set another split or folder"
            )

    @property
    def has_images(self) -> bool:
        """Whether the samples and the references can be shown."""
        return None not in (self.fake.image, self.references.image)

    def metrics(self) -> list[dict[str, Any]]:
        """All metrics, as `metric_records` gives them."""
        return self._records(measure(self.extractor, self.real.known, self.fake.features))

    def novelty(self) -> list[dict[str, Any]]:
        """The record of `nearest_distance_ratio`: 1 if samples are as new as unseen images, 0 if they are copies.

        It is the median distance from a sample to the nearest reference, divided by that from a `real` image. Empty
        where these are the references themselves, or their median distance is 0.
        """
        if self.references is self.real:
            return []
        references = self.references.features
        fake, real = (nearest(images.features, references)[0].median() for images in (self.fake, self.real))
        if real == 0:
            return []
        (record,) = self._records({"nearest_distance_ratio": float(fake / real)})
        return [record | {"references": len(references)}]

    def further(self, name: str) -> dict[str, Any]:
        """The record of one of the `EXTRA` metrics.

        Raises:
            ValueError: these images do not allow it. The message begins with `extra=[NAME]`.
        """
        try:
            value, facts = EXTRA[name](self)
        except ValueError as error:
            raise ValueError(f"extra=[{name}]: {error}") from error
        (record,) = self._records({name: float(value)})
        return record | facts

    def neighbours(self, rows: int, picture: Path) -> dict[str, Any]:
        """Save the `rows` samples nearest to a reference, each a row with its nearest references to the right.

        Args:
            rows: number of samples.
            picture: the image file to write.

        Returns:
            The names of these images and their distances, for JSON.
        """
        references = self.references.features
        distances, indices = nearest(self.fake.features, references, k=min(NEIGHBOURS, len(references)))
        assert self.fake.image
        assert self.references.image
        closest = distances[:, 0].argsort()[:rows].tolist()
        images, samples = [], []
        for i in closest:
            found = indices[i].tolist()
            images += [self.fake.image(i), *map(self.references.image, found)]
            names = [self.references.name(j) for j in found]
            samples.append({"sample": self.fake.name(i), "nearest": names, "distances": distances[i].tolist()})
        artefacts.write_picture(picture, to_grid(torch.stack(images), columns=1 + distances.shape[1]))
        about = {"picture": str(picture), "among": self.searched, "references": len(references)}
        return {"neighbours": about | {"extractor": self.extractor.name, "samples": samples}}

    def _records(self, values: dict[str, float]) -> list[dict[str, Any]]:
        return metric_records(
            values,
            extractor=self.extractor,
            generated=len(self.fake.features),
            real=self.real.count,
            split=self.real.title,
            seed=self.seed,
            shared_weights=self.shared,
        )


_Extra = tuple[Tensor, dict[str, Any]]
"""A metric's value, and the entries that its record has in place of those of `Comparison.metrics`, or besides."""


def _frechet_infinity(comparison: Comparison) -> _Extra:
    real, fake = comparison.real, comparison.fake.features
    fewest = min(len(fake) // 10, real.count or len(fake))
    what = "the Fréchet distance that frechet_infinity begins with"
    return frechet_infinity(real.known, fake), _warning(comparison.extractor, fewest, what)


def _class_frechet(comparison: Comparison) -> _Extra:
    real, fake = comparison.real, comparison.fake
    if real.labels is None or fake.labels is None:
        raise ValueError("needs a run whose generator knows classes, and its own data")
    value = class_frechet(real.features, real.labels, fake.features, fake.labels)
    sizes = [int((each.labels == label).sum()) for each in (real, fake) for label in set(real.labels.tolist())]
    return value, _warning(comparison.extractor, min(sizes), "the Fréchet distance within a class")


def _warning(extractor: Extractor, fewest: int, what: str) -> dict[str, str]:
    return {"warning": small_sample_warning(extractor, fewest, what)} if fewest < extractor.dimensions else {}


def _mind(comparison: Comparison) -> _Extra:
    real, fake = comparison.real.features, comparison.fake.features
    return mind(real, fake), dict.fromkeys(("generated", "real"), min(len(real), len(fake)))


def _cmmd(comparison: Comparison) -> _Extra:
    return cmmd(comparison.real.features, comparison.fake.features), {}


def _authenticity(comparison: Comparison) -> _Extra:
    real, references = comparison.real, comparison.references
    facts: dict[str, Any] = {"real": len(references.features), "split": references.title}
    if references is not real:
        facts["value_of_real"] = float(authenticity(references.features, real.features))
    return authenticity(references.features, comparison.fake.features), facts


def _path_length(comparison: Comparison) -> _Extra:
    if comparison.generator is None or comparison.seed is None:
        raise ValueError("needs a run, through whose latents it goes")
    count = len(comparison.fake.features)
    value = path_length(comparison.generator, lpips(), count=count, seed=comparison.seed)
    facts = {"extractor": "vgg16, LPIPS", "real": None, "split": "none"}
    return value, facts | {"shares_weights_with_discriminator": None}


EXTRA: dict[str, Callable[[Comparison], _Extra]] = {
    "frechet_infinity": _frechet_infinity,
    "class_frechet": _class_frechet,
    "mind": _mind,
    "cmmd": _cmmd,
    "authenticity": _authenticity,
    "path_length": _path_length,
}
"""Metrics that are computed only where they are asked for, by name."""
