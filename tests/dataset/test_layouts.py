"""Data sets in the folders of the mmpose family are found without settings."""

import json
import shutil

import pytest

from lib.dataset.coco import CocoKeypoints
from lib.dataset.crowdpose import CrowdPoseKeypoints
from lib.dataset.image import read_image
from lib.dataset.mpii import MpiiKeypoints
from lib.keypoints.skeletons import COCO, CROWDPOSE
from lib.utils.errors import InputError
from tests import tiny
from tests.golden_arrays import golden_annotations


def test_coco_without_a_folder_for_images(tmp_path):
    tiny.write_coco(tmp_path)
    (tmp_path / "images" / "val2017").rename(tmp_path / "val2017")
    table = CocoKeypoints(str(tmp_path), "val2017", COCO, 0.75).table
    assert table.path(0) == f"{tmp_path}/val2017/000000000001.jpg"
    assert read_image(table.path(0)).shape == (tiny.HEIGHT, tiny.WIDTH, 3)
    shutil.make_archive(str(tmp_path / "val2017"), "zip", tmp_path / "val2017")
    shutil.rmtree(tmp_path / "val2017")
    table = CocoKeypoints(str(tmp_path), "val2017", COCO, 0.75, data_format="zip").table
    assert table.path(0).startswith(f"{tmp_path}/val2017.zip@/")
    assert read_image(table.path(0)).shape == (tiny.HEIGHT, tiny.WIDTH, 3)


@pytest.mark.parametrize("name", ["image_info_test-dev2017", "person_keypoints_test-dev-2017"])
def test_cocos_test_split_in_both_spellings(tmp_path, name):
    content = tiny.write_coco(tmp_path, "test2017")
    boxes = tmp_path / "boxes.json"
    tiny.write_detections(boxes, content)
    del content["annotations"]
    (tmp_path / "annotations" / f"{name}.json").write_text(json.dumps(content))
    source = CocoKeypoints(str(tmp_path), "test-dev2017", COCO, 0.75, detections=str(boxes))
    assert source.table.path(0) == f"{tmp_path}/images/test2017/000000000001.jpg"
    assert not source.has_ground_truth


def test_crowdpose(tmp_path):
    folder = tmp_path / "annotations"
    folder.mkdir()
    file = folder / "mmpose_crowdpose_test.json"
    file.write_bytes(golden_annotations("crowdpose_subset"))
    source = CrowdPoseKeypoints(str(tmp_path), "test", CROWDPOSE, aspect_ratio=0.75)
    assert source.annotation_file == str(file) and len(source.table)


def test_mpii(tmp_path):
    people = tiny.write_mpii(tmp_path)
    (tmp_path / "annot").rename(tmp_path / "annotations")
    for old, new in (("valid.json", "mpii_val.json"), ("gt_valid.mat", "mpii_gt_val.mat")):
        (tmp_path / "annotations" / old).rename(tmp_path / "annotations" / new)
    source = MpiiKeypoints(str(tmp_path), "valid")
    assert len(source.table) == len(people) == len(source.ground_truth[0])


def test_a_missing_file_is_named_as_in_the_original_layout(tmp_path):
    with pytest.raises(InputError, match=r"annot/valid\.json"):
        MpiiKeypoints(str(tmp_path), "valid")
