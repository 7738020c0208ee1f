import numpy as np
import pytest

from transfergen.data.sampler import BatchOrder


def epoch_of(samples, batch_size, *, epoch=0, **options):
    """The batches (steps, B / ranks) of one epoch."""
    order = BatchOrder(samples, batch_size, **options)
    order.set_epoch(epoch)
    batches = np.stack(list(order))
    assert len(batches) == len(order)
    return batches


@pytest.mark.parametrize(("samples", "batch_size"), [(100, 8), (64, 16), (13, 12)])
@pytest.mark.parametrize("ranks", [2, 4])
def test_ranks_together_read_what_one_process_reads(samples, batch_size, ranks):
    one = epoch_of(samples, batch_size, epoch=3)
    parts = [epoch_of(samples, batch_size, epoch=3, rank=rank, ranks=ranks) for rank in range(ranks)]
    np.testing.assert_array_equal(np.concatenate(parts, axis=1), one)


@pytest.mark.parametrize(("samples", "batch_size"), [(100, 8), (64, 16), (17, 17)])
def test_an_epoch_reads_each_sample_at_most_once_and_all_but_the_remainder(samples, batch_size):
    seen = epoch_of(samples, batch_size).ravel()
    assert len(seen) == samples - samples % batch_size
    assert len(set(seen)) == len(seen)
    assert set(seen) <= set(range(samples))


def test_samples_left_out_of_one_epoch_come_in_another():
    assert len(set(np.concatenate([epoch_of(10, 8, epoch=e).ravel() for e in range(10)]))) == 10


def test_epochs_are_shuffled_differently():
    orders = {tuple(epoch_of(100, 10, epoch=epoch).ravel()) for epoch in range(5)}
    assert len(orders) == 5
    assert tuple(range(100)) not in orders


def test_an_epoch_can_be_replayed_from_its_number():
    order = BatchOrder(100, 10, seed=7)
    straight = []
    for epoch in range(3):
        order.set_epoch(epoch)
        straight.append(np.stack(list(order)))
    np.testing.assert_array_equal(epoch_of(100, 10, seed=7, epoch=2), straight[2])


def test_seeds_give_different_orders():
    assert epoch_of(100, 10, seed=0).tolist() != epoch_of(100, 10, seed=1).tolist()
