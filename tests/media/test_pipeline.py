"""Pipelines with overlapping stages."""

import threading

import pytest

from lib.media.pipeline import batches, run_pipeline


def test_items_keep_their_order_through_all_stages():
    stages = [lambda n: n + 1, lambda n: n * 10]
    assert list(run_pipeline(range(20), stages)) == [(n + 1) * 10 for n in range(20)]
    assert list(run_pipeline([], stages)) == []
    assert list(run_pipeline([1, 2], [])) == [1, 2]


def test_stages_run_at_the_same_time():
    # The barrier opens only if the reader, both stages and the caller wait at the same time.
    meeting = threading.Barrier(4, timeout=20)

    def read():
        for number in range(7):
            if number >= 3:
                meeting.wait()
            yield number

    def stage(skipped):
        def work(number):
            if number in range(skipped, skipped + 4):
                meeting.wait()
            return number

        return work

    got = []
    for number in run_pipeline(read(), [stage(2), stage(1)]):
        if number < 4:
            meeting.wait()
        got.append(number)
    assert got == list(range(7))


def test_an_error_is_raised_after_the_earlier_results():
    def fail(number):
        if number == 3:
            raise ValueError("three")
        return number

    results = run_pipeline(range(10), [fail, lambda n: n])
    assert [next(results) for _ in range(3)] == [0, 1, 2]
    with pytest.raises(ValueError, match="three"):
        next(results)

    def broken():
        yield 1
        raise OSError("gone")

    results = run_pipeline(broken(), [fail])
    assert next(results) == 1
    with pytest.raises(OSError, match="gone"):
        next(results)


def test_closing_the_iterator_stops_the_threads_and_the_reader():
    before = threading.active_count()
    closed = []

    def read():
        try:
            yield from range(10**9)
        finally:
            closed.append(True)

    items = run_pipeline(read(), [lambda n: n])
    assert next(items) == 0
    items.close()
    assert threading.active_count() == before and closed == [True]


def test_batches_have_the_given_size_except_the_last():
    assert list(batches(range(7), 3, float, 99)) == [[0, 1, 2], [3, 4, 5], [6]]
    assert list(batches([], 3, float, 99)) == []
    heavy = batches([1, 9, 2, 2, 2, 2, 20], 3, cost=float, max_cost=10)
    assert list(heavy) == [[1, 9], [2, 2, 2], [2, 20]]
