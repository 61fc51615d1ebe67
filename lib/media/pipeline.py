"""Pipelines of stages that run at the same time, each in its own thread."""

import math
import queue
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

_END = object()
_JOIN_TIMEOUT = 10.0  # seconds; a hanging camera must not block the program
_POLL_INTERVAL = 0.1  # seconds after which a waiting stage checks for the stop signal


def run_pipeline(
    items: Iterable[Any], stages: Sequence[Callable[[Any], Any]], depth: int = 2
) -> Iterator[Any]:
    """Pass each of ``items`` through all ``stages`` and yield the results in order.

    Reading the items and each stage run in their own threads, so that the slowest determines the
    speed. Each queue holds at most ``depth`` results. An exception in a thread is re-raised
    here, after all earlier results. Closing the iterator stops the threads.
    """
    queues = [queue.Queue(depth) for _ in range(len(stages) + 1)]
    stop = threading.Event()
    threads = [threading.Thread(target=_read, args=(items, queues[0], stop), daemon=True)]
    threads += [
        threading.Thread(target=_work, args=(stage, *pair, stop), daemon=True)
        for stage, *pair in zip(stages, queues[:-1], queues[1:], strict=True)
    ]
    for thread in threads:
        thread.start()
    try:
        while True:
            kind, value = queues[-1].get()
            if kind is _END:
                if value is not None:
                    raise value
                return
            yield value
    finally:
        stop.set()
        for thread in threads:
            thread.join(_JOIN_TIMEOUT)


def batches(
    items: Iterable[Any],
    size: int,
    cost: Callable[[Any], float] = lambda item: 0,
    max_cost: float = math.inf,
) -> Iterator[list[Any]]:
    """Group ``items`` into lists of ``size``.

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


def _read(items: Iterable[Any], output: queue.Queue, stop: threading.Event) -> None:
    iterator = iter(items)
    error = None
    try:
        for item in iterator:
            if not _put(output, (None, item), stop):
                break
    except BaseException as raised:  # the caller's thread raises it
        error = raised
    finally:
        if hasattr(iterator, "close"):
            iterator.close()
    _put(output, (_END, error), stop)


def _work(
    stage: Callable[[Any], Any], source: queue.Queue, output: queue.Queue, stop: threading.Event
) -> None:
    while not stop.is_set():
        try:
            kind, value = source.get(timeout=_POLL_INTERVAL)
        except queue.Empty:
            continue
        if kind is not _END:
            try:
                value = stage(value)
            except BaseException as raised:
                kind, value = _END, raised
        if not _put(output, (kind, value), stop) or kind is _END:
            return


def _put(output: queue.Queue, value: Any, stop: threading.Event) -> bool:
    """Put ``value`` into a queue. Return False if ``stop`` was set before there was room."""
    while not stop.is_set():
        try:
            output.put(value, timeout=_POLL_INTERVAL)
            return True
        except queue.Full:
            continue
    return False
