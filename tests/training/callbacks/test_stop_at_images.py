import pytest

from transfergen.training.callbacks.stop_at_images import StopAtImages


def test_training_stops_with_the_batch_that_reaches_max_images(fit, trainer, module):
    fit(StopAtImages(20), images=100)
    assert trainer.should_stop
    assert module.images_seen == 24
    with pytest.raises(ValueError, match=r"^max_images=20: the run has seen 24"):
        fit(StopAtImages(20), images=100)
