"""Warnings of mode collapse and of a discriminator that the generator no longer fools."""

import logging
from collections.abc import Mapping
from typing import Any

from lightning import LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_only

from transfergen.training.base_module import GenerativeModule
from transfergen.training.callbacks.interval import BatchCallback, IntervalCallback
from transfergen.training.gan_module import GAN

log = logging.getLogger(__name__)

MAX_ACCURACY, MAX_ACCURACY_IMAGES = 0.99, 20_000
MIN_DIVERSITY, GRACE_IMAGES = 0.3, 10_000
MAX_FALL, MIN_PEAK = 0.5, 0.1


def what_to_try(module: GenerativeModule) -> str:
    """Settings that help against mode collapse, or against a discriminator that is always right."""
    if not isinstance(module, GAN):
        return "try a lower objective.beta, or objective.free_bits=0.1"
    weaker = "try a lower optimizer.discriminator.lr, or augment=diffaugment"
    if not module.discriminator.backbones:
        return weaker
    return f"{weaker}_whole, or a shallower backbone.cut or backbone.taps"  # cutout hides things from such heads


class DiversityAlarm:
    """Warns when a measure of diversity falls below half of its highest value so far; once for each fall.

    Args:
        what: name of the measure, for the warning.
        floor: warn of values below this too, from `GRACE_IMAGES` images on.
    """

    def __init__(self, what: str, *, floor: float = 0.0) -> None:
        self.what, self.floor = what, floor
        self._highest = 0.0
        self._low = False

    def __call__(self, value: float, images_seen: int, advice: str) -> None:
        """Check the latest value; `advice` goes into the warning."""
        self._highest = max(self._highest, value)
        fallen = value < MAX_FALL * self._highest and self._highest >= MIN_PEAK
        low = fallen or (value < self.floor and images_seen >= GRACE_IMAGES)
        if low and not self._low:
            log.warning(
                f"the generator may be collapsing: {self.what} is {value:.2f} after {images_seen:,} images (highest so "
                f"far {self._highest:.2f}); {advice}"
            )
        self._low = low

    def state_dict(self) -> dict[str, Any]:
        """The history, for a checkpoint."""
        return {"highest": self._highest, "low": self._low}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from the history of a checkpoint."""
        self._highest, self._low = state["highest"], state["low"]


class HasAlarms(IntervalCallback):
    """A callback whose checkpoints hold the history of its alarms, so that a resumed run goes on with it.

    A history from another measure, as of another extractor, is not taken up. Nor is there one in older checkpoints. A
    run that was killed between a checkpoint and the measurement at the same number of images begins with the latter.
    """

    alarms: Mapping[str, DiversityAlarm]
    """By the name of the number that each is shown."""
    measured_by: str = ""
    """Numbers by something else are not comparable."""
    measured_at: int = 0
    """Images seen at the latest measurement. `act` sets it."""
    _resumed = False

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """Measure what is due and not in the checkpoint that the run goes on from."""
        assert isinstance(pl_module, GenerativeModule)
        if self._resumed and self.measured_at < pl_module.images_seen and self.is_due(trainer, pl_module):
            self.act(trainer, pl_module)
        self._resumed = False

    def state_dict(self) -> dict[str, Any]:
        """The history of each alarm, and where it ends."""
        return {
            "measured_at": self.measured_at,
            "measured_by": self.measured_by,
            "alarms": {name: alarm.state_dict() for name, alarm in self.alarms.items()},
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from the history of a checkpoint."""
        self.measured_at, self._resumed = state_dict.get("measured_at", 0), True
        if state_dict["measured_by"] == self.measured_by:
            for name, alarm in self.alarms.items():
                alarm.load_state_dict(state_dict["alarms"][name])


class CollapseWarning(BatchCallback):
    """Warns when the discriminator's accuracy has been nearly 1 for `MAX_ACCURACY_IMAGES`; once for each stretch."""

    def __init__(self) -> None:
        self._checked: dict[str, float] = {}
        self._since: int | None = None
        self._warned = False

    @rank_zero_only
    def after_batch(self, trainer: Trainer, module: GenerativeModule) -> None:
        """Check the accuracies whenever they were logged."""
        scalars = module.last_scalars
        if scalars is not self._checked and "accuracy/real" in scalars:  # not every objective has accuracies
            self._checked = scalars
            self.check(scalars["accuracy/real"], scalars["accuracy/fake"], module.images_seen, what_to_try(module))

    def state_dict(self) -> dict[str, Any]:
        """Where the stretch began, and whether it was warned of."""
        return {"since": self._since, "warned": self._warned}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on with the stretch of a checkpoint."""
        self._since, self._warned = state_dict["since"], state_dict["warned"]

    def check(self, real: float, fake: float, images_seen: int, advice: str) -> None:
        """Check the discriminator's accuracies on real and generated images, in [0, 1]; `advice` is for the warning."""
        if min(real, fake) < MAX_ACCURACY:
            self._since, self._warned = None, False
            return
        self._since = images_seen if self._since is None else self._since
        if images_seen - self._since >= MAX_ACCURACY_IMAGES and not self._warned:
            self._warned = True
            log.warning(
                f"the discriminator has been right on {real:.1%} of the real and {fake:.1%} of the generated images "
                f"since {self._since:,} images, now {images_seen:,}: the generator learns little from it; {advice}"
            )
