"""Output folders, logging and progress bars."""

import contextlib
import logging
import sys
import time
from collections.abc import Iterable, Iterator
from logging.handlers import MemoryHandler, WatchedFileHandler
from pathlib import Path
from typing import TypeVar

from tqdm import tqdm
from tqdm.contrib.logging import logging_redirect_tqdm
from yacs.config import CfgNode

from lib.utils import distributed
from lib.utils.errors import os_errors_as, printable

T = TypeVar("T")


def counted(number: int, noun: str, plural: str = "") -> str:
    """Return a number with its noun, such as ``1 image`` or ``3 images``."""
    return f"{number:,} {noun if number == 1 else plural or noun + 's'}"


def counted_people(number: int) -> str:
    """Return a number with ``person`` or ``people``."""
    return counted(number, "person", "people")


def experiment_name(cfg: CfgNode, path: str | Path) -> str:
    """Return the name of the experiment in the YAML file ``path``."""
    return cfg.EXPERIMENT.replace("{name}", Path(path).stem)


def experiment_folders(cfg: CfgNode, path: str | Path) -> tuple[Path, Path]:
    """Return the output and log folders of the experiment in the YAML file ``path``.

    They are ``output/<dataset>/<network>/<name>`` and ``log/<dataset>/<network>/<name>_<time>``,
    and are not created.
    """
    parent, name = Path(cfg.DATASET.DATASET) / cfg.MODEL.NAME, experiment_name(cfg, path)
    stamp = time.strftime("%Y-%m-%d-%H-%M-%S")
    return Path(cfg.OUTPUT_DIR) / parent / name, Path(cfg.LOG_DIR) / parent / f"{name}_{stamp}"


def start_log(folder: Path, name: str, phase: str) -> Path:
    """Log to the console and to ``<folder>/<name>_<time>_<phase>.log``; return the file's path.

    With several processes, only the main one logs.
    """
    path = folder / f"{name}_{time.strftime('%Y-%m-%d-%H-%M-%S')}_{phase}.log"
    if not distributed.is_main():
        log_to(logging.NullHandler())
        return path
    with os_errors_as(f"{path}: cannot write"):
        file = _FileHandler(path, encoding="utf-8")
    # Ignore errors of the log itself: a full disk, for example, is reported by other writers.
    logging.raiseExceptions = False
    file.setFormatter(_Formatter("%(asctime)-15s %(message)s"))
    console = console_handler()
    # Messages of the logger "config", such as the settings (a hundred lines), only go to the file.
    console.addFilter(lambda record: record.name != "config")
    log_to(console, file)
    logging.getLogger("matplotlib").setLevel(logging.WARNING)
    return path


def buffer_log() -> None:
    """Buffer log messages until ``log_to`` or ``start_log`` is called.

    Reading the configuration logs messages, but the log folder is only known afterwards.
    """
    log_to(MemoryHandler(capacity=1000, flushLevel=logging.CRITICAL + 1))


def log_to(*handlers: logging.Handler) -> None:
    """Send log messages to ``handlers``, starting with the buffered messages."""
    root = logging.getLogger()
    buffered = [r for h in root.handlers if isinstance(h, MemoryHandler) for r in h.buffer]
    logging.basicConfig(level=logging.INFO, handlers=handlers, force=True)
    for record in buffered:
        root.handle(record)


def console_handler() -> logging.Handler:
    """Return a handler that prints plain messages to standard output."""
    console = logging.StreamHandler(sys.stdout)
    console.setFormatter(_Formatter("%(message)s"))
    return console


class _FileHandler(WatchedFileHandler):
    """Handler that creates its file again if it is removed during the run."""

    def emit(self, record: logging.LogRecord) -> None:
        with contextlib.suppress(OSError):  # its folder may be gone as well
            super().emit(record)


class _Formatter(logging.Formatter):
    """Formatter that escapes control characters, which may be in names of files and joints."""

    def format(self, record: logging.LogRecord) -> str:
        return printable(super().format(record), kept="\n\t")


def progress(items: Iterable[T], total: int | None, description: str) -> Iterator[T]:
    """Iterate over ``items``; on a terminal, the main process shows a progress bar."""
    # In other processes, logging_redirect_tqdm would print the messages that start_log hides.
    if not distributed.is_main():
        yield from items
        return
    with logging_redirect_tqdm():
        # disable=None: no bar if standard error is not a terminal.
        yield from tqdm(
            items, total=total, desc=description, leave=False, disable=None, dynamic_ncols=True
        )


def markdown_table(names: Iterable[str], values: Iterable[float], network: str) -> str:
    """Format metrics as a Markdown table with one row, as the HRNet code does."""
    rows = ["Arch", *names], [network, *(f"{value:.3f}" for value in values)]
    head, row = (f"| {' | '.join(cells)} |" for cells in rows)
    return f"{head}\n{'|---' * len(rows[0])}|\n{row}"
