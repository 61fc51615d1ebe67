"""Timing and tables of results."""

import argparse
import re
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch
from cli import add_settings

from lib.utils.errors import InputError


@dataclass(frozen=True)
class Row:
    """A measured value and that of the reference from the same run, both in ``unit``.

    ``agrees`` is False if the reference computes different results.
    """

    name: str
    unit: str
    value: float
    reference: float | None = None
    remark: str = ""
    agrees: bool = True


def fastest(
    runs: Sequence[Callable[[], object]],
    repeats: int,
    clock: Callable[[], float] = time.process_time,
    warm_up: bool = False,
) -> list[float]:
    """Return the time of the fastest of ``repeats`` runs of each function, in seconds.

    The functions take turns, so that other work on the machine affects all of them equally. With
    ``warm_up``, an untimed run directly precedes each timed run.
    """
    best = [float("inf")] * len(runs)
    for _ in range(repeats):
        for i, run in enumerate(runs):
            if warm_up:
                run()
            start = clock()
            run()
            best[i] = min(best[i], clock() - start)
    return best


def wall_clock() -> float:
    """Return the wall-clock time in seconds, after pending GPU work."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter()


def process_memory(key: str) -> float:
    """Return a value of /proc/self/status, such as VmHWM (the peak memory), in MiB.

    The peak that ``resource.getrusage`` returns may be that of the parent process.
    """
    try:
        text = Path("/proc/self/status").read_text(encoding="utf-8")
    except FileNotFoundError:
        raise InputError("memory can only be measured on Linux") from None
    return int(re.search(rf"{key}:\s+(\d+) kB", text)[1]) / 1024


def machine() -> str:
    """Describe the processor, number of threads and versions in one line."""
    info = Path("/proc/cpuinfo")
    found = info.exists() and re.search(r"model name\s*: (.*)", info.read_text(encoding="utf-8"))
    name = found[1] if found else "unknown CPU"
    if torch.cuda.is_available():
        name += f", {torch.cuda.get_device_name()}"
    versions = f"torch {torch.__version__}, OpenCV {cv2.__version__}, NumPy {np.__version__}"
    threads = torch.get_num_threads()
    return f"{name}, threads: {threads}; Python {sys.version.split()[0]}, {versions}"


def table(rows: Sequence[Row]) -> str:
    """Format rows as a text table."""
    lines = [f"{'':48}{'time':>14}{'reference':>12}{'ratio':>8}"]
    for row in rows:
        cells = f"{row.value:>9.3f} {row.unit:4}"
        if row.reference:
            cells += f"{row.reference:>12.3f}{row.value / row.reference:>8.3f}"
        remark = row.remark if row.agrees else f"{row.remark}  DIFFERS".strip()
        lines.append(f"{row.name:48}{cells:34}  {remark}".rstrip())
    return "\n".join(lines)


def add_common_options(
    parser: argparse.ArgumentParser, repeats: int, text: str, has_weights: bool = True
) -> None:
    """Add --cfg, --weights, settings, and --repeats with the default ``repeats``.

    ``text`` is the help of --repeats, without the default.
    """
    add = parser.add_argument
    add("--cfg", required=True, metavar="FILE", help="YAML file of the experiment")
    text = f"{text} (default: %(default)s)"
    add("--repeats", type=int, default=repeats, metavar="N", help=text)
    if has_weights:
        add("--weights", type=Path, metavar="FILE", help="checkpoint (default: random weights)")
    add_settings(parser)
