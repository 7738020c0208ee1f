from unittest.mock import Mock

import pytest

from transfergen.training.callbacks.collapse_warning import (
    GRACE_IMAGES,
    MAX_ACCURACY_IMAGES,
    CollapseWarning,
    DiversityAlarm,
    what_to_try,
)
from transfergen.training.gan_module import GAN

ADVICE = "try a lower optimizer.discriminator.lr"


def warnings(caplog):
    found = [record.getMessage() for record in caplog.records]
    caplog.clear()
    return found


def test_falling_number_is_warned_of_once_with_the_figure_and_what_to_try(caplog):
    alarm = DiversityAlarm("the samples' recall")
    for value in (0.0, 0.05, 0.3, 0.6, 0.31):
        alarm(value, 1000, ADVICE)
    assert not warnings(caplog)
    alarm(0.29, 2000, ADVICE)
    (message,) = warnings(caplog)
    for word in ("recall is 0.29", "2,000 images", "0.60", ADVICE):
        assert word in message
    alarm(0.2, 3000, ADVICE)
    assert not warnings(caplog)
    alarm(0.5, 4000, ADVICE)
    alarm(0.1, 5000, ADVICE)
    assert len(warnings(caplog)) == 1


def test_noise_around_nothing_is_no_fall(caplog):
    alarm = DiversityAlarm("the samples' recall")
    for value in (0.02, 0.0, 0.09, 0.0):
        alarm(value, 10**6, ADVICE)
    assert not warnings(caplog)


def test_diversity_that_never_rose_is_warned_of_after_the_start(caplog):
    alarm = DiversityAlarm("the spread", floor=0.3)
    alarm(0.05, GRACE_IMAGES - 1, ADVICE)
    assert not warnings(caplog)
    alarm(0.05, GRACE_IMAGES, ADVICE)
    assert len(warnings(caplog)) == 1


def test_accuracies_are_checked_once_each_time_they_were_logged(fit, module, monkeypatch):
    checked = []
    monkeypatch.setattr(CollapseWarning, "check", lambda self, *given: checked.append(given[:3]))
    watch = CollapseWarning()
    for images, scalars in ((8, {"loss/generator": 1.0}), (32, {"accuracy/real": 0.9, "accuracy/fake": 0.8})):
        module.last_scalars = scalars
        fit(watch, images=images)
    assert checked == [(0.9, 0.8, 16)]


@pytest.mark.parametrize(("real", "fake", "warned"), [(1.0, 0.995, 1), (1.0, 0.98, 0), (0.98, 1.0, 0)])
def test_discriminator_that_nothing_fools_is_warned_of_once_a_stretch(caplog, real, fake, warned):
    watch = CollapseWarning()
    for images in (0, MAX_ACCURACY_IMAGES - 1, MAX_ACCURACY_IMAGES, 2 * MAX_ACCURACY_IMAGES):
        watch.check(real, fake, 5000 + images, ADVICE)
    found = warnings(caplog)
    assert len(found) == warned
    assert all("since 5,000 images, now 25,000" in message for message in found)


def test_stretch_starts_anew_when_the_discriminator_errs(caplog):
    watch = CollapseWarning()
    for images, fake in ((0, 1.0), (19_999, 0.9), (20_000, 1.0), (39_999, 1.0)):
        watch.check(1.0, fake, images, ADVICE)
    assert not warnings(caplog)


@pytest.mark.parametrize("resumed_at", [5000, 20_000, 30_000])
def test_a_resumed_run_is_warned_of_a_stretch_as_an_unbroken_one(caplog, resumed_at):
    watch = CollapseWarning()
    found = []
    for images in range(0, 40_000, 5000):
        watch.check(1.0, 1.0, images, ADVICE)
        found += warnings(caplog)
        if images == resumed_at:
            state, watch = watch.state_dict(), CollapseWarning()
            watch.load_state_dict(state)
    (message,) = found
    assert "since 0 images, now 20,000" in message


def test_what_to_try_fits_the_model(module):
    assert what_to_try(module) == "try a lower objective.beta, or objective.free_bits=0.1"  # a VAE
    weaker = "try a lower optimizer.discriminator.lr, or augment=diffaugment"
    plain, pretrained = (Mock(spec=GAN, discriminator=Mock(backbones=backbones)) for backbones in ([], [None]))
    assert what_to_try(plain) == weaker
    assert what_to_try(pretrained) == f"{weaker}_whole, or a shallower backbone.cut or backbone.taps"
