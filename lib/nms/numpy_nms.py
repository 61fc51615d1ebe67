"""Box NMS and OKS-NMS on NumPy: used where nothing was built, and the reference for what is.

The functions have the names and arguments of those in ``cpu.pyx``. The callers in ``lib.nms`` check
every argument and silence NumPy's floating-point warnings: here a NaN overlap is an answer.
"""

from itertools import pairwise

import numpy as np


def box_keep(boxes: np.ndarray, threshold: float, keep: np.ndarray) -> None:
    """Mark the boxes that stay.

    Args:
        boxes: float32 (4, n): x1, y1, x2, y2 in pixels, highest score first.
        threshold: a box goes when its overlap with a kept, better one is above this.
        keep: uint8 (n,), overwritten with 1 where a box stays and 0 where it goes.
    """
    x1, y1, x2, y2 = boxes
    areas = (x2 - x1 + 1) * (y2 - y1 + 1)
    limit = np.float32(threshold)
    keep[:] = 0
    alive = np.arange(len(keep))
    while alive.size:
        one, rest = alive[0], alive[1:]
        keep[one] = 1
        width = np.minimum(x2[one], x2[rest]) - np.maximum(x1[one], x1[rest]) + 1
        height = np.minimum(y2[one], y2[rest]) - np.maximum(y1[one], y1[rest]) + 1
        inter = np.maximum(width, 0) * np.maximum(height, 0)
        alive = rest[~(inter / (areas[one] + areas[rest] - inter) > limit)]


def oks_row(
    person: np.ndarray,
    others: np.ndarray,
    area: float,
    areas: np.ndarray,
    variances: np.ndarray,
    visible: float | None,
    row: np.ndarray,
) -> None:
    """Write the OKS of one person with each of the others.

    Args:
        person: float64 (K, 3): x, y, score.
        others: float64 (n, K, 3).
        area: of the person, in pixels squared.
        areas: float64 (n,), of the others.
        variances: float64 (K,): (2 * sigma) ** 2.
        visible: where given, only joints count whose score in the *other* person is above it.
        row: float64 (n,), overwritten.
    """
    row[:] = oks(person, others, area, areas, variances, visible)


def oks(
    person: np.ndarray,
    others: np.ndarray,
    area: float,
    areas: np.ndarray,
    variances: np.ndarray,
    visible: float | None,
) -> np.ndarray:
    """What ``oks_row`` writes."""
    squared = (others[:, :, 0] - person[:, 0]) ** 2 + (others[:, :, 1] - person[:, 1]) ** 2
    mean = (area + areas) / 2 + np.spacing(1)
    terms = np.exp(-(squared / variances / mean[:, None] / 2))
    if visible is None:
        return terms.sum(1) / terms.shape[1]
    counts = others[:, :, 2] > visible
    return np.where(counts, terms, 0.0).sum(1) / np.maximum(counts.sum(1), 1)


def oks_groups(
    keypoints: np.ndarray,
    areas: np.ndarray,
    variances: np.ndarray,
    visible: float | None,
    order: np.ndarray,
    starts: np.ndarray,
    threshold: float,
    kept: np.ndarray,
) -> int:
    """OKS-NMS in each group.

    Args:
        keypoints: float64 (N, K, 3).
        areas: float64 (N,).
        variances, visible: as in ``oks_row``.
        order: int64 (N,), rows by group, within a group highest score first.
        starts: int64 (groups + 1,), where each group begins in ``order``, and its end.
        threshold: a person goes when the OKS with a kept, better one is above this.
        kept: int64 (N,), filled from the front with the rows kept.

    Returns:
        How many rows of ``kept`` were filled.
    """
    count = 0
    for begin, end in pairwise(starts):
        alive = order[begin:end]
        while alive.size:
            one, rest = alive[0], alive[1:]
            kept[count] = one
            count += 1
            people = keypoints[rest]
            overlap = oks(keypoints[one], people, areas[one], areas[rest], variances, visible)
            alive = rest[~(overlap > threshold)]
    return count


def soft_oks_groups(
    keypoints: np.ndarray,
    scores: np.ndarray,
    areas: np.ndarray,
    variances: np.ndarray,
    visible: float | None,
    order: np.ndarray,
    starts: np.ndarray,
    threshold: float,
    limit: int,
    kept: np.ndarray,
) -> int:
    """Soft OKS-NMS in each group: as ``oks_groups``, but at most ``limit`` people of each group.

    ``scores`` (float64 (N,), no NaN) is altered: each time a person is kept, those of all others
    fall by exp(-OKS ** 2 / threshold).
    """
    count = 0
    for begin, end in pairwise(starts):
        alive = np.sort(order[begin:end])
        for _ in range(min(end - begin, limit)):
            best = len(alive) - 1 - np.argmax(scores[alive][::-1])
            one, alive = alive[best], np.delete(alive, best)
            kept[count] = one
            count += 1
            people = keypoints[alive]
            overlap = oks(keypoints[one], people, areas[one], areas[alive], variances, visible)
            fallen = scores[alive] * np.exp(-(overlap**2) / threshold)
            fallen[np.isnan(fallen)] = -np.inf
            scores[alive] = np.where(np.isnan(overlap), scores[alive], fallen)
    return count
