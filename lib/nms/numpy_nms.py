"""NumPy versions of box NMS and OKS-NMS: the fallback, and the reference for compiled versions.

The functions have the names and arguments of those in ``cpu.pyx``. The callers in ``lib.nms``
validate all arguments and silence NumPy's floating-point warnings, because overlaps may be NaN.
"""

from itertools import pairwise

import numpy as np


def box_keep(boxes: np.ndarray, threshold: float, keep: np.ndarray) -> None:
    """Mark the boxes that are kept.

    Args:
        boxes: float32 (4, n): x1, y1, x2, y2 in pixels, highest score first.
        threshold: remove a box if its overlap with a kept box of a higher score is above this.
        keep: uint8 (n,), output: 1 for boxes that are kept, 0 for others.
    """
    x1, y1, x2, y2 = boxes
    areas = (x2 - x1 + 1) * (y2 - y1 + 1)
    limit = np.float32(threshold)
    keep[:] = 0
    remaining = np.arange(len(keep))
    while remaining.size:
        best, rest = remaining[0], remaining[1:]
        keep[best] = 1
        width = np.minimum(x2[best], x2[rest]) - np.maximum(x1[best], x1[rest]) + 1
        height = np.minimum(y2[best], y2[rest]) - np.maximum(y1[best], y1[rest]) + 1
        inter = np.maximum(width, 0) * np.maximum(height, 0)
        remaining = rest[~(inter / (areas[best] + areas[rest] - inter) > limit)]


def oks_row(
    person: np.ndarray,
    others: np.ndarray,
    area: float,
    areas: np.ndarray,
    variances: np.ndarray,
    min_score: float | None,
    row: np.ndarray,
) -> None:
    """Compute one row of the OKS matrix: the OKS of one person with each of the others.

    Args:
        person: float64 (K, 3): x, y, score.
        others: float64 (n, K, 3).
        area: area of the person in square pixels.
        areas: float64 (n,), areas of the others.
        variances: float64 (K,): (2 * sigma) ** 2.
        min_score: if given, use only joints whose score in the *other* person is above it.
        row: float64 (n,), output.
    """
    squared = (others[:, :, 0] - person[:, 0]) ** 2 + (others[:, :, 1] - person[:, 1]) ** 2
    mean = (area + areas) / 2 + np.spacing(1)  # as published; avoids a division by zero
    terms = np.exp(-(squared / variances / mean[:, None] / 2))
    if min_score is None:
        row[:] = terms.sum(1) / terms.shape[1]
    else:
        used = others[:, :, 2] > min_score
        row[:] = np.where(used, terms, 0.0).sum(1) / np.maximum(used.sum(1), 1)


def oks_groups(
    keypoints: np.ndarray,
    areas: np.ndarray,
    variances: np.ndarray,
    min_score: float | None,
    order: np.ndarray,
    starts: np.ndarray,
    threshold: float,
    kept: np.ndarray,
) -> int:
    """Run OKS-NMS in each group.

    Args:
        keypoints: float64 (N, K, 3).
        areas: float64 (N,).
        variances, min_score: as in ``oks_row``.
        order: int64 (N,), rows sorted by group, then by descending score.
        starts: int64 (groups + 1,), start of each group in ``order``, and the end of the last.
        threshold: remove a person if the OKS with a kept person of a higher score is above this.
        kept: int64 (N,), output: its first entries are the rows that are kept.

    Returns:
        The number of rows written to ``kept``.
    """
    count = 0
    for begin, end in pairwise(starts):
        remaining = order[begin:end]
        while remaining.size:
            best, rest = remaining[0], remaining[1:]
            kept[count] = best
            count += 1
            others, overlap = keypoints[rest], np.empty(len(rest))
            oks_row(
                keypoints[best], others, areas[best], areas[rest], variances, min_score, overlap
            )
            remaining = rest[~(overlap > threshold)]
    return count


def soft_oks_groups(
    keypoints: np.ndarray,
    scores: np.ndarray,
    areas: np.ndarray,
    variances: np.ndarray,
    min_score: float | None,
    order: np.ndarray,
    starts: np.ndarray,
    threshold: float,
    limit: int,
    kept: np.ndarray,
) -> int:
    """Run soft OKS-NMS in each group, keeping at most ``limit`` people per group.

    ``scores``, float64 (N,) without NaN, is modified: each time a person is kept, the other scores
    of its group are multiplied by exp(-OKS ** 2 / threshold). Apart from ``threshold``, the other
    arguments and the return value are those of ``oks_groups``.
    """
    count = 0
    for begin, end in pairwise(starts):
        rest = np.sort(order[begin:end])
        for _ in range(min(end - begin, limit)):
            # The highest score; among ties the last row, because `rest` is in ascending order.
            index = len(rest) - 1 - np.argmax(scores[rest][::-1])
            best, rest = rest[index], np.delete(rest, index)
            kept[count] = best
            count += 1
            others, overlap = keypoints[rest], np.empty(len(rest))
            oks_row(
                keypoints[best], others, areas[best], areas[rest], variances, min_score, overlap
            )
            lowered = scores[rest] * np.exp(-(overlap**2) / threshold)
            lowered[np.isnan(lowered)] = -np.inf
            scores[rest] = np.where(np.isnan(overlap), scores[rest], lowered)
    return count
