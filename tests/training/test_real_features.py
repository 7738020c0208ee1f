import torch

from transfergen.training.real_features import FeatureCache


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
        cache.get(torch.tensor([0]), lambda positions: [calls.append(1) or torch.zeros(len(positions), 300)])
    assert len(calls) == 2
