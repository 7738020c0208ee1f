"""The comparison of samples with real images: metrics, novelty, and the samples nearest to training images."""

from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from transfergen.evaluation.extractors import Extractor
from transfergen.evaluation.measure import measure, metric_records
from transfergen.evaluation.neighbours import nearest
from transfergen.images import to_grid

NEIGHBOURS = 5
"""Reference images shown beside a sample."""


@dataclass(frozen=True)
class Comparison:
    """Features of samples and real images, and access to the images.

    Attributes:
        subject: what is compared, for JSON.
        extractor: of the features.
        fake: features (N, D) of the samples.
        real: features (M, D) of the real images that the samples are measured against.
        references: features (L, D) of the real images among which the nearest to a sample are searched; None for
            those of `real`.
        fake_image: index into `fake` -> image (3, R, R) in [-1, 1].
        reference_image: index into the references -> image (3, R, R) in [-1, 1].
        fake_name: index into `fake` -> seed or path.
        reference_name: index into the references -> number in the data set, or path.
        split: name of the `real` images.
        searched: name of the references.
        seed: of the first sample; None for images of unknown origin.
        shared: weights that the extractor shares with the training; None for none.

    Raises:
        ValueError: a set has fewer than two images.
    """

    subject: dict[str, Any]
    extractor: Extractor
    fake: Tensor
    real: Tensor
    references: Tensor | None
    fake_image: Callable[[int], Tensor]
    reference_image: Callable[[int], Tensor]
    fake_name: Callable[[int], int | str]
    reference_name: Callable[[int], int | str]
    split: str
    searched: str
    seed: int | None = None
    shared: str | None = None

    def __post_init__(self) -> None:
        if min(len(self.fake), len(self.real)) < 2:
            raise ValueError(
                f"{len(self.fake)} samples, {len(self.real)} real images ({self.split}): a distance needs two or more "
                "of each; set another split or folder"
            )

    @property
    def about(self) -> dict[str, Any]:
        """What was compared, and by which version of transfergen, for JSON."""
        return {"transfergen": version("transfergen"), **self.subject}

    def metrics(self) -> list[dict[str, Any]]:
        """All metrics, as `metric_records` gives them."""
        return self._records(measure(self.extractor, self.real, self.fake))

    def novelty(self) -> list[dict[str, Any]]:
        """The record of `nearest_distance_ratio`: 1 if samples are as new as unseen images, 0 if they are copies.

        It is the median distance from a sample to the nearest reference, divided by that from a real image that is no
        reference. Empty where the references are the `real` images themselves, or that median is 0.
        """
        if self.references is None:
            return []
        fake, real = (nearest(side, self.references)[0].median() for side in (self.fake, self.real))
        return [
            record | {"references": len(self.references)}
            for record in self._records({"nearest_distance_ratio": float(fake / real)} if real > 0 else {})
        ]

    def neighbours(self, rows: int, picture: Path) -> dict[str, Any]:
        """Save the `rows` samples nearest to a reference, each a row with its nearest references to the right.

        Args:
            rows: number of samples.
            picture: the image file to write.

        Returns:
            The names of these images and their distances, for JSON.
        """
        references = self.real if self.references is None else self.references
        distances, indices = nearest(self.fake, references, k=min(NEIGHBOURS, len(references)))
        closest = distances[:, 0].argsort()[:rows].tolist()
        images, samples = [], []
        for i in closest:
            found = indices[i].tolist()
            images += [self.fake_image(i), *map(self.reference_image, found)]
            names = [self.reference_name(j) for j in found]
            samples.append({"sample": self.fake_name(i), "nearest": names, "distances": distances[i].tolist()})
        picture.parent.mkdir(parents=True, exist_ok=True)
        to_grid(torch.stack(images), columns=1 + distances.shape[1]).save(picture)
        about = {"picture": str(picture), "among": self.searched, "references": len(references)}
        return {"neighbours": about | {"extractor": self.extractor.name, "samples": samples}}

    def _records(self, values: dict[str, float]) -> list[dict[str, Any]]:
        return metric_records(
            values,
            extractor=self.extractor,
            generated=len(self.fake),
            real=len(self.real),
            split=self.split,
            seed=self.seed,
            shared_weights=self.shared,
        )
