"""Track people from frame to frame."""

from dataclasses import dataclass

import numpy as np
from scipy.optimize import linear_sum_assignment

from lib.keypoints.poses import Pose, Poses
from lib.keypoints.skeletons import Skeleton
from lib.media.boxes import box_iou
from lib.media.smoothing import OneEuro
from lib.media.video import Frame, Item
from lib.nms import oks_iou


@dataclass
class _Track:
    number: int
    pose: Pose
    missed: int = 0


class Tracker:
    """Gives each person in a video a number, from 1, kept from frame to frame.

    In each frame the people found are matched with those of the frames before so that their
    likeness, the mean of their OKS and of the overlap (IoU) of their boxes, is the largest in sum.

    Args:
        skeleton: for OKS.
        threshold: below this likeness two people are taken to be different.
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
        self.patience = patience
        self._joint_threshold = joint_threshold
        self._tracks: list[_Track] = []
        self._last = 0

    def __call__(self, poses: Poses) -> list[int]:
        """The numbers of the people of the next frame, in their order."""
        numbers = [0] * len(poses)
        for track in self._tracks:
            track.missed += 1
        if self._tracks and len(poses):
            likeness = self._likeness(poses)
            for row, column in zip(*linear_sum_assignment(-likeness), strict=True):
                if likeness[row, column] >= self._threshold:
                    track = self._tracks[row]
                    track.pose, track.missed = poses[int(column)], 0
                    numbers[column] = track.number
        for at, pose in enumerate(poses):
            if not numbers[at]:
                self._last += 1
                numbers[at] = self._last
                self._tracks.append(_Track(self._last, pose))
        self._tracks = [track for track in self._tracks if track.missed <= self.patience]
        return numbers

    def _likeness(self, poses: Poses) -> np.ndarray:
        """(tracks, people)."""
        keypoints = poses.with_scores()
        boxes = poses.box.astype(np.float64)
        areas = boxes[:, 2] * boxes[:, 3]
        rows = []
        for track in self._tracks:
            known = track.pose
            points = np.column_stack([known.keypoints, known.scores])
            box = known.box.astype(np.float64)
            area = box[2] * box[3]
            oks = oks_iou(points, keypoints, area, areas, self._sigmas, self._joint_threshold)
            rows.append((oks + box_iou(box, boxes)) / 2)
        return np.stack(rows)


class Follower:
    """Numbers for the people of a video, and steadier joints where ``smooth``.

    Args:
        threshold: joints with a lower score do not count.
    """

    def __init__(self, skeleton: Skeleton, threshold: float, smooth: bool) -> None:
        self._skeleton = skeleton
        self._threshold = threshold
        self._smooth = smooth
        self._item: Item | None = None
        self._tracker = Tracker(skeleton, joint_threshold=threshold)
        self._filters: dict[int, tuple[OneEuro, int]] = {}

    def __call__(self, frame: Frame, poses: Poses) -> list[int]:
        """The people's numbers; their keypoints are smoothed in place. Pictures have no numbers."""
        if not frame.rate:
            return []
        if frame.item != self._item:
            self._item = frame.item
            self._tracker = Tracker(self._skeleton, joint_threshold=self._threshold)
            self._filters = {}
        numbers = self._tracker(poses)
        if not self._smooth:
            return numbers
        known, self._filters = self._filters, {}
        for number, pose in zip(numbers, poses, strict=True):
            smooth, last = known.pop(number, (OneEuro(frame.rate), frame.number - 1))
            size = float(np.sqrt(pose.box[2] * pose.box[3]))
            is_seen = pose.scores > self._threshold
            pose.keypoints[:] = smooth(pose.keypoints, size, is_seen, frame.number - last)
            self._filters[number] = smooth, frame.number
        # Somebody missing may come back, for as long as the tracker keeps the number.
        patience = self._tracker.patience
        self._filters |= {n: f for n, f in known.items() if frame.number - f[1] <= patience}
        return numbers
