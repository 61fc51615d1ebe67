"""The ground truth of a COCO-format data set: ids, and errors found only during evaluation."""

import json
import re

import numpy as np
import pytest
from pycocotools.coco import COCO as Pycoco
from pycocotools.cocoeval import COCOeval

from lib.dataset.coco import CocoKeypoints
from lib.keypoints.skeletons import COCO
from lib.utils.errors import InputError
from tests import tiny
from tests.poses import poses_of


def coco(root, **options) -> CocoKeypoints:
    return CocoKeypoints(str(root), "val2017", COCO, aspect_ratio=0.75, **options)


@pytest.fixture
def content(tmp_path):
    return tiny.write_coco(tmp_path)


def perfect(content: dict) -> np.ndarray:
    """(N, 17, 3): the annotations, sorted by image, with a score of 1."""
    answer = np.array([person["keypoints"] for person in content["annotations"]], float)
    answer = answer.reshape(-1, 17, 3)
    answer[..., 2] = 1
    return answer


@pytest.mark.parametrize("ids", [range(6), (1, 2, 3) * 2, [1] * 6, [-5] * 6, ["a"] * 6, [None] * 6])
@pytest.mark.parametrize("is_detected", [False, True])
def test_the_truth_as_an_answer_scores_1_whatever_the_ids_are(tmp_path, content, ids, is_detected):
    for person, given in zip(content["annotations"], ids, strict=True):
        person["id"] = given
    tiny.save_coco(tmp_path, content)
    path = tmp_path / "boxes.json"
    tiny.write_detections(path, content)
    source = coco(tmp_path, detections=str(path) if is_detected else None)
    values, score = source.evaluate(poses_of(source.table, perfect(content)), str(tmp_path))
    assert score == values["AP"] == values["AR"] == 1.0


def test_an_image_id_that_two_files_share_is_an_error(tmp_path, content):
    content["images"][2]["id"] = 1
    path = tiny.save_coco(tmp_path, content)
    message = r"images\[0\] and images\[2\] have the same id 1 but different files"
    with pytest.raises(InputError, match=message) as caught:
        coco(tmp_path)
    assert str(path) in str(caught.value)


def test_an_image_that_is_listed_twice_is_one(tmp_path, content):
    content["images"].append(dict(content["images"][1]))
    tiny.save_coco(tmp_path, content)
    source = coco(tmp_path)
    _, score = source.evaluate(poses_of(source.table, perfect(content)), str(tmp_path))
    assert score == 1.0


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ({"image_id": "one"}, "at image_id"),
        ({"image_id": None}, "at image_id"),
        ({"category_id": 1.5}, "at category_id"),
        ({"bbox": []}, "at bbox"),
        ({"bbox": [1, 2, 3]}, "at bbox"),
        ({"bbox": [1, 2, 3, "4"]}, "at bbox[3]"),
        ({"keypoints": "none"}, "at keypoints"),
        ({"keypoints": [[1, 2, 2]] * 17}, "at keypoints[0]"),
        ({"keypoints": [1, 2, 2] * 16}, "of image 2 has 48 keypoint values; 17 joints need 51"),
        ({"area": "large"}, "at area"),
        ({"iscrowd": "no"}, "at iscrowd"),
        ({"num_keypoints": [17]}, "at num_keypoints"),
    ],
)
def test_a_fault_of_the_truth_beside_detected_boxes_is_an_error_that_names_the_entry(
    tmp_path, content, fault, message
):
    path = tmp_path / "boxes.json"
    tiny.write_detections(path, content)
    content["annotations"][3] |= fault
    file = tiny.save_coco(tmp_path, content)
    source = coco(tmp_path, detections=str(path))
    with pytest.raises(InputError, match=re.escape(f"{file}: annotations[3]")) as caught:
        _ = source.ground_truth
    assert str(caught.value).endswith(message)


@pytest.mark.parametrize("is_detected", [False, True])
def test_text_that_is_not_utf8_is_an_error_only_where_it_is_read(tmp_path, content, is_detected):
    path = tmp_path / "boxes.json"
    tiny.write_detections(path, content)
    detections = str(path) if is_detected else None
    content["info"] = {"description": "caf\xe9"}
    content["annotations"][2]["note"] = "caf\xe9"
    file = tiny.save_coco(tmp_path, content)

    def save() -> None:
        file.write_bytes(json.dumps(content, ensure_ascii=False).encode("latin-1"))

    save()
    source = coco(tmp_path, detections=detections)
    _, score = source.evaluate(poses_of(source.table, perfect(content)), str(tmp_path))
    assert score == 1.0
    content["images"][1]["file_name"] = "caf\xe9.jpg"
    save()
    with pytest.raises(
        InputError, match=r"images\[1\]: text b'caf\\xe9\.jpg' is not UTF-8"
    ) as caught:
        coco(tmp_path, detections=detections)
    assert str(file) in str(caught.value) and "\n" not in str(caught.value)
    content["images"][1]["file_name"] = "b.jpg"
    content["categories"][0]["name"] = "caf\xe9"
    save()
    with pytest.raises(InputError, match=r"val2017\.json: .*text b'caf\\xe9' is not UTF-8"):
        coco(tmp_path, detections=detections)


def test_boxes_in_the_written_results_do_not_enter_the_scores(tmp_path, content):
    for person in content["annotations"]:
        person.update(area=1800, bbox=[8, 12, 30, 30])  # small; the joints' extents are medium
    tiny.save_coco(tmp_path, content)
    source = coco(tmp_path)
    answer = perfect(content)
    answer[::2, :, :2] += 20  # matches nobody
    answer[::2, :, 2] = 1.5  # and comes first
    values, _ = source.evaluate(poses_of(source.table, answer), str(tmp_path))
    entries = json.loads((tmp_path / "results/keypoints_val2017_results_0.json").read_text())
    without = [{key: entry[key] for key in entry if key != "bbox"} for entry in entries]
    boxed, plain = reference_stats(source, entries), reference_stats(source, without)
    assert list(values.values()) == plain
    assert boxed[0] == plain[0] and boxed[3] != plain[3]  # AP and AP (M)


def reference_stats(source: CocoKeypoints, entries: list[dict]) -> list[float]:
    """Return the scores of results by pycocotools."""
    truth = Pycoco(source.annotation_file)
    reference = COCOeval(truth, truth.loadRes(entries), "keypoints")
    reference.evaluate()
    reference.accumulate()
    reference.summarize()
    return list(reference.stats)
