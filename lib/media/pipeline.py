"""Pipelines of stages that run at the same time, each in its own thread."""

import queue
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

# Entries of the queues between threads are (None, result). The last is (_END, exception or None).
_END = object()
_JOIN_TIMEOUT = 10.0  # seconds; a hanging camera must not block the exit
_POLL_INTERVAL = 0.1  # seconds after which a waiting stage checks for the stop signal


def run_pipeline(items: Iterable[Any], stages: Sequence[Callable[[Any], Any]]) -> Iterator[Any]:
    """Pass each of ``items`` through all ``stages`` and yield the results in order.

    One thread reads the items, and each stage has its own thread, so that the slowest determines
    the speed. At most one result waits between two threads. An exception in a thread is re-raised
    here, after all earlier results. Closing the iterator stops the threads.
    """
    stop = threading.Event()
    threads = []
    for stage in (None, *stages):
        output = queue.Queue(1)
        arguments = (stage, items, output, stop)
        threads.append(threading.Thread(target=_work, args=arguments, daemon=True))
        items = _results(output, stop)
    for thread in threads:
        thread.start()
    try:
        yield from items
    finally:
        stop.set()
        for thread in threads:
            thread.join(_JOIN_TIMEOUT)


def batches(
    items: Iterable[Any], size: int, cost: Callable[[Any], float], max_cost: float
) -> Iterator[list[Any]]:
    """Group ``items`` into lists of ``size`` items.

    A list ends early when the total cost of its items reaches ``max_cost``.
    """
    batch: list[Any] = []
    total = 0.0
    for item in items:
        batch.append(item)
        total += cost(item)
        if len(batch) == size or total >= max_cost:
            yield batch
            batch, total = [], 0.0
    if batch:
        yield batch


def _work(
    stage: Callable[[Any], Any] | None,
    items: Iterable[Any],
    output: queue.Queue,
    stop: threading.Event,
) -> None:
    """Put the result of ``stage`` for each item into ``output``, then ``_END`` and any exception.

    If ``stage`` is None, the results are the items.
    """
    error = None
    try:
        for item in items:
            result = item if stage is None else stage(item)
            if not _put(output, (None, result), stop):
                break
    except BaseException as raised:  # re-raised in the caller's thread
        error = raised
    finally:
        if hasattr(items, "close"):
            items.close()
    _put(output, (_END, error), stop)


def _results(source: queue.Queue, stop: threading.Event) -> Iterator[Any]:
    """Yield what ``_work`` put into a queue, until its end or until ``stop`` is set."""
    while not stop.is_set():
        try:
            kind, value = source.get(timeout=_POLL_INTERVAL)
        except queue.Empty:
            continue
        if kind is _END:
            if value is not None:
                raise value
            return
        yield value


def _put(output: queue.Queue, value: Any, stop: threading.Event) -> bool:
    """Put ``value`` into a queue. Return False if ``stop`` was set before there was room."""
    while not stop.is_set():
        try:
            output.put(value, timeout=_POLL_INTERVAL)
            return True
        except queue.Full:
            continue
    return False
