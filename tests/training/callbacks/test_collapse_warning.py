import pytest
from hydra import compose, initialize_config_dir
from runs import ANY_MODEL, SMALL, SMALL_MODELS

from transfergen.config import CONF_DIR
from transfergen.training.build import build_module
from transfergen.training.callbacks.collapse_warning import (
    GRACE_IMAGES,
    PINNED_IMAGES,
    CollapseWarning,
    DiversityAlarm,
    what_to_try,
)

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


@pytest.mark.parametrize(("real", "fake", "warned"), [(1.0, 0.995, 1), (1.0, 0.98, 0), (0.98, 1.0, 0)])
def test_discriminator_that_nothing_fools_is_warned_of_once_a_stretch(caplog, real, fake, warned):
    watch = CollapseWarning()
    for images in (0, PINNED_IMAGES - 1, PINNED_IMAGES, 2 * PINNED_IMAGES):
        watch.look(real, fake, 5000 + images, ADVICE)
    found = warnings(caplog)
    assert len(found) == warned
    assert all("since 5,000 images, now 25,000" in message for message in found)


def test_stretch_starts_anew_when_the_discriminator_errs(caplog):
    watch = CollapseWarning()
    for images, fake in ((0, 1.0), (PINNED_IMAGES - 1, 0.9), (PINNED_IMAGES, 1.0), (2 * PINNED_IMAGES - 1, 1.0)):
        watch.look(1.0, fake, images, ADVICE)
    assert not warnings(caplog)


def test_what_to_try_fits_the_model():
    advice = {}
    with initialize_config_dir(str(CONF_DIR), version_base="1.3"):
        for name, options in {"vgg_disc": SMALL, **{n: [*ANY_MODEL, *o] for n, o in SMALL_MODELS.items()}}.items():
            config = compose("train", overrides=[*options, "data.num_classes=0"])
            advice[name] = what_to_try(build_module(config))
    assert advice.pop("vae") == "try a lower objective.beta, or objective.free_bits=0.1"
    weaker = "try a lower optimizer.discriminator.lr, or augment=diffaugment"
    for name in ("vgg_disc", "projected", "vision_aided"):
        assert advice.pop(name) == f"{weaker}, or a shallower backbone.cut or backbone.taps"
    assert set(advice.values()) == {weaker}
