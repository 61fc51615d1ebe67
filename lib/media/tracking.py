"""Who is who from frame to frame."""

from dataclasses import dataclass

import numpy as np
from scipy.optimize import linear_sum_assignment

from lib.core.inference import Person
from lib.keypoints.skeletons import Skeleton
from lib.nms import oks_iou


@dataclass
class _Track:
    number: int
    person: Person
    missed: int = 0


class Tracker:
    """Gives the people of a video numbers, from 1, which they keep.

    In each frame the people found are matched with those of the frames before so that their
    likeness, the mean of their OKS and of the overlap (IoU) of their boxes, is the largest in sum.

    Args:
        skeleton: for OKS.
        threshold: people less alike than this are different ones.
        patience: frames in a row that somebody may be missing before the number is given up.
        joint_threshold: joints with a lower score do not count in OKS.
    """

    def __init__(
        self,
        skeleton: Skeleton,
        threshold: float = 0.25,
        patience: int = 15,
        joint_threshold: float = 0.2,
    ) -> None:
        self._sigmas = skeleton.sigmas
        self._threshold = threshold
        self._patience = patience
        self._joint_threshold = joint_threshold
        self._tracks: list[_Track] = []
        self._last = 0

    def __call__(self, people: list[Person]) -> list[int]:
        """The numbers of the people of the next frame, in their order."""
        numbers = [0] * len(people)
        for track in self._tracks:
            track.missed += 1
        if self._tracks and people:
            likeness = self._likeness(people)
            for row, column in zip(*linear_sum_assignment(-likeness), strict=True):
                if likeness[row, column] >= self._threshold:
                    track = self._tracks[row]
                    track.person, track.missed = people[column], 0
                    numbers[column] = track.number
        for at, person in enumerate(people):
            if not numbers[at]:
                self._last += 1
                numbers[at] = self._last
                self._tracks.append(_Track(self._last, person))
        self._tracks = [track for track in self._tracks if track.missed <= self._patience]
        return numbers

    def _likeness(self, people: list[Person]) -> np.ndarray:
        """(tracks, people)."""
        keypoints = np.stack([np.column_stack([p.keypoints, p.scores]) for p in people])
        boxes = np.stack([person.box for person in people])
        areas = boxes[:, 2] * boxes[:, 3]
        rows = []
        for track in self._tracks:
            known = track.person
            points = np.column_stack([known.keypoints, known.scores])
            area = known.box[2] * known.box[3]
            oks = oks_iou(points, keypoints, area, areas, self._sigmas, self._joint_threshold)
            rows.append((oks + overlap(known.box, boxes)) / 2)
        return np.stack(rows)


def overlap(box: np.ndarray, boxes: np.ndarray) -> np.ndarray:
    """(N,) intersection over union of a box (4,) x, y, width, height with boxes (N, 4)."""
    first = np.maximum(box[:2], boxes[:, :2])
    last = np.minimum(box[:2] + box[2:], boxes[:, :2] + boxes[:, 2:])
    shared = np.prod(np.maximum(last - first, 0), axis=1)
    return shared / (box[2] * box[3] + boxes[:, 2] * boxes[:, 3] - shared)
