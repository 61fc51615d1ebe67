"""Poses for tests."""

import numpy as np

from lib.dataset.table import Table
from lib.keypoints.poses import Poses


def poses_of(table: Table, keypoints: np.ndarray) -> Poses:
    """Return the poses of all people in ``table``; keypoints (N, K, 3) are x, y and score."""
    return Poses(
        image=table.image.astype(np.int64),
        keypoints=keypoints[..., :2],
        scores=keypoints[..., 2],
        score=keypoints[..., 2].mean(1),
        box=np.stack([table.box(row) for row in range(len(table))]),
        box_score=table.score,
        row=np.arange(len(table)),
    )


def annotated(table: Table) -> np.ndarray:
    """The annotated joints of everybody in ``table`` as keypoints (N, K, 3), with a score of 1."""
    return np.dstack([table.joints, np.ones(table.visible.shape, np.float32)])


def people(boxes: np.ndarray, keypoints: np.ndarray, scores: np.ndarray | float = 1.0) -> Poses:
    """Return the poses of people in one image, with boxes (P, 4) and keypoints (P, K, 2)."""
    boxes, keypoints = np.asarray(boxes, np.float32), np.asarray(keypoints, np.float32)
    scores = np.broadcast_to(np.float32(scores), keypoints.shape[:2])
    count = len(boxes)
    return Poses(
        image=np.zeros(count, np.int64),
        keypoints=keypoints,
        scores=scores,
        score=scores.mean(1),
        box=boxes,
        box_score=np.ones(count, np.float32),
        row=np.full(count, -1),
    )
