import pytest

from transfergen.training.callbacks.interval import IntervalCallback


class Acts(IntervalCallback):
    """Notes how many images were seen whenever it acts."""

    def __init__(self, every_images):
        super().__init__(every_images)
        self.at = []

    def act(self, trainer, module):
        self.at.append(module.images_seen)


@pytest.mark.parametrize(
    ("every_images", "expected"),
    [
        (16, [16, 32, 48, 56]),
        (20, [24, 40, 56]),  # with the batch that contains the 20th, 40th, ... image
        (8, [8, 16, 24, 32, 40, 48, 56]),
        (3, [8, 16, 24, 32, 40, 48, 56]),  # at most once a batch
        (28, [32, 56]),  # the end and the end of an interval in one batch
        (1000, [56]),
        (None, [56]),
    ],
)
def test_acts_at_the_end_of_each_interval_and_of_the_training(fit, every_images, expected):
    callback = Acts(every_images)
    fit(callback, images=56)
    assert callback.at == expected


@pytest.mark.parametrize("interrupted_at", [8, 16, 24, 40])
def test_a_resumed_training_acts_where_an_uninterrupted_one_does(fit, module, interrupted_at):
    parts = [Acts(20), Acts(20)]
    fit(parts[0], images=interrupted_at, end=False)
    fit(parts[1], images=56)
    assert parts[0].at + parts[1].at == [24, 40, 56]
