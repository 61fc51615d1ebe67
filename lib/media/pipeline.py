"""Work in stages that overlap: each in a thread of its own, with short queues between."""

import math
import queue
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

_END = object()
_PATIENCE = 10.0  # seconds for a thread to end; a camera that hangs must not keep the program
_POLL = 0.1  # seconds until a stage that waits looks whether it is still wanted


def overlap(
    items: Iterable[Any], stages: Sequence[Callable[[Any], Any]], depth: int = 2
) -> Iterator[Any]:
    """``items``, each passed through all ``stages``, in their order.

    Reading the items and each stage run in threads of their own, while the caller works on what
    comes out: what takes longest sets the pace, and no more than ``depth`` results wait anywhere.
    What a thread raises is raised here, after all that came before it. Closing the iterator, as an
    exception in the caller's loop does, ends the threads.
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
            thread.join(_PATIENCE)


def batches(
    items: Iterable[Any],
    size: int,
    weigh: Callable[[Any], float] = lambda item: 0,
    most: float = math.inf,
) -> Iterator[list[Any]]:
    """``items`` in lists of ``size``, the last one shorter; a list is shorter, too, where its items
    weigh ``most`` or more together."""
    batch: list[Any] = []
    weight = 0.0
    for item in items:
        batch.append(item)
        weight += weigh(item)
        if len(batch) == size or weight >= most:
            yield batch
            batch, weight = [], 0.0
    if batch:
        yield batch


def _read(items: Iterable[Any], into: queue.Queue, stop: threading.Event) -> None:
    iterator = iter(items)
    error = None
    try:
        for item in iterator:
            if not _put(into, (None, item), stop):
                break
    except BaseException as raised:  # whatever it is, it belongs to the caller
        error = raised
    finally:
        if hasattr(iterator, "close"):
            iterator.close()
    _put(into, (_END, error), stop)


def _work(
    stage: Callable[[Any], Any], source: queue.Queue, into: queue.Queue, stop: threading.Event
) -> None:
    while not stop.is_set():
        try:
            kind, value = source.get(timeout=_POLL)
        except queue.Empty:
            continue
        if kind is not _END:
            try:
                value = stage(value)
            except BaseException as raised:
                kind, value = _END, raised
        if not _put(into, (kind, value), stop) or kind is _END:
            return


def _put(into: queue.Queue, value: Any, stop: threading.Event) -> bool:
    """Whether ``value`` was put before the caller wanted no more."""
    while not stop.is_set():
        try:
            into.put(value, timeout=_POLL)
            return True
        except queue.Full:
            continue
    return False
