import pytest

from transfergen.callbacks.collapse import GRACE_IMAGES, PINNED_IMAGES, CollapseWatch, DiversityAlarm


def warnings(caplog):
    found = [record.getMessage() for record in caplog.records]
    caplog.clear()
    return found


def test_falling_number_is_warned_of_once_with_the_figure_and_what_to_try(caplog):
    alarm = DiversityAlarm("the samples' recall")
    for value in (0.0, 0.05, 0.3, 0.6, 0.31):
        alarm(value, 1000)
    assert not warnings(caplog)
    alarm(0.29, 2000)
    (message,) = warnings(caplog)
    for word in ("recall is 0.29", "2,000 images", "0.60", "optimizer.discriminator.lr", "augment=", "backbone.cut"):
        assert word in message
    alarm(0.2, 3000)
    assert not warnings(caplog)
    alarm(0.5, 4000)
    alarm(0.1, 5000)
    assert len(warnings(caplog)) == 1


def test_noise_around_nothing_is_no_fall(caplog):
    alarm = DiversityAlarm("the samples' recall")
    for value in (0.02, 0.0, 0.09, 0.0):
        alarm(value, 10**6)
    assert not warnings(caplog)


def test_diversity_that_never_rose_is_warned_of_after_the_start(caplog):
    alarm = DiversityAlarm("the spread", floor=0.3)
    alarm(0.05, GRACE_IMAGES - 1)
    assert not warnings(caplog)
    alarm(0.05, GRACE_IMAGES)
    assert len(warnings(caplog)) == 1


@pytest.mark.parametrize(("real", "fake", "warned"), [(1.0, 0.995, 1), (1.0, 0.98, 0), (0.98, 1.0, 0)])
def test_discriminator_that_nothing_fools_is_warned_of_once_a_stretch(caplog, real, fake, warned):
    watch = CollapseWatch()
    for images in (0, PINNED_IMAGES - 1, PINNED_IMAGES, 2 * PINNED_IMAGES):
        watch.look(real, fake, 5000 + images)
    found = warnings(caplog)
    assert len(found) == warned
    assert all("since 5,000 images, now 25,000" in message for message in found)


def test_stretch_starts_anew_when_the_discriminator_errs(caplog):
    watch = CollapseWatch()
    for images, fake in ((0, 1.0), (PINNED_IMAGES - 1, 0.9), (PINNED_IMAGES, 1.0), (2 * PINNED_IMAGES - 1, 1.0)):
        watch.look(1.0, fake, images)
    assert not warnings(caplog)
