from itertools import count, islice

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


def test_images_left_out_of_one_epoch_are_read_in_another():
    assert len(set(np.concatenate([epoch_of(10, 8, epoch=e).ravel() for e in range(10)]))) == 10


def test_epochs_are_shuffled_differently():
    orders = {tuple(epoch_of(100, 10, epoch=epoch).ravel()) for epoch in range(5)}
    assert len(orders) == 5
    assert tuple(range(100)) not in orders


def test_an_epoch_can_be_read_again_by_its_number():
    order = BatchOrder(100, 10, seed=7)
    straight = []
    for epoch in range(3):
        order.set_epoch(epoch)
        straight.append(np.stack(list(order)))
    np.testing.assert_array_equal(epoch_of(100, 10, seed=7, epoch=2), straight[2])


def test_seeds_give_different_orders():
    assert epoch_of(100, 10, seed=0).tolist() != epoch_of(100, 10, seed=1).tolist()


def read(batches, *, images_seen=0, limit=None, **options):
    """The next batches (batches, B / ranks) after `images_seen`, over epochs of at most `limit` batches.

    As Lightning reads them: it sets the epoch, and counts the batches of the epoch in which it begins.
    """
    samples, batch_size = 44, 8  # 5 batches, and 4 images that are left out
    order = BatchOrder(samples, batch_size, images_seen=images_seen, batches_per_epoch=limit, seed=1, **options)
    per_epoch = limit or len(order)
    first_epoch, first_batch = divmod(images_seen // batch_size, per_epoch)
    found = []
    for epoch in count(first_epoch):
        order.set_epoch(epoch)
        found += islice(order, per_epoch - (first_batch if epoch == first_epoch else 0))
        if len(found) >= batches:
            return np.stack(found[:batches])


@pytest.mark.parametrize("ranks", [1, 2])
@pytest.mark.parametrize("limit", [None, 3])
@pytest.mark.parametrize("before", [1, 3, 4, 5, 6, 10, 12])
def test_reading_on_after_so_many_batches_equals_reading_straight_on(before, limit, ranks):
    for rank in range(ranks):
        straight = read(17, limit=limit, rank=rank, ranks=ranks)
        resumed = read(17 - before, images_seen=8 * before, limit=limit, rank=rank, ranks=ranks)
        np.testing.assert_array_equal(resumed, straight[before:])


def test_a_run_goes_on_in_the_epoch_that_its_images_lead_to_without_being_told():
    order = BatchOrder(44, 8, images_seen=8 * 7, seed=1)
    assert order.epoch == 1
    np.testing.assert_array_equal(np.stack(list(order)), epoch_of(44, 8, epoch=1, seed=1)[2:])


def test_batches_that_were_read_before_are_left_out_of_their_own_epoch_alone():
    order = BatchOrder(44, 8, images_seen=8 * 7)
    for epoch, batches in ((1, 3), (1, 3), (2, 5), (0, 5)):
        order.set_epoch(epoch)
        assert len(list(order)) == batches
