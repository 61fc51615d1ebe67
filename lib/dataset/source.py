"""The interface that each annotation format implements."""

from typing import Any, Protocol

import numpy as np

from lib.dataset.table import Table
from lib.keypoints.poses import Poses
from lib.keypoints.skeletons import Skeleton


class Source(Protocol):
    """One split of a data set: its people, their skeleton, and the evaluation.

    Attributes:
        metric: mAP or PCKh, as in the option ``--eval`` of mmpose's commands.
        ground_truth: the annotations that ``evaluate`` uses; only if ``has_ground_truth``.

    ``SceneDataset`` also needs the attributes ``scenes`` and ``annotation_file`` of
    ``CocoKeypoints``.
    """

    metric: str
    skeleton: Skeleton
    table: Table
    split: str
    has_ground_truth: bool
    ground_truth: Any

    def evaluate(self, poses: Poses, output_dir: str) -> tuple[dict, float]:
        """Evaluate predictions, and write them to ``output_dir``.

        Returns:
            Metrics by name, and the metric that selects the best checkpoint.
        """

    def rows_to_draw(self, poses: Poses) -> np.ndarray:
        """Return the rows of ``poses`` that are worth drawing."""
