"""Work on pictures in threads."""

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from transfergen import devices
from transfergen.data import decoding
from transfergen.data.decoding import map_parallel


@pytest.mark.parametrize("count", [0, 1, 7, 200, 3001])
def test_results_are_in_order_and_each_advances_once(count):
    advanced = []
    assert map_parallel(lambda i: i * i, count, lambda: advanced.append(1)) == [i * i for i in range(count)]
    assert len(advanced) == count


@pytest.fixture
def handed_over(monkeypatch):
    """Two threads, and a list that grows by one when they are handed work."""
    times = []

    class Counting(ThreadPoolExecutor):
        def submit(self, *given):
            times.append(1)
            return super().submit(*given)

    monkeypatch.setattr(decoding, "ThreadPoolExecutor", Counting)
    monkeypatch.setattr(decoding, "usable_cores", lambda: {0, 1})
    return times


@pytest.mark.parametrize(("count", "times"), [(3000, 94), (200, 67), (40, 40)])
def test_threads_get_many_small_pictures_at_a_time_and_few_large_ones_evenly(handed_over, count, times):
    map_parallel(int, count, lambda: None)
    assert len(handed_over) == times  # of 32 pictures or fewer; to two threads, at least 32 times each where that goes


def test_a_process_that_may_use_one_core_has_one_thread(monkeypatch):
    monkeypatch.setattr(devices.os, "sched_getaffinity", lambda pid: {3}, raising=False)
    assert len(set(map_parallel(lambda i: threading.get_ident(), 200, lambda: None))) == 1


def test_the_first_error_ends_all_work():
    begun = []

    def fail(i):
        begun.append(i)
        raise ValueError(f"picture {i}")

    with pytest.raises(ValueError, match="picture 0"):
        map_parallel(fail, 10_000, lambda: None)
    assert len(begun) < 1000
