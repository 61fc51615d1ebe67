"""Checks that find likely errors in a data set."""

import json
from pathlib import Path

import numpy as np
import pytest

from lib.dataset.check import (
    check_annotations,
    check_images,
    check_people,
    shared_images,
    swapped_pairs,
)
from lib.dataset.coco import CocoKeypoints
from lib.dataset.table import Table
from lib.keypoints.skeletons import COCO
from lib.utils.errors import InputError
from tests.tiny import save_coco, write_coco


def kinds(found) -> list[str]:
    return sorted(finding.kind for finding in found)


def test_a_correct_file_has_no_findings(tmp_path, content):
    path = save_coco(tmp_path, content)
    found, sizes = check_annotations(str(path))
    assert found == []
    assert sizes.tolist() == [[120, 90]] * 3


def test_every_kind_of_finding_is_reported(tmp_path, content):
    people = content["annotations"]
    people[0]["bbox"] = [5, 5, 0, 40]
    people[1]["bbox"] = [130, 5, 20, 40]
    people[2]["bbox"] = [-20, 5, 60, 40]
    people[3]["bbox"] = [5, 5, -3, 40]
    people[3]["keypoints"][2::3] = [0] * 17
    people[4]["num_keypoints"] = 3
    people[5]["keypoints"][2] = 4
    people[5]["num_keypoints"] = sum(flag > 0 for flag in people[5]["keypoints"][2::3])
    people.append({**people[5], "image_id": 99})
    people.append({**people[5], "id": 20, "category_id": 9})
    people.append({**people[5], "id": 21, "bbox": [0.1, 0.1, 0.5, 0.4]})
    people.append({**people[5], "id": 22, "bbox": [20, 20, 1, 1]})  # small, but in pixels
    content["images"].append(dict(content["images"][0]))
    found, _ = check_annotations(str(save_coco(tmp_path, content)))
    assert kinds(found) == [
        "annotation listed twice",
        "box missing or without area",
        "box outside the image",
        "box partly outside the image",
        "box without area",
        "category not listed",
        "file listed twice",
        "image listed twice",
        "image not listed",
        *["invalid visibility flag"] * 5,
        "relative coordinates",
        "visibility flags all 0",
        *["wrong num_keypoints"] * 2,
    ]
    assert not any(finding.is_fatal for finding in found)
    outside = next(finding for finding in found if finding.kind == "box outside the image")
    assert outside.location == "annotation 2 of image 1"
    assert (
        outside.message
        == "box [130, 5, 20, 40] in an image of 120 x 90: the person will be skipped"
    )


def people(count: int = 30) -> Table:
    """Upright people seen from the front, so that left joints are on the right side of the image;
    wrists are random."""
    rng = np.random.default_rng(0)
    joints = np.zeros((count, 17, 2), np.float32)
    for number, (left, right) in enumerate(COCO.flip_pairs):
        y = 20 + 10 * number + rng.uniform(-2, 2, count)
        half = rng.uniform(15, 25, count)
        if COCO.names[left] == "left_wrist":
            half *= rng.choice([-1, 1], count)
        joints[:, left] = np.stack([50 + half, y], 1)
        joints[:, right] = np.stack([50 - half, y], 1)
    joints[:, 0] = (50, 15)
    return Table(
        image=np.arange(count, dtype=np.int32),
        center=np.full((count, 2), (50, 60), np.float32),
        scale=np.full((count, 2), 0.6, np.float32),
        size=np.full((count, 2), (100, 120), np.float32),
        joints=joints,
        visible=np.ones((count, 17), np.float32),
        score=np.ones(count, np.float32),
        category=np.ones(count, np.int32),
        paths=np.array([f"folder/{n}.jpg".encode() for n in range(count)]),
        image_ids=np.arange(count),
    )


def test_crossed_wrists_are_accepted_and_swapped_hips_are_reported():
    table = people()
    assert check_people(table, COCO) == []
    hips = list(COCO.flip_pairs[5])
    table.joints[4, hips] = table.joints[4, hips[::-1]]
    assert swapped_pairs(table, COCO) == [(4, 5)]
    (finding,) = check_people(table, COCO)
    assert (finding.location, finding.is_fatal) == ("4.jpg, box [0, 0, 100, 120]", False)
    assert finding.message.startswith("left_hip and right_hip are in the opposite order")
    # A person seen from behind has all pairs in the opposite order, which is correct.
    table.joints[7, :, 0] = 100 - table.joints[7, :, 0]
    assert swapped_pairs(table, COCO) == [(4, 5)]


def test_joints_far_from_their_box_and_joints_never_labelled_are_reported():
    table = people()
    table.joints[3, 9] = (111, 60)  # a tenth of the width outside is still allowed
    table.joints[3, 0] = (109, 60)
    table.joints[5, 9] = (50, 200)
    table.visible[5, 9] = 0
    table.visible[:, 16] = 0
    found = check_people(table, COCO)
    assert kinds(found) == ["joint never labelled", "joint outside its box"]
    assert found[0].location == "right_ankle"
    assert found[1].message == "left_wrist more than 10% of the box size outside the box"
    assert kinds(check_people(table, COCO, has_boxes=False)) == ["joint never labelled"]


def test_missing_and_broken_images_and_wrong_sizes_are_reported(tmp_path, content):
    content["images"][0]["width"] = 121
    save_coco(tmp_path, content)
    source = CocoKeypoints(str(tmp_path), "val2017", COCO, aspect_ratio=1)
    _, sizes = check_annotations(source.annotation_file)
    files = [Path(path.decode()) for path in source.table.paths]
    files[1].unlink()
    files[2].write_bytes(files[2].read_bytes()[:-300])
    steps: list[int] = []
    found = check_images(source.table, sizes, np.arange(3), 2, steps.append)
    assert steps == [1, 1, 1]
    assert [(f.kind, f.location, f.is_fatal) for f in found] == [
        ("wrong image size", str(files[0]), False),
        ("image missing or broken", str(files[1]), True),
        ("image missing or broken", str(files[2]), True),
    ]
    assert found[0].message == "is 120 x 90, annotated as 121 x 90"
    assert "there is no such image" in found[1].message and "truncated" in found[2].message


def test_images_in_two_splits_are_found_by_content(tmp_path):
    tables = []
    for split, seed in (("train2017", 0), ("val2017", 1)):
        write_coco(tmp_path, split, seed=seed)
        tables.append(CocoKeypoints(str(tmp_path), split, COCO, aspect_ratio=1).table)
    assert shared_images(*tables) == []  # same names, different images
    first, second = (Path(table.paths[1].decode()) for table in tables)
    second.write_bytes(first.read_bytes())
    assert shared_images(*tables) == [(str(first), str(second))]
    other = second.rename(second.with_name("other.jpg"))
    tables[1].paths = np.array([b"missing", str(other).encode(), b"x.zip@/a"])
    assert shared_images(*tables) == [(str(first), str(other))]  # other names, same images
    tables[0].paths = tables[1].paths
    assert len(shared_images(*tables)) == 3  # the same files


def test_a_file_with_another_layout_is_an_error(tmp_path):
    path = tmp_path / "a.json"
    path.write_text(json.dumps({"images": [{"id": "x"}], "annotations": []}))
    with pytest.raises(InputError, match=r"a\.json: images\[0\]: Expected `int`"):
        check_annotations(str(path))
