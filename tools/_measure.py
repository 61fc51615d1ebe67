"""Options, times, memory and tables, for tools/benchmark.py."""

import argparse
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch

from lib.utils.errors import InputError


@dataclass
class Row:
    """One comparison: ours and the plain version, in ``unit``; None where there is no such one."""

    what: str
    unit: str
    ours: float
    plain: float | None = None
    agree: bool | None = None

    @property
    def ratio(self) -> float | None:
        return self.ours / self.plain if self.plain else None


def positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"must be 1 or more, not {value}")
    return value


@contextmanager
def one_thread() -> Iterator[None]:
    threads, cv_threads = torch.get_num_threads(), cv2.getNumThreads()
    torch.set_num_threads(1)
    cv2.setNumThreads(0)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
        cv2.setNumThreads(cv_threads)


def fastest(repeats: int, *versions: Callable[[], object]) -> list[float]:
    """CPU seconds of the fastest run of each version; they take turns, so that what else the
    machine does meets them alike."""
    best = [float("inf")] * len(versions)
    for _ in range(repeats):
        for number, run in enumerate(versions):
            start = time.process_time()
            run()
            best[number] = min(best[number], time.process_time() - start)
    return best


def machine(threads: int = 1, has_gpu: bool = False) -> str:
    """What the figures were taken on, in one line."""
    name = "unknown CPU"
    info = Path("/proc/cpuinfo")
    if info.exists():
        models = [line for line in info.read_text().splitlines() if line.startswith("model name")]
        name = models[0].split(":")[1].strip() if models else name
    versions = f"torch {torch.__version__}, OpenCV {cv2.__version__}, NumPy {np.__version__}"
    if has_gpu:
        name += f", {torch.cuda.get_device_name()}"
    count = f"{threads} thread{'s' if threads > 1 else ''}"
    return f"{name}, {count}; Python {sys.version.split()[0]}, {versions}"


def table(title: str, rows: list[Row]) -> str:
    """The rows as text."""
    lines = [title, machine(), "plain: tools/_plain.py, one sample, joint or pair at a time", ""]
    lines.append(f"{'':44}{'ours':>10}{'plain':>10}       ratio  answers")
    for row in rows:
        plain, ratio = ("" if x is None else digits(x) for x in (row.plain, row.ratio))
        agree = {None: "", True: "  agree", False: "  DIFFER"}[row.agree]
        line = f"{row.what:44}{digits(row.ours):>10}{plain:>10} {row.unit:4}{ratio:>7}{agree}"
        lines.append(line.rstrip())
    return "\n".join(lines)


def digits(value: float) -> str:
    """Three decimals of small numbers, one of large ones."""
    return f"{value:.3f}" if value < 100 else f"{value:.1f}"


def memory() -> dict[str, float]:
    """The process's memory in MiB, by Linux' names. Not ``resource.getrusage``: its peak includes
    that of the process that started this one."""
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
    except FileNotFoundError:
        raise InputError("the memory of a process can only be read on Linux") from None
    pairs = (line.split(":") for line in lines if line.endswith(" kB"))
    return {name: int(value.split()[0]) / 1024 for name, value in pairs}
