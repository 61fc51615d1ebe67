"""Handling of signals that end a run, so that it finishes its current step first."""

import contextlib
import multiprocessing
import os
import signal
import threading
from collections.abc import Iterator

NAMES = ("SIGINT", "SIGTERM", "SIGUSR1")  # Ctrl-C, and what schedulers send before a time limit
_received: list[signal.Signals] = []


class Stopped(Exception):
    """A run ended early because of a signal."""

    def __init__(self, received: signal.Signals, message: str = "") -> None:
        super().__init__(f"stopped by {received.name}{message}")
        self.signal = received
        self.exit_code = 128 + received  # as shells report it: 130, 143 and 138


@contextlib.contextmanager
def deferred() -> Iterator[None]:
    """Within the block, record signals instead of ending the run; see ``received``.

    A second Ctrl-C ends the run at once. Outside the main thread, this has no effect.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def record(number: int, _: object) -> None:
        if _received and number == signal.SIGINT:
            raise KeyboardInterrupt
        _received.append(signal.Signals(number))

    numbers = [getattr(signal, name) for name in NAMES if hasattr(signal, name)]
    previous = [signal.signal(number, record) for number in numbers]
    try:
        yield
    finally:
        for number, handler in zip(numbers, previous, strict=True):
            signal.signal(number, handler)
        _received.clear()


def received() -> signal.Signals | None:
    """Return the first signal that arrived in the ``deferred`` block, or None."""
    return _received[0] if _received else None


def check() -> None:
    """Raise ``Stopped`` if a signal has arrived."""
    if _received:
        raise Stopped(_received[0])


@contextlib.contextmanager
def blocked() -> Iterator[None]:
    """Within the block, hold back the signals in ``NAMES`` (on macOS, not SIGTERM).

    Processes that are started in the block never receive them. They must call ``end_with_parent``,
    so that they can still be ended.
    """
    if not hasattr(signal, "pthread_sigmask"):  # Windows
        yield
        return
    previous = signal.pthread_sigmask(signal.SIG_BLOCK, _blocked_numbers())
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, previous)


def end_with_parent() -> None:
    """In a process started in ``blocked``, end on a SIGTERM from the parent only.

    A scheduler may send SIGTERM to all processes of a run. The parent still needs this process to
    finish the current step. It sends SIGTERM itself if this process does not end otherwise.
    """
    if not hasattr(signal, "sigwaitinfo"):
        return
    # multiprocessing unblocks signals in processes that it spawns rather than forks.
    signal.pthread_sigmask(signal.SIG_BLOCK, _blocked_numbers())
    parent = multiprocessing.parent_process()

    def wait() -> None:
        while True:
            sender = signal.sigwaitinfo({signal.SIGTERM}).si_pid
            if sender == parent.pid or not parent.is_alive():
                os._exit(0)

    threading.Thread(target=wait, daemon=True).start()


def _blocked_numbers() -> set[int]:
    names = [name for name in NAMES if hasattr(signal, name)]
    if not hasattr(signal, "sigwaitinfo"):  # macOS does not say who sent a signal
        names.remove("SIGTERM")
    return {getattr(signal, name) for name in names}
