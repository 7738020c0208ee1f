"""The evaluation metrics as `torchmetrics.Metric`s, for use in any loop or LightningModule.

    extractor = InceptionFeatures()
    metrics = MetricCollection([FrechetDistance(extractor), PrecisionRecall(extractor)])
    metrics.update(real_images, real=True)
    metrics.update(fake_images, real=False)
    metrics.compute()  # {"FrechetDistance": ..., "precision": ..., "recall": ...}

All metrics keep the same states. So in a `MetricCollection` with one extractor the first batch goes through it once for
each metric, and every other batch once in all.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, ClassVar

from torch import Tensor, nn
from torchmetrics import Metric
from torchmetrics.utilities import dim_zero_cat

from transfergen.evaluation.distances import (
    Gaussian,
    class_frechet,
    cmmd,
    diversity,
    frechet,
    frechet_infinity,
    inception_score,
    kernel,
    mind,
    sliced_wasserstein,
)
from transfergen.evaluation.neighbours import authenticity, density_coverage, precision_recall


class FeatureMetric(Metric):
    """Collects features of real and generated images; `compute` joins those of all batches and ranks.

    Every feature is kept: those of 10,000 images in 2048 dimensions take 80 MB.

    Args:
        extractor: images (B, C, H, W) in [-1, 1] -> features (B, D); None where `update` is given features.
        settings: of `torchmetrics.Metric`, such as `compute_on_cpu`.

    Attributes:
        names: what `compute` returns: a scalar of this name or, of several, a dict of scalars by name.
    """

    is_differentiable = False
    full_state_update = False
    names: ClassVar[tuple[str, ...]]
    _measure: Callable[[Tensor, Tensor], Tensor | tuple[Tensor, ...]]
    """The metric of features (N, D) of real images and (M, D) of generated ones."""
    real_features: list[Tensor]
    fake_features: list[Tensor]

    def __init__(self, extractor: nn.Module | None = None, **settings: Any) -> None:
        super().__init__(**settings)
        self.extractor = extractor
        self.add_state("real_features", [], dist_reduce_fx="cat")
        self.add_state("fake_features", [], dist_reduce_fx="cat")

    def update(self, images: Tensor, *, real: bool) -> None:
        """Add images (B, C, H, W) in [-1, 1], or features (B, D) where there is no extractor."""
        features = images if self.extractor is None else self.extractor(images)
        (self.real_features if real else self.fake_features).append(features)

    def compute(self) -> Tensor | dict[str, Tensor]:
        """The metric of all images so far, see `names`.

        Raises:
            ValueError: there are no real images, no generated ones, or too few.
        """
        values = self._measure(dim_zero_cat(self.real_features), dim_zero_cat(self.fake_features))
        return values if isinstance(values, Tensor) else dict(zip(self.names, values, strict=True))


class FrechetDistance(FeatureMetric):
    """Fréchet distance, see `distances.frechet`.

    Args:
        extractor, settings: see `FeatureMetric`.
        reference: the Gaussian of the real images, which are then not needed.
    """

    names = ("frechet_distance",)
    higher_is_better = False
    _measure: Callable[[Tensor | Gaussian, Tensor], Tensor] = staticmethod(frechet)

    def __init__(
        self, extractor: nn.Module | None = None, *, reference: Gaussian | None = None, **settings: Any
    ) -> None:
        super().__init__(extractor, **settings)
        self.reference = reference

    def compute(self) -> Tensor:
        """The distance of all images so far, a scalar."""
        if self.reference is None:
            return self._measure(dim_zero_cat(self.real_features), dim_zero_cat(self.fake_features))
        fake = dim_zero_cat(self.fake_features)
        return self._measure(Gaussian(*(part.to(fake.device) for part in self.reference)), fake)


class KernelDistance(FeatureMetric):
    """Kernel distance, see `distances.kernel`."""

    names = ("kernel_distance",)
    higher_is_better = False
    _measure = staticmethod(kernel)


class SlicedWasserstein(FeatureMetric):
    """Sliced Wasserstein distance, see `distances.sliced_wasserstein`.

    The larger set is cut to the size of the smaller one.
    """

    names = ("sliced_wasserstein",)
    higher_is_better = False

    def _measure(self, real: Tensor, fake: Tensor, /) -> Tensor:
        count = min(len(real), len(fake))
        return sliced_wasserstein(fake[:count], real[:count])


class InceptionScore(FeatureMetric):
    """Inception score, the mean over the splits, see `distances.inception_score`. Real images are not needed.

    Args:
        extractor, settings: see `FeatureMetric`.
        to_logits: features (B, D) -> class logits (B, K); None where the features are logits.
        splits: of the samples.
    """

    names = ("inception_score",)
    higher_is_better = True

    def __init__(
        self,
        extractor: nn.Module | None = None,
        *,
        to_logits: Callable[[Tensor], Tensor] | None = None,
        splits: int = 10,
        **settings: Any,
    ) -> None:
        super().__init__(extractor, **settings)
        self.to_logits, self.splits = to_logits, splits

    def compute(self) -> Tensor:
        """The score, a scalar >= 1."""
        fake = dim_zero_cat(self.fake_features)
        return inception_score(fake if self.to_logits is None else self.to_logits(fake), splits=self.splits)[0]


class PrecisionRecall(FeatureMetric):
    """Improved precision and recall, see `neighbours.precision_recall`."""

    names = ("precision", "recall")
    higher_is_better = True

    def __init__(self, extractor: nn.Module | None = None, *, k: int = 3, **settings: Any) -> None:
        super().__init__(extractor, **settings)
        self.k, self._measure = k, partial(precision_recall, k=k)


class DensityCoverage(FeatureMetric):
    """Density and coverage, see `neighbours.density_coverage`."""

    names = ("density", "coverage")
    higher_is_better = True

    def __init__(self, extractor: nn.Module | None = None, *, k: int = 5, **settings: Any) -> None:
        super().__init__(extractor, **settings)
        self.k, self._measure = k, partial(density_coverage, k=k)


class Diversity(FeatureMetric):
    """Spread of generated features relative to real ones, see `distances.diversity`."""

    names = ("diversity",)
    higher_is_better = True
    _measure = staticmethod(diversity)


class FrechetInfinity(FrechetDistance):
    """Fréchet distance extrapolated to infinitely many samples, see `distances.frechet_infinity`."""

    names = ("frechet_infinity",)
    _measure = staticmethod(frechet_infinity)


class ClassFrechetDistance(FeatureMetric):
    """Mean Fréchet distance within classes, see `distances.class_frechet`. Batches come with classes."""

    names = ("class_frechet",)
    higher_is_better = False
    real_labels: list[Tensor]
    fake_labels: list[Tensor]

    def __init__(self, extractor: nn.Module | None = None, **settings: Any) -> None:
        super().__init__(extractor, **settings)
        self.add_state("real_labels", [], dist_reduce_fx="cat")
        self.add_state("fake_labels", [], dist_reduce_fx="cat")

    def update(self, images: Tensor, *, real: bool, labels: Tensor) -> None:  # type: ignore[override]
        """Add images (B, C, H, W) in [-1, 1], or features (B, D) where there is no extractor, of classes (B,)."""
        super().update(images, real=real)
        (self.real_labels if real else self.fake_labels).append(labels)

    def compute(self) -> Tensor:
        """The distance of all images so far, a scalar."""
        real, fake = dim_zero_cat(self.real_features), dim_zero_cat(self.fake_features)
        return class_frechet(real, dim_zero_cat(self.real_labels), fake, dim_zero_cat(self.fake_labels))


class MongeInceptionDistance(FeatureMetric):
    """Monge Inception Distance, see `distances.mind`."""

    names = ("mind",)
    higher_is_better = False
    _measure = staticmethod(mind)


class CMMD(FeatureMetric):
    """CMMD, the maximum mean discrepancy of CLIP's features, see `distances.cmmd`."""

    names = ("cmmd",)
    higher_is_better = False
    _measure = staticmethod(cmmd)


class Authenticity(FeatureMetric):
    """Fraction of samples that are no copies, see `neighbours.authenticity`. Real images are the training images."""

    names = ("authenticity",)
    higher_is_better = None  # noise has 1, and a perfect generator what unseen images have
    _measure = staticmethod(authenticity)


ALL: tuple[type[FeatureMetric], ...] = (*FeatureMetric.__subclasses__(), *FrechetDistance.__subclasses__())
"""All metrics of this module, in the order of the report."""
