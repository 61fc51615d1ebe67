"""Ground truth of images."""

import numpy as np
import pytest

from lib.keypoints.skeletons import COCO
from lib.media.ground_truth import GroundTruth
from lib.utils.errors import InputError
from tests import tiny


@pytest.fixture
def content(tmp_path):
    return tiny.write_coco(tmp_path)


def load(tmp_path, content, **options):
    path, problems = tiny.save_coco(tmp_path, content), []
    return GroundTruth(path, COCO, problems.append, **options), problems


def test_images_are_found_by_the_longest_suffix_of_their_path(tmp_path, content):
    content["images"] += [
        {"id": 8, "file_name": "one/a.jpg", "width": 9, "height": 9},
        {"id": 9, "filename": "two/a.jpg", "width": 9, "height": 9},
    ]
    ground_truth, problems = load(tmp_path, content)
    assert ground_truth.image_id("/x/one/a.jpg") == 8 and ground_truth.image_id("two/a.jpg") == 9
    assert ground_truth.image_id("/x/three/a.jpg") is None
    assert ground_truth.image_id("b.jpg") is None
    assert ground_truth.image_id("/anywhere/000000000002.jpg") == 2
    assert ground_truth.category_ids == [1] and not problems


def test_a_duplicate_image_id_is_an_error(tmp_path, content):
    content["images"][2]["id"] = 1
    with pytest.raises(InputError, match=r"images\[0\] and images\[2\] have the same id 1"):
        load(tmp_path, content)


def test_all_categories_with_the_same_joints_are_used_or_those_given(tmp_path, content):
    content["categories"] = [
        {"id": 0, "name": "things"},
        {"id": 3, "name": "cat", "keypoints": list(COCO.names)},
        {"id": 5, "name": "dog", "keypoints": list(COCO.names)},
    ]
    for number, person in enumerate(content["annotations"]):
        person["category_id"] = (3, 5, 0)[number % 3]
    ground_truth, _ = load(tmp_path, content)
    assert ground_truth.category_ids == [3, 5]
    people = [person for image in (1, 2, 3) for person in ground_truth.people(image)]
    assert [person.category_id for person in people] == [3, 5, 3, 5]
    ground_truth, _ = load(tmp_path, content, categories=["dog"])
    people = [person for image in (1, 2, 3) for person in ground_truth.people(image)]
    assert [person.category_id for person in people] == [5, 5]


def test_people_have_joints_visibility_and_boxes(tmp_path, content):
    content["annotations"][1]["iscrowd"] = 1
    ground_truth, _ = load(tmp_path, content)
    (person,) = ground_truth.people(1)
    given = content["annotations"][0]
    table = np.reshape(given["keypoints"], (17, 3))
    np.testing.assert_array_equal(person.joints, table[:, :2])
    np.testing.assert_array_equal(person.is_annotated, table[:, 2] > 0)
    assert person.box.tolist() == given["bbox"] and person.annotation_id == given["id"]
    assert len(ground_truth.people(2)) == 2 and ground_truth.people(99) == []


def test_mismatched_joints_are_reported_once_and_boxes_are_kept(tmp_path, content):
    for person in content["annotations"][1:]:
        person["keypoints"] = person["keypoints"][:45]
    ground_truth, problems = load(tmp_path, content)
    assert len(problems) == 1
    assert "5 of 6 annotations do not match the network's 17 joints" in problems[0]
    assert "annotations[1] of image 1 has 45 keypoint values, not 51" in problems[0]
    first, second = ground_truth.people(1)
    assert first.is_annotated.any() and not second.is_annotated.any()
    assert second.box.tolist() == content["annotations"][1]["bbox"]


@pytest.mark.parametrize(
    "change",
    [
        {"bbox": [1, 2, float("nan"), 4]},
        {"bbox": [1, 2, 0, 4], "keypoints": []},
        {"keypoints": [float("nan")] * 51},
    ],
)
def test_an_invalid_annotation_is_reported(tmp_path, content, change):
    content["annotations"][0].update(change)
    ground_truth, problems = load(tmp_path, content)
    assert len(problems) == 1 and "annotations[0] is skipped" in problems[0]
    assert len(ground_truth.people(1)) == 1


@pytest.mark.parametrize("box", [[0, 0, 0, 0], None])
def test_a_missing_box_is_computed_from_the_joints(tmp_path, content, box):
    content["annotations"][0]["bbox"] = box
    ground_truth, problems = load(tmp_path, content)
    person = ground_truth.people(1)[0]
    assert not problems and (person.box[2:] > 10).all()
    points = person.joints[person.is_annotated]
    assert (points >= person.box[:2]).all() and (points <= person.box[:2] + person.box[2:]).all()


@pytest.mark.parametrize("text", ["[]", "{", '{"images": [], "annotations": []}'])
def test_a_different_layout_is_an_error(tmp_path, text):
    (tmp_path / "a.json").write_text(text)
    with pytest.raises(InputError, match=r"a\.json"):
        GroundTruth(tmp_path / "a.json", COCO, print)
