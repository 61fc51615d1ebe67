"""The ground truth of data sets in COCO format: ids, errors found in evaluation, and scores."""

import json
import re
from dataclasses import replace

import pytest
from pycocotools.coco import COCO as Pycoco
from pycocotools.cocoeval import COCOeval

from lib.dataset.coco import CocoKeypoints
from lib.keypoints.skeletons import COCO
from lib.utils.errors import InputError
from tests import tiny
from tests.poses import annotated, poses_of


def coco(root, **options) -> CocoKeypoints:
    return CocoKeypoints(str(root), "val2017", COCO, aspect_ratio=0.75, **options)


@pytest.mark.parametrize("ids", [range(6), (1, 2, 3) * 2, [1] * 6, [-5] * 6, ["a"] * 6, [None] * 6])
@pytest.mark.parametrize("is_detected", [False, True])
def test_the_ground_truth_scores_1_with_any_ids(tmp_path, content, ids, is_detected):
    for person, given in zip(content["annotations"], ids, strict=True):
        person["id"] = given
    tiny.save_coco(tmp_path, content)
    path = tmp_path / "boxes.json"
    tiny.write_detections(path, content)
    keypoints = annotated(coco(tmp_path).table)
    source = coco(tmp_path, detections=str(path) if is_detected else None)
    values, score = source.evaluate(poses_of(source.table, keypoints), str(tmp_path))
    assert score == values["AP"] == values["AR"] == 1.0


def test_an_image_id_shared_by_two_files_is_an_error(tmp_path, content):
    content["images"][2]["id"] = 1
    path = tiny.save_coco(tmp_path, content)
    message = r"images\[0\] and images\[2\] have the same id 1 but different files"
    with pytest.raises(InputError, match=message) as caught:
        coco(tmp_path)
    assert str(path) in str(caught.value)


def test_an_image_listed_twice_is_accepted(tmp_path, content):
    content["images"].append(dict(content["images"][1]))
    tiny.save_coco(tmp_path, content)
    source = coco(tmp_path)
    poses = poses_of(source.table, annotated(source.table))
    assert source.evaluate(poses, str(tmp_path))[1] == 1.0


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
def test_an_invalid_annotation_is_an_error_also_with_detected_boxes(
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
def test_text_that_is_not_utf8_is_an_error_only_where_it_is_used(tmp_path, content, is_detected):
    path = tmp_path / "boxes.json"
    tiny.write_detections(path, content)
    detections = str(path) if is_detected else None
    content["info"] = {"description": "caf\xe9"}
    content["annotations"][2]["note"] = "caf\xe9"
    file = tiny.save_coco(tmp_path, content)

    def save() -> None:
        file.write_bytes(json.dumps(content, ensure_ascii=False).encode("latin-1"))

    save()
    keypoints = annotated(coco(tmp_path).table)
    source = coco(tmp_path, detections=detections)
    _, score = source.evaluate(poses_of(source.table, keypoints), str(tmp_path))
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


def test_boxes_in_the_written_results_do_not_affect_the_scores(tmp_path, content):
    for person in content["annotations"]:
        person.update(area=1800, bbox=[8, 12, 30, 30])  # small; the joints' extents are medium
    tiny.save_coco(tmp_path, content)
    source = coco(tmp_path)
    keypoints = annotated(source.table)
    keypoints[::2, :, :2] += 20  # matches nobody
    keypoints[::2, :, 2] = 1.5  # and comes first
    values, _ = source.evaluate(poses_of(source.table, keypoints), str(tmp_path))
    entries = json.loads((tmp_path / "results/keypoints_val2017_results_0.json").read_text())
    without = [{key: entry[key] for key in entry if key != "bbox"} for entry in entries]
    boxed, plain = reference_stats(source, entries), reference_stats(source, without)
    assert list(values.values()) == plain
    assert boxed[0] == plain[0] and boxed[3] != plain[3]  # AP and AP (M)


def test_the_scores_depend_on_the_sigmas_of_the_skeleton(tmp_path, content):
    source = coco(tmp_path)
    keypoints = annotated(source.table)
    keypoints[..., :2] += 1.5
    poses = poses_of(source.table, keypoints)
    strict, _ = source.evaluate(poses, str(tmp_path))
    results = json.loads((tmp_path / "results/keypoints_val2017_results_0.json").read_text())
    assert list(strict.values()) == reference_stats(source, results)
    source.skeleton = replace(COCO, sigmas=tuple(10 * sigma for sigma in COCO.sigmas))
    assert source.evaluate(poses, str(tmp_path))[1] > strict["AP"]


def reference_stats(source: CocoKeypoints, entries: list[dict]) -> list[float]:
    """Return the scores of results by pycocotools."""
    truth = Pycoco(source.annotation_file)
    reference = COCOeval(truth, truth.loadRes(entries), "keypoints")
    reference.evaluate()
    reference.accumulate()
    reference.summarize()
    return list(reference.stats)
