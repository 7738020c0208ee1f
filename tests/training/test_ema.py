import pytest
import torch
from torch import nn

from transfergen.training.ema import EMA


def scalar(value):
    network = nn.Linear(1, 1, bias=False)
    nn.init.constant_(network.weight, value)
    return network


def value(ema):
    return ema.network.weight.item()


@pytest.mark.parametrize("batch", [100, 50, 20, 1])
def test_half_of_the_start_is_left_after_a_half_life_whatever_the_batch(batch):
    ema = EMA(scalar(1.0), halflife_images=100)
    for _ in range(0, 100, batch):
        ema.update(scalar(0.0), images=batch, images_seen=10**6)
    assert value(ema) == pytest.approx(0.5, rel=1e-4)


def test_two_updates_by_hand():
    ema = EMA(scalar(0.0), halflife_images=100)
    ema.update(scalar(8.0), images=200, images_seen=10**6)  # keeps 1/4 of 0, takes 3/4 of 8
    assert value(ema) == pytest.approx(6.0)
    ema.update(scalar(2.0), images=100, images_seen=10**6)  # half of 6 and half of 2
    assert value(ema) == pytest.approx(4.0)


@pytest.mark.parametrize(
    ("images_seen", "left"),
    [
        (0, 0.0),  # nothing seen yet: a plain copy
        (400, 0.5**5),  # half-life 0.05 * 400 = 20, so 100 images are five of them
        (1000, 0.25),  # 50
        (2000, 0.5),  # 100, the full one
        (9000, 0.5),
    ],
)
def test_the_half_life_ramps_up_with_the_images_seen(images_seen, left):
    ema = EMA(scalar(1.0), halflife_images=100, rampup=0.05)
    ema.update(scalar(0.0), images=100, images_seen=images_seen)
    assert value(ema) == pytest.approx(left, rel=1e-5)


def test_without_a_rampup_the_half_life_is_the_same_from_the_start():
    ema = EMA(scalar(1.0), halflife_images=100, rampup=0)
    ema.update(scalar(0.0), images=100, images_seen=100)
    assert value(ema) == pytest.approx(0.5, rel=1e-5)


def test_float_buffers_follow_and_counters_are_copied():
    network = nn.BatchNorm1d(2)
    ema = EMA(network, halflife_images=10)
    network.running_mean.fill_(4.0)
    network.num_batches_tracked.fill_(7)
    ema.update(network, images=10, images_seen=10**6)
    assert ema.network.running_mean.tolist() == [2.0, 2.0]
    assert ema.network.num_batches_tracked.item() == 7
    assert network.running_mean.tolist() == [4.0, 4.0]


def test_the_copy_shares_nothing_takes_no_gradient_and_stays_in_eval_mode():
    network = nn.Sequential(nn.Linear(2, 2), nn.Dropout())
    ema = EMA(network, halflife_images=10)
    assert not any(module.training for module in ema.network.modules())
    nn.Sequential(network, ema).train()
    assert network[1].training
    assert not any(module.training for module in ema.modules())
    assert not any(p.requires_grad for p in ema.parameters())
    before = ema.network[0].weight.clone()
    nn.init.zeros_(network[0].weight)
    assert torch.equal(ema.network[0].weight, before)


def test_a_restored_average_goes_on_as_the_saved_one_would():
    ema = EMA(scalar(1.0), halflife_images=100)
    ema.update(scalar(0.0), images=50, images_seen=10**6)
    restored = EMA(scalar(9.0), halflife_images=100)
    restored.load_state_dict(ema.state_dict())
    for average in (ema, restored):
        average.update(scalar(3.0), images=50, images_seen=10**6)
    assert value(restored) == value(ema)


def test_singular_vectors_of_spectral_norm_are_copied_so_that_they_keep_their_length():
    layer = torch.nn.utils.parametrizations.spectral_norm(torch.nn.Linear(4, 3))
    ema = EMA(layer, halflife_images=100, rampup=1.0)
    vectors = layer.parametrizations.weight[0]
    vectors._u.neg_()
    vectors._v.neg_()
    ema.update(layer, images=100, images_seen=1000)
    mine = ema.network.parametrizations.weight[0]
    assert torch.equal(mine._u, vectors._u)
    assert torch.equal(mine._v, vectors._v)
