from unittest.mock import patch

import numpy as np
import pytest
import torch
from torch import nn

from transfergen.data.store import Batch
from transfergen.networks.acceleration import winograd
from transfergen.networks.acceleration.frozen_conv import FrozenConv2d
from transfergen.training.augmentation import Augmentation
from transfergen.training.real_features import FeatureCache, RealFeatures


def test_cache_computes_each_image_once_and_keeps_the_order_asked_for():
    table, asked = torch.randn(6, 2), []

    def get(indices):
        def compute(positions):
            asked.extend(indices[positions].tolist())
            return [table[indices[positions]]]

        return cache.get(indices, compute)[0]

    cache = FeatureCache(6, max_mib=1)
    for indices in ([3, 1], [1, 5, 3], [5, 3, 1]):
        assert torch.equal(get(torch.tensor(indices)), table[indices])
    assert sorted(asked) == [1, 3, 5]
    cache.clear()
    get(torch.tensor([3]))
    assert sorted(asked) == [1, 3, 3, 5]


def test_cache_keeps_a_tap_that_is_the_next_blocks_input_once():
    tap, shallow = torch.randn(6, 2**17), torch.randn(6, 2)
    cache = FeatureCache(6, max_mib=4)  # the tap takes 3 MiB, and twice it would not fit

    def compute(indices):
        def features(positions):
            found = tap[indices[positions]]
            return [shallow[indices[positions]], found, found]

        return features

    for indices in ([3, 1], [1, 5, 3], [5, 3, 1]):
        found = cache.get(torch.tensor(indices), compute(torch.tensor(indices)))
        assert all(map(torch.equal, found, (shallow[indices], tap[indices], tap[indices])))
        assert found[1] is found[2]
    assert [store.shape[1] for store in cache._store] == [2, 2**17]


def test_cache_keeps_nothing_that_would_not_fit():
    cache, calls = FeatureCache(1000, max_mib=1), []
    for _ in range(2):
        kept = cache.get(torch.tensor([0]), lambda positions: [calls.append(1) or torch.zeros(len(positions), 300)])
        assert kept is None
    assert len(calls) == 2
    assert not cache.has_room
    cache.clear()
    assert cache.has_room


class Convolved(nn.Module):
    """A discriminator whose frozen prefix is one convolution of many channels."""

    frozen_blocks = 1

    def __init__(self):
        super().__init__()
        self.conv = FrozenConv2d(nn.Conv2d(128, 128, 3, padding=1).requires_grad_(False))

    def features(self, images):
        return [self.conv(images[:, :1].expand(-1, 128, -1, -1))]


@pytest.mark.parametrize(("cache_mib", "kept"), [(16, True), (1, False)])  # those of all images take 8 MiB
def test_features_that_are_kept_do_not_depend_on_the_batch(cache_mib, kept):
    pixels = torch.randint(256, (64, 3, 16, 16), dtype=torch.uint8)
    reals = RealFeatures(
        range(64), (16, 16), Convolved(), Augmentation(colour=0, translation=0, cutout=0), cache_mib=cache_mib
    )

    def features(indices):
        return reals.of_batch(Batch(pixels[indices], torch.zeros(len(indices)), np.array(indices)))[0]

    with patch.object(winograd, "convolve", wraps=winograd.convolve) as convolve:
        whole = features(list(range(32)))
        assert convolve.called != kept  # which rounds by the number of images
        assert torch.equal(features([40, 3, 9])[1:], whole[[3, 9]]) or not kept
