"""Pose estimation frame by frame."""

from dataclasses import replace

import numpy as np

from lib.keypoints.poses import Poses
from lib.media.people import predict_frames, whole_images
from lib.media.video import IMAGE, Frame, Item


def test_people_are_left_out_only_below_min_score():
    frame = Frame(Item("a.jpg", "a.jpg", IMAGE), np.zeros((8, 8, 3), np.uint8))
    people = Poses(
        image=np.zeros(3, np.int64),
        keypoints=np.zeros((3, 1, 2), np.float32),
        scores=np.zeros((3, 1), np.float32),
        score=np.array([-0.5, np.nan, 0.3], np.float32),
        box=np.zeros((3, 4), np.float32),
        box_score=np.ones(3, np.float32),
        row=np.arange(3),
    )
    for min_score, rows in ((None, [0, 1, 2]), (0.3, [2]), (-1.0, [0, 2])):
        predictor = lambda images, boxes, scores: [replace(people)]  # noqa: E731
        ((_, found),) = predict_frames(iter([frame]), whole_images, predictor, 1, min_score)
        assert found.row.tolist() == rows
