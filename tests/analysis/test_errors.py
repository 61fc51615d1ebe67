"""Errors of predicted keypoints."""

import csv

import cv2
import numpy as np
import pytest

from lib.analysis.errors import CELL_SIZE, KeypointErrors, match
from lib.keypoints.poses import Poses
from lib.keypoints.skeletons import COCO
from lib.media.ground_truth import AnnotatedPerson
from tests.poses import people

IMAGE = np.full((120, 160, 3), 90, np.uint8)


def annotated_person(number: int, x: float) -> AnnotatedPerson:
    """Return a person of 36 x 64 pixels, whose last two joints are not annotated."""
    joints = np.random.default_rng(number).uniform((x, 20), (x + 36, 84), (17, 2))
    visible = np.arange(17) < 15
    return AnnotatedPerson(number, 1, joints, visible, np.array([x, 20, 36, 64.0]))


def found(*persons: AnnotatedPerson, shifts=((0.0, 0.0),), boxes=None) -> Poses:
    """Return predictions for people, with all joints moved by ``shifts``."""
    joints = [person.joints + shift for person, shift in zip(persons, shifts, strict=True)]
    return people([person.box for person in persons] if boxes is None else boxes, joints)


def rows(path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_errors_are_distances_in_pixels_of_annotated_joints(tmp_path):
    first, second = annotated_person(1, 10), annotated_person(2, 80)
    errors = KeypointErrors(COCO)
    poses = found(first, second, shifts=((3, 4), (0, 1)))
    poses.keypoints[1, 0] += (0, 9)
    errors.add("a.jpg", IMAGE, poses, [first, second], is_in_order=True)
    table = errors.write(tmp_path)
    one, two = rows(tmp_path / "errors.csv")
    expected = {"file": "a.jpg", "person": "1", "nose": "5.00", "left_knee": "5.00"}
    assert expected.items() <= one.items()
    assert one["right_ankle"] == "" and one["mean"] == "5.00"
    assert float(one["relative"]) == pytest.approx(5 / 48, abs=1e-4)
    assert two["nose"] == "10.00" and two["mean"] == f"{(14 + 10) / 15:.2f}"
    joints = {row["joint"]: row for row in rows(tmp_path / "errors_by_joint.csv")}
    assert joints["nose"]["people"] == "2" and joints["nose"]["mean"] == "7.50"
    assert joints["left_eye"]["mean"] == "3.00" and joints["right_ankle"]["mean"] == ""
    assert joints["all"]["people"] == "30"
    assert "| nose | 2 | 7.50 | 7.50 |" in table and "2 annotated people, 0 of them" in table


def test_squared_errors_are_written_as_in_the_published_demo(tmp_path):
    first, second, missed = map(annotated_person, (1, 2, 3), (10, 80, 10))
    second.is_annotated[0] = False
    boxes = [first.box, second.box]
    poses = found(first, second, shifts=((3, 4), (0, 1)), boxes=boxes)
    errors = KeypointErrors(COCO)
    errors.add("a.jpg", IMAGE, poses, [first, second], is_in_order=True)
    errors.add("b.jpg", IMAGE, Poses.empty(17), [missed], is_in_order=False)
    errors.write(tmp_path)
    lines = (tmp_path / "error_per_image_per_keypoint.txt").read_text().splitlines()
    assert lines == [
        "FILENAME," + ",".join(f"KP_{n}" for n in range(1, 18)),
        "a.jpg," + "12.50," * 15 + ",",  # (9 + 16) / 2; the last two joints are not annotated
        "a.jpg,," + "0.50," * 14 + ",",
        "b.jpg" + "," * 17,
        "TOTAL ERROR,12.50," + "6.50," * 14 + ",",
    ]


def test_people_are_matched_by_their_boxes(tmp_path):
    first, second = annotated_person(1, 10), annotated_person(2, 80)
    boxes = [(120, 90, 10, 10), np.add(second.box, (3, 2, 0, 0))]
    poses = found(first, second, shifts=((50, 0), (6, 8)), boxes=boxes)
    assert match(poses, [first, second]) == {1: 1}
    assert match(Poses.empty(17), [first]) == {} and match(poses, []) == {}
    errors = KeypointErrors(COCO)
    errors.add("a.jpg", IMAGE, poses, [first, second], is_in_order=False)
    errors.add("b.jpg", IMAGE, Poses.empty(17), [], is_in_order=False)
    table = errors.write(tmp_path)
    one, two = rows(tmp_path / "errors.csv")
    assert one["mean"] == one["nose"] == "" and two["mean"] == "10.00"
    assert "2 annotated people, 1 of them not found" in table


def test_the_sheet_has_the_worst_images_first_and_ground_truth_in_white(tmp_path, monkeypatch):
    monkeypatch.setattr("lib.analysis.errors.WORST_COUNT", 2)
    errors = KeypointErrors(COCO)
    for name, shift in (("a", 1), ("b", 9), ("c", 5)):
        person = annotated_person(1, 60)
        errors.add(name, IMAGE, found(person, shifts=((shift, 0),)), [person], is_in_order=True)
    errors.write(tmp_path)
    sheet = cv2.imread(str(tmp_path / "worst.jpg"))
    assert sheet.shape == (CELL_SIZE + 4, 2 * CELL_SIZE + 6, 3)
    pink = (np.abs(sheet.astype(int) - (200, 60, 255)).max(2) < 70).sum(0)
    assert pink[: CELL_SIZE + 3].sum() > 1.3 * pink[CELL_SIZE + 3 :].sum() > 0
    assert (sheet[10:-10, 10:-10].min(2) > 240).sum() > 500


def test_a_person_at_the_border_or_in_a_tiny_image_is_drawn(tmp_path):
    errors = KeypointErrors(COCO)
    edge = annotated_person(1, 150)
    errors.add("a", IMAGE, found(edge, shifts=((900, -900),)), [edge], is_in_order=True)
    errors.add("b", IMAGE[:1, :1], found(edge), [edge], is_in_order=True)
    errors.write(tmp_path)
    assert len(rows(tmp_path / "errors.csv")) == 2


def test_without_people_the_tables_are_empty(tmp_path):
    assert "0 annotated people" in KeypointErrors(COCO).write(tmp_path)
    assert not rows(tmp_path / "errors.csv") and not (tmp_path / "worst.jpg").exists()
