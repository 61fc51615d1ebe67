"""Where a run writes, and how it says what it does."""

import logging
import sys
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TypeVar

from tqdm import tqdm
from tqdm.contrib.logging import logging_redirect_tqdm
from yacs.config import CfgNode

from lib.utils.errors import InputError

T = TypeVar("T")


def experiment_name(cfg: CfgNode, path: str | Path) -> str:
    """What the experiment in the file ``path`` is called."""
    return cfg.EXPERIMENT.replace("{name}", Path(path).stem)


def experiment_folders(cfg: CfgNode, path: str | Path) -> tuple[Path, Path]:
    """``output/<dataset>/<network>/<name>`` and ``log/<dataset>/<network>/<name>_<time>`` of the
    experiment in the file ``path``; neither is made."""
    where, name = Path(cfg.DATASET.DATASET) / cfg.MODEL.NAME, experiment_name(cfg, path)
    stamp = time.strftime("%Y-%m-%d-%H-%M-%S")
    return Path(cfg.OUTPUT_DIR) / where / name, Path(cfg.LOG_DIR) / where / f"{name}_{stamp}"


def start_log(folder: Path, name: str, phase: str) -> Path:
    """Send log messages to the console and to ``<folder>/<name>_<time>_<phase>.log``; returns that
    file."""
    path = folder / f"{name}_{time.strftime('%Y-%m-%d-%H-%M-%S')}_{phase}.log"
    try:
        file = logging.FileHandler(path, encoding="utf-8")
    except OSError as error:
        raise InputError(f"{path}: cannot write: {error.strerror}") from None
    # A log that cannot take a line (a full disk) says nothing: what matters fails with an error.
    logging.raiseExceptions = False
    root = logging.getLogger()
    for handler in list(root.handlers):
        root.removeHandler(handler)
    file.setFormatter(logging.Formatter("%(asctime)-15s %(message)s"))
    console = logging.StreamHandler(sys.stdout)
    console.setFormatter(logging.Formatter("%(message)s"))
    # A hundred lines of settings, which would scroll away what the run says.
    console.addFilter(lambda record: record.name != "config")
    root.addHandler(file)
    root.addHandler(console)
    root.setLevel(logging.INFO)
    logging.getLogger("matplotlib").setLevel(logging.WARNING)
    return path


def progress(items: Iterable[T], total: int, what: str) -> Iterator[T]:
    """``items``, with a bar and the time left on a terminal, and nothing elsewhere: there the log
    has to do."""
    with logging_redirect_tqdm():
        # disable=None: only where standard error is no terminal.
        yield from tqdm(
            items, total=total, desc=what, leave=False, disable=None, dynamic_ncols=True
        )


def markdown_table(names: Iterable[str], values: Iterable[float], network: str) -> str:
    """The scores as HRNet prints them: a Markdown table with one row."""
    names = list(names)
    head = "| Arch | " + " | ".join(names) + " |"
    line = "|---" * (len(names) + 1) + "|"
    row = f"| {network} | " + " | ".join(f"{value:.3f}" for value in values) + " |"
    return "\n".join([head, line, row])
