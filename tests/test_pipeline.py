import threading
import time

import pytest

from fslab.pipeline import in_batches, prefetch


def test_keeps_order_and_ends():
    assert list(prefetch(range(100), 3)) == list(range(100))


def test_never_runs_further_ahead_than_its_depth():
    produced = 0

    def source():
        nonlocal produced
        for i in range(50):
            produced = i + 1
            yield i

    for taken, _ in enumerate(prefetch(source(), 4), 1):
        time.sleep(0.002)
        assert produced <= taken + 4 + 1  # one more is in the producer's hand


def test_an_error_of_the_producer_reaches_the_reader_after_the_good_items():
    def source():
        yield 1
        raise KeyError("broken")

    reader = prefetch(source(), 2)
    assert next(reader) == 1
    with pytest.raises(KeyError, match="broken"):
        next(reader)


def test_a_reader_that_stops_early_closes_the_whole_chain_and_leaves_no_thread():
    closed = threading.Event()

    def source():
        try:
            yield from range(10**9)
        finally:
            closed.set()

    before = threading.active_count()
    chain = prefetch((x + 1 for x in prefetch(source(), 2)), 2)
    assert next(chain) == 1
    chain.close()
    assert closed.wait(5)
    assert threading.active_count() == before


def test_refuses_a_queue_without_room():
    with pytest.raises(ValueError, match="depth"):
        next(prefetch([1], 0))


def test_batches_hold_everything_once():
    assert list(in_batches(range(7), 3)) == [[0, 1, 2], [3, 4, 5], [6]]
    assert list(in_batches([], 3)) == []
