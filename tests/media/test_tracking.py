"""Numbers of people in videos."""

import numpy as np

from lib.core.inference import Person
from lib.keypoints.skeletons import COCO
from lib.media.tracking import Tracker, overlap


def person(x: float, y: float = 50.0, height: float = 100.0, scores: float = 0.9) -> Person:
    """Somebody whose box begins there."""
    rng = np.random.default_rng(3)
    keypoints = np.array([x, y]) + rng.uniform(0, 1, (17, 2)) * (height / 2, height)
    box = np.array([x, y, height / 2, height])
    return Person(keypoints, np.full(17, scores), box, scores)


def test_people_keep_their_numbers_whatever_the_order_they_are_found_in():
    tracker = Tracker(COCO)
    rng = np.random.default_rng(0)
    for frame in range(20):
        people = [person(10 + 4 * frame), person(300 - 3 * frame), person(500, y=20 + 2 * frame)]
        order = rng.permutation(3)
        numbers = tracker([people[n] for n in order])
        if not frame:
            known = dict(zip(order, numbers, strict=True))
            assert sorted(numbers) == [1, 2, 3]
        assert numbers == [known[n] for n in order]


def test_boxes_that_cross_are_told_apart_by_their_poses():
    tracker = Tracker(COCO)
    one, other = person(100), person(104)
    other.keypoints[:, 1] = 300 - other.keypoints[:, 1]  # on the head
    assert tracker([one, other]) == [1, 2]
    one.box, other.box = other.box, one.box
    assert tracker([other, one]) == [2, 1]


def test_somebody_who_was_missing_for_a_while_comes_back_under_the_same_number():
    tracker = Tracker(COCO, patience=3)
    assert tracker([person(10), person(200)]) == [1, 2]
    for _ in range(3):
        assert tracker([person(200)]) == [2]
    assert tracker([person(12), person(200)]) == [1, 2]
    for _ in range(4):
        assert tracker([person(200)]) == [2]
    assert tracker([person(12), person(200)]) == [3, 2]


def test_somebody_else_gets_another_number_and_nobody_is_no_trouble():
    tracker = Tracker(COCO)
    assert tracker([]) == []
    assert tracker([person(10)]) == [1]
    assert tracker([]) == []
    assert tracker([person(400)]) == [2]
    unseen = person(400, scores=0.0)  # no joint counts: the box alone decides
    assert tracker([unseen]) == [2]


def test_overlap_is_intersection_over_union():
    boxes = np.array([[0, 0, 10, 10], [5, 0, 10, 10], [20, 20, 5, 5], [2, 2, 5, 5]], float)
    expected = [1, 50 / 150, 0, 25 / 100]
    np.testing.assert_allclose(overlap(boxes[0], boxes), expected)
