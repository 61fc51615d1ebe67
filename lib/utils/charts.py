"""Histograms and bar charts."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from lib.utils.files import write_atomically


def write_charts(
    path: str | Path,
    histograms: dict[str, np.ndarray],
    bars: dict[str, tuple[Sequence[str], np.ndarray]],
) -> None:
    """Write a PNG with a row of histograms and, below it, a row for each bar chart.

    ``histograms`` maps titles to values, ``bars`` maps titles to (names, heights).
    """
    from matplotlib.figure import Figure

    columns, rows = max(len(histograms), 1), 1 + len(bars)
    figure = Figure(figsize=(4.5 * columns, 3.6 * rows), layout="constrained")
    grid = figure.add_gridspec(rows, columns)
    for number, (title, values) in enumerate(histograms.items()):
        axes = figure.add_subplot(grid[0, number])
        # Integers in a small range get one bin each, with the integer at its centre.
        is_discrete = values.dtype.kind in "iu" and np.ptp(values) <= 40
        bins = np.arange(values.min(), values.max() + 2) - 0.5 if is_discrete else 40
        axes.hist(values, bins=bins, color="tab:blue")
        axes.set(title=title)
        axes.grid(alpha=0.3)
    for number, (title, (names, heights)) in enumerate(bars.items()):
        axes = figure.add_subplot(grid[1 + number, :])
        axes.bar(range(len(names)), heights, color="tab:orange")
        axes.set_xticks(range(len(names)), names, rotation=45, ha="right")
        axes.set(title=title)
        axes.grid(alpha=0.3, axis="y")
    write_atomically(path, lambda file: figure.savefig(file, format="png"))
