"""Tracking of people in videos."""

from dataclasses import dataclass

import numpy as np
from scipy.optimize import linear_sum_assignment

from lib.keypoints.poses import Pose, Poses
from lib.keypoints.skeletons import Skeleton
from lib.media.boxes import box_iou
from lib.media.smoothing import OneEuro
from lib.media.video import Frame, Item
from lib.nms import oks_iou

MIN_SIMILARITY = 0.25  # for a match between a person and a track


@dataclass
class _Track:
    track_id: int
    pose: Pose  # in the frame of the last match
    missed: int = 0  # frames since the last match


class Tracker:
    """Tracker that assigns a track id, counted from 1, to each person in a video.

    In each frame, people are matched to the tracks by maximising the total similarity. The
    similarity is the mean of OKS and box IoU.

    Args:
        max_missed: maximum number of consecutive frames that a track survives without a match.
        joint_threshold: only joints with a score above this in the new frame count in OKS.
    """

    def __init__(
        self, skeleton: Skeleton, max_missed: int = 15, joint_threshold: float = 0.2
    ) -> None:
        self._sigmas = skeleton.sigmas
        self.max_missed = max_missed
        self._joint_threshold = joint_threshold
        self._tracks: list[_Track] = []
        self._last_id = 0

    def __call__(self, poses: Poses) -> list[int]:
        """Return the track ids of the people in the next frame, in the order of ``poses``."""
        track_ids = [0] * len(poses)
        for track in self._tracks:
            track.missed += 1
        if self._tracks and len(poses):
            similarity = self._similarity(poses)
            for row, column in zip(*linear_sum_assignment(-similarity), strict=True):
                if similarity[row, column] >= MIN_SIMILARITY:
                    track = self._tracks[row]
                    track.pose, track.missed = poses[int(column)], 0
                    track_ids[column] = track.track_id
        for index, pose in enumerate(poses):
            if not track_ids[index]:
                self._last_id += 1
                track_ids[index] = self._last_id
                self._tracks.append(_Track(self._last_id, pose))
        self._tracks = [track for track in self._tracks if track.missed <= self.max_missed]
        return track_ids

    def track_ids(self) -> set[int]:
        """Return the ids of the tracks that may still be matched."""
        return {track.track_id for track in self._tracks}

    def _similarity(self, poses: Poses) -> np.ndarray:
        """Return the similarity (tracks, people) of all pairs."""
        keypoints = poses.keypoints_with_scores()
        boxes = poses.box.astype(np.float64)
        areas = boxes[:, 2] * boxes[:, 3]
        rows = []
        for pose in (track.pose for track in self._tracks):
            points = np.column_stack([pose.keypoints, pose.scores])
            box = pose.box.astype(np.float64)
            area = box[2] * box[3]
            oks = oks_iou(points, keypoints, area, areas, self._sigmas, self._joint_threshold)
            rows.append((oks + box_iou(box, boxes)) / 2)
        return np.stack(rows)


class VideoTracker:
    """Tracker of people in one video after another. It can also smooth their keypoints.

    Args:
        threshold: only joints with a score above this are used for tracking and smoothed.
        smooth: True to smooth keypoints with the One Euro filter.
    """

    def __init__(self, skeleton: Skeleton, threshold: float, smooth: bool) -> None:
        self._skeleton = skeleton
        self._threshold = threshold
        self._smooth = smooth
        self._item: Item | None = None

    def __call__(self, frame: Frame, poses: Poses) -> list[int]:
        """Return the track ids of the people in a frame, and smooth their keypoints in place.

        For an image, the list is empty and nothing is smoothed.
        """
        if not frame.rate:
            return []
        if frame.item != self._item:
            self._item = frame.item
            self._tracker = Tracker(self._skeleton, joint_threshold=self._threshold)
            # By track id: the filter and the number of its last frame.
            self._filters: dict[int, tuple[OneEuro, int]] = {}
        track_ids = self._tracker(poses)
        if not self._smooth:
            return track_ids
        for track_id, pose in zip(track_ids, poses, strict=True):
            new = OneEuro(frame.rate), frame.number - 1
            smooth, last = self._filters.get(track_id, new)
            size = float(np.sqrt(pose.box[2] * pose.box[3]))
            is_visible = pose.scores > self._threshold
            pose.keypoints[:] = smooth(pose.keypoints, size, is_visible, frame.number - last)
            self._filters[track_id] = smooth, frame.number
        # The filter of a person who is out of sight is kept as long as the track.
        kept = self._tracker.track_ids()
        self._filters = {i: value for i, value in self._filters.items() if i in kept}
        return track_ids
