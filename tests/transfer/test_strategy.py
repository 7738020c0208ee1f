import pytest
import torch

from transfergen.losses.alignment import energy_distance
from transfergen.transfer.strategy import Strategy


@pytest.mark.parametrize(
    ("settings", "by_images"),
    [
        ({"trunk": "frozen"}, {0: 4, 10**9: 4}),
        ({"trunk": "tuned"}, {0: 0, 10**9: 0}),
        ({"trunk": "last_k", "last_k": 1}, {0: 3, 10**9: 3}),
        ({"trunk": "last_k", "last_k": 4}, {0: 0}),
        (
            {"trunk": "gradual", "thaw_every_images": 100},
            {0: 4, 99: 4, 100: 3, 199: 3, 200: 2, 399: 1, 400: 0, 10**9: 0},
        ),
    ],
)
def test_frozen_blocks_of_four_by_images_seen(settings, by_images):
    schedule = Strategy(**settings)
    assert {images: schedule.frozen_blocks(4, images) for images in by_images} == by_images


def test_thawing_more_blocks_than_there_are_is_refused_with_both_ways_out():
    with pytest.raises(ValueError, match=r"transfer\.last_k=5.*set transfer\.last_k=4 or transfer\.trunk=tuned"):
        Strategy(trunk="last_k", last_k=5).frozen_blocks(4, 0)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"trunk": "half"}, r"transfer\.trunk=half: choose one of frozen, tuned, last_k, gradual"),
        ({"last_k": 0}, r"transfer\.last_k"),
        ({"thaw_every_images": 0}, r"transfer\.thaw_every_images"),
        ({"matching": -1}, r"transfer\.matching=-1: a weight is 0 or more"),
    ],
)
def test_settings_out_of_range_are_refused_by_name(settings, message):
    with pytest.raises(ValueError, match=message):
        Strategy(**settings)


def test_matching_is_of_the_quarters_of_each_map():
    real, fake = ([torch.randn(4, 3, 8, 8), torch.randn(4, 2, 1, 1)] for _ in range(2))

    def quarters(maps):
        return torch.stack([maps[..., i : i + 4, j : j + 4].mean(dim=(2, 3)) for i in (0, 4) for j in (0, 4)], dim=2)

    shallow = energy_distance(quarters(real[0]).flatten(1), quarters(fake[0]).flatten(1))
    deep = energy_distance(*(maps[1].flatten(1) for maps in (real, fake)))
    terms = Strategy(matching=3).feature_terms(real, fake)
    assert list(terms) == ["matching"]
    torch.testing.assert_close(terms["matching"], 3 * (shallow + deep))
    assert not Strategy().feature_terms(real, fake)
