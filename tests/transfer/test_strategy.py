import pytest

from transfergen.transfer.strategy import Strategy


@pytest.mark.parametrize(
    ("settings", "by_images"),
    [
        ({"trunk": "frozen"}, {0: 4, 10**9: 4}),
        ({"trunk": "trainable"}, {0: 0, 10**9: 0}),
        ({"trunk": "last_k", "last_k": 1}, {0: 3, 10**9: 3}),
        ({"trunk": "last_k", "last_k": 4}, {0: 0}),
        (
            {"trunk": "gradual", "unfreeze_every_images": 100},
            {0: 4, 99: 4, 100: 3, 199: 3, 200: 2, 399: 1, 400: 0, 10**9: 0},
        ),
    ],
)
def test_frozen_blocks_of_four_by_images_seen(settings, by_images):
    strategy = Strategy(**settings)
    assert {images: strategy.frozen_blocks(4, images) for images in by_images} == by_images


def test_training_more_blocks_than_there_are_is_refused_with_both_remedies():
    with pytest.raises(ValueError, match=r"transfer\.last_k=5.*set transfer\.last_k=4 or transfer\.trunk=trainable"):
        Strategy(trunk="last_k", last_k=5).frozen_blocks(4, 0)
