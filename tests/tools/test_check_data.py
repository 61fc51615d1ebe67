"""Tests of tools/check_data.py."""

from pathlib import Path

import cv2
import pytest

from tests.tiny import experiment, save_coco, write_coco
from tests.tools.runs import is_one_line


@pytest.fixture
def paths(tmp_path) -> tuple[Path, Path, dict]:
    """Return a YAML, its data folder, and the annotations of the test set."""
    root = tmp_path / "data"
    write_coco(root, "train2017", seed=1)
    content = write_coco(root, "val2017")
    return experiment(tmp_path / "a.yaml", root), root, content


def test_summary_findings_and_pictures_are_written(paths, succeed, tmp_path):
    yaml_file, root, content = paths
    content["annotations"][0]["bbox"] = [-30, 12, 80, 64]
    save_coco(root, content)
    images = root / "images"
    copy = images / "val2017" / f"{3:012d}.jpg"
    copy.write_bytes((images / "train2017" / f"{1:012d}.jpg").read_bytes())
    ended = succeed("check_data", "--cfg", yaml_file, "--samples", 4)
    assert "train2017: 6 people in 3 of 3 images" in ended.out
    assert "warning: box partly outside the image (1)" in ended.out
    assert f"{1:012d}.jpg: the same as {copy}: test scores are too high" in ended.out
    folder = tmp_path / "output" / "coco" / "check"
    assert "annotation 1 of image 1: box [-30" in (folder / "findings.txt").read_text()
    sheet = cv2.imread(str(folder / "samples.jpg"))
    # Two people with the names of their joints, above four crops of 64 pixels and their targets.
    assert sheet.shape[:2] == (640 + 4 + 256 + 4, 8 * 258 + 2)
    name = sheet[:644, 4:140]  # the first person's names on the left
    assert name.max(2).std(1).max() > 30
    for split in ("train2017", "val2017"):
        assert cv2.imread(str(folder / f"counts_{split}.png")).std() > 10


def test_the_exit_code_is_1_only_if_training_would_fail(paths, succeed, command):
    yaml_file, root, content = paths
    folder = root / "images" / "val2017"
    for person in content["annotations"]:
        person["keypoints"] = [20, 30, 2] * 17
        person["num_keypoints"] = 17
        person["bbox"] = [0, 0, 60, 60]
    save_coco(root, content)
    words = ("check_data", "--cfg", yaml_file, "DATASET.TRAIN_SET", "val2017")
    ended = succeed(*words)
    assert "val2017: no problems found" in ended.out
    (folder / f"{2:012d}.jpg").unlink()
    ended = command(*words)
    assert ended.code == 1
    assert "error: image missing or broken (1)" in ended.out


def test_the_file_of_detected_boxes_is_read(paths, command, tmp_path):
    file = tmp_path / "boxes.json"
    file.write_text('[{"image_id": 7, "category_id": 1, "bbox": [0, 0, 9, 9], "score": 1}]')
    words = ("TEST.USE_GT_BBOX", "False", "TEST.COCO_BBOX_FILE", file)
    ended = command("check_data", "--cfg", paths[0], *words)
    assert ended.code == 1
    assert f"detected boxes: {file}: image id 7 is not listed" in ended.out


def test_missing_boxes_are_a_warning_and_visibility_0_is_an_error(paths, succeed, command):
    yaml_file, root, content = paths
    words = ("check_data", "--cfg", yaml_file, "DATASET.TRAIN_SET", "val2017")
    for person in content["annotations"]:
        person["bbox"] = [0, 0, 0, 0]
    save_coco(root, content)
    ended = succeed(*words)
    assert "6 people have no box; using the bounding box of their labelled joints" in ended.out
    assert "warning: box missing or without area (6)" in ended.out
    for person in content["annotations"]:
        person["keypoints"][2::3] = [0] * 17
    save_coco(root, content)
    ended = command(*words)
    assert ended.code == 1
    assert "6 people have coordinates, but visibility flag 0 for every joint" in ended.out


def test_an_unusable_set_is_reported_and_the_other_is_checked(paths, command, tmp_path):
    words = ("--work-dir", tmp_path / "here", "DATASET.TRAIN_SET", "nowhere")
    ended = command("check_data", "--cfg", paths[0], *words)
    assert ended.code == 1
    assert "nowhere.json: there is no such file" in ended.out
    assert "val2017: 6 people" in ended.out
    assert "nowhere.json" in (tmp_path / "here" / "findings.txt").read_text()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--images", "0"], "error: --images: must be 1 or more, not 0"),
        (["--samples", "0"], "error: --samples: must be 1 or more, not 0"),
        (["DATASET.CATEGORIES", "[1]"], "DATASET.CATEGORIES must be a list of names, not [1]"),
    ],
)
def test_an_invalid_option_is_a_one_line_error(paths, command, words, message):
    ended = command("check_data", "--cfg", paths[0], *words)
    assert is_one_line(ended, message)
