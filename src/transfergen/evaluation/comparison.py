"""Samples and real images held against each other: all numbers, and the samples nearest to what was trained on."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from transfergen.evaluation.extractors import Extractor
from transfergen.evaluation.measure import measure, metric_records
from transfergen.evaluation.neighbours import nearest
from transfergen.images import to_grid

SHOWN = 5
"""Nearest real images beside a sample."""


@dataclass(frozen=True)
class Comparison:
    """Features (N, D) of both sides, and how to get at their images.

    Attributes:
        about: what was compared, for JSON.
        extractor: gave the features.
        fake, real: those of samples and of the reals that they are measured against.
        references: those of the reals among which the nearest to a sample are looked for; None: among `real`.
        fake_image, reference_image: position -> image (3, R, R) in [-1, 1].
        fake_name, reference_name: position -> seed or number in the set, or path.
        split, searched: what to call `real` and `references`.
        seed: of the first sample; None for pictures from elsewhere.
        shared: weights that the extractor has in common with the discriminator; None for none.
    """

    about: dict[str, Any]
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

    def metrics(self) -> list[dict[str, Any]]:
        """Every number, as `evaluation.entries` has them."""
        return self._entries(measure(self.extractor, self.real, self.fake))

    def novelty(self) -> list[dict[str, Any]]:
        """`nearest_distance_ratio`: how far samples are from the training set, as a part of how far unseen reals are.

        The ratio of the median distances to the nearest; 1 as for new images, 0 for copies. Nothing where there are no
        reals beside the references.
        """
        if self.references is None:
            return []
        ours, theirs = (nearest(side, self.references)[0].median() for side in (self.fake, self.real))
        return [
            entry | {"references": len(self.references)}
            for entry in self._entries({"nearest_distance_ratio": float(ours / theirs)} if theirs > 0 else {})
        ]

    def neighbours(self, rows: int, picture: Path) -> dict[str, Any]:
        """The samples that are nearest to a reference, each a row of `picture` with its nearest ones to the right."""
        references = self.real if self.references is None else self.references
        distances, indices = nearest(self.fake, references, k=min(SHOWN, len(references)))
        closest = distances[:, 0].argsort()[:rows].tolist()
        images, listed = [], []
        for i in closest:
            found = indices[i].tolist()
            images += [self.fake_image(i), *map(self.reference_image, found)]
            names = [self.reference_name(j) for j in found]
            listed.append({"sample": self.fake_name(i), "nearest": names, "distances": distances[i].tolist()})
        picture.parent.mkdir(parents=True, exist_ok=True)
        to_grid(torch.stack(images), columns=1 + distances.shape[1]).save(picture)
        about = {"picture": str(picture), "among": self.searched, "references": len(references)}
        return {"neighbours": about | {"extractor": self.extractor.name, "samples": listed}}

    def _entries(self, values: dict[str, float]) -> list[dict[str, Any]]:
        return metric_records(
            values,
            extractor=self.extractor,
            generated=len(self.fake),
            real=len(self.real),
            split=self.split,
            seed=self.seed,
            shared_weights=self.shared,
        )
