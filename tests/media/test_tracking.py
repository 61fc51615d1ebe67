"""Track ids of people in videos."""

import numpy as np

from lib.keypoints.poses import Poses
from lib.keypoints.skeletons import COCO
from lib.media.boxes import box_iou
from lib.media.smoothing import OneEuro
from lib.media.tracking import Tracker, VideoTracker
from lib.media.video import Frame, Item
from tests.poses import people


def people_at(*corners: float | tuple[float, float], scores: float = 0.9) -> Poses:
    """Return people whose boxes have their top left corner at these x, or (x, y)."""
    shape = np.random.default_rng(3).uniform(0, 1, (17, 2)) * (50, 100)
    origins = np.array([np.broadcast_to(c, 2) if np.ndim(c) else (c, 50) for c in corners])
    origins = origins.reshape(-1, 2).astype(float)
    boxes = np.column_stack([origins, np.full((len(origins), 2), (50.0, 100.0))])
    return people(boxes, origins[:, None] + shape, scores)


def test_people_keep_their_ids_in_any_order():
    tracker = Tracker(COCO)
    rng = np.random.default_rng(0)
    for frame in range(20):
        poses = people_at(10 + 4 * frame, 300 - 3 * frame, (500, 20 + 2 * frame))
        order = rng.permutation(3)
        numbers = tracker(poses[order])
        if not frame:
            known = dict(zip(order, numbers, strict=True))
            assert sorted(numbers) == [1, 2, 3]
        assert numbers == [known[n] for n in order]


def test_overlapping_people_are_distinguished_by_their_poses():
    tracker = Tracker(COCO)
    poses = people_at(100, 104)
    poses.keypoints[1, :, 1] = 300 - poses.keypoints[1, :, 1]  # upside down
    assert tracker(poses) == [1, 2]
    crossed = poses[[1, 0]]
    crossed.box = poses.box.copy()
    assert tracker(crossed) == [2, 1]


def test_a_person_missing_for_a_few_frames_keeps_the_id():
    tracker = Tracker(COCO, max_missed=3)
    assert tracker(people_at(10, 200)) == [1, 2]
    for _ in range(3):
        assert tracker(people_at(200)) == [2]
    assert tracker(people_at(12, 200)) == [1, 2]
    for _ in range(4):
        assert tracker(people_at(200)) == [2]
    assert tracker(people_at(12, 200)) == [3, 2]


def test_a_new_person_gets_a_new_id_and_frames_may_be_empty():
    tracker = Tracker(COCO)
    assert tracker(people_at()) == []
    assert tracker(people_at(10)) == [1]
    assert tracker(people_at()) == []
    assert tracker(people_at(400)) == [2]
    unseen = people_at(400, scores=0.0)  # no joint counts, so only the box is compared
    assert tracker(unseen) == [2]


def test_smoothing_continues_after_a_gap_and_with_skipped_frames():
    follow = VideoTracker(COCO, 0.2, smooth=True)
    video, expected = Item("a.mp4", "a.mp4", "video"), OneEuro(30.0)
    for number, x in ((0, 10), (10, 14), (20, None), (30, 22)):
        poses = people_at(*(() if x is None else (x,)))
        plain = poses.keypoints.copy()
        follow(Frame(video, np.zeros((9, 9, 3), np.uint8), number, 30.0), poses)
        if x is not None:
            steps = {0: 1, 10: 10, 30: 20}[number]
            wanted = expected(plain[0], np.sqrt(5000), np.ones(17, bool), steps)
            np.testing.assert_allclose(poses.keypoints[0], wanted, atol=1e-3)
    assert np.abs(poses.keypoints - plain).max() > 0.1


def test_box_iou_is_intersection_over_union():
    boxes = np.array([[0, 0, 10, 10], [5, 0, 10, 10], [20, 20, 5, 5], [2, 2, 5, 5]], float)
    expected = [1, 50 / 150, 0, 25 / 100]
    np.testing.assert_allclose(box_iou(boxes[0], boxes), expected)
