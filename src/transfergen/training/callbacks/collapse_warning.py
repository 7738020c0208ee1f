"""The alarm: a generator that makes one picture over and over, a discriminator that nothing fools any more."""

import logging
from typing import Any

from lightning import Callback, LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_only

from transfergen.training.base_module import GenerativeModule
from transfergen.training.gan_module import GAN

log = logging.getLogger(__name__)

PINNED_ACCURACY, PINNED_IMAGES = 0.99, 20_000
LEAST_DIVERSITY, GRACE_IMAGES = 0.3, 10_000
FALL, LEAST_HIGHEST = 0.5, 0.1


def what_to_try(module: GenerativeModule) -> str:
    """Overrides that help when samples grow alike, or when the discriminator is never wrong."""
    if not isinstance(module, GAN):
        return "try a lower objective.beta, or objective.free_bits=0.1"
    weaker = "try a lower optimizer.discriminator.lr, or augment=diffaugment"
    return f"{weaker}, or a shallower backbone.cut or backbone.taps" if module.discriminator.backbones else weaker


class DiversityAlarm:
    """Warns when a number that tells of diversity falls below half of its highest so far; once for each fall.

    Args:
        what: the number is, in words.
        floor: it is low, whatever it was before, once this many images were seen: `GRACE_IMAGES`. 0: never.
    """

    def __init__(self, what: str, *, floor: float = 0.0) -> None:
        self.what, self.floor = what, floor
        self._highest = 0.0
        self._low = False

    def __call__(self, value: float, images_seen: int, advice: str) -> None:
        """The number as it is now, and what to try if it fell."""
        self._highest = max(self._highest, value)
        fell = value < FALL * self._highest and self._highest >= LEAST_HIGHEST
        low = fell or (value < self.floor and images_seen >= GRACE_IMAGES)
        if low and not self._low:
            log.warning(
                f"the generator may be collapsing: {self.what} is {value:.2f} after {images_seen:,} images (highest so "
                f"far {self._highest:.2f}); {advice}"
            )
        self._low = low


class CollapseWarning(Callback):
    """Warns when the discriminator has told nearly all reals from fakes for `PINNED_IMAGES`; once for each stretch."""

    def __init__(self) -> None:
        self._looked_at: dict[str, float] = {}
        self._since: int | None = None
        self._warned = False

    @rank_zero_only
    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Looks at each new point of the curves."""
        assert isinstance(pl_module, GenerativeModule)
        scalars = pl_module.last_scalars
        if scalars is not self._looked_at and "accuracy/real" in scalars:  # not every objective has accuracies
            self._looked_at = scalars
            self.look(scalars["accuracy/real"], scalars["accuracy/fake"], pl_module.images_seen, what_to_try(pl_module))

    def look(self, real: float, fake: float, images_seen: int, advice: str) -> None:
        """The discriminator's accuracies, in [0, 1], as they are now, and what to try if it is never wrong."""
        if min(real, fake) < PINNED_ACCURACY:
            self._since, self._warned = None, False
            return
        self._since = images_seen if self._since is None else self._since
        if images_seen - self._since >= PINNED_IMAGES and not self._warned:
            self._warned = True
            log.warning(
                f"the discriminator has been right on {real:.1%} of the reals and {fake:.1%} of the fakes since "
                f"{self._since:,} images, now {images_seen:,}: the generator learns little from it; {advice}"
            )
