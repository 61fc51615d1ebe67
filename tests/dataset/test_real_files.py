"""Official data set files; skipped where they are not available."""

from pathlib import Path

import numpy as np
import pytest

from lib.dataset.coco import CocoKeypoints
from lib.dataset.loading import TestLoader
from lib.dataset.mpii import MpiiKeypoints
from lib.dataset.top_down import TopDownDataset
from lib.keypoints.geometry import Crop
from lib.keypoints.skeletons import COCO
from tests.poses import poses_of

DATA = Path(__file__).resolve().parents[3] / "shared" / "data"
BOXES = DATA / "coco/person_detection_results/COCO_val2017_detections_AP_H_56_person.json"

pytestmark = pytest.mark.skipif(not DATA.is_dir(), reason="../shared/data is not here")


def images(source) -> int:
    batches = TestLoader(TopDownDataset(source, Crop((192, 256))), 4, workers=0)
    return sum(len(batch["image"]) for batch in batches)


@pytest.mark.parametrize("split", ["train2017", "val2017"])
def test_cocos_files_are_read_and_their_truth_scores_1(tmp_path, split):
    source = CocoKeypoints(str(DATA / "coco"), split, COCO, aspect_ratio=0.75)
    table = source.table
    assert (len(table), len(table.paths), images(source)) == (12, 4, 12)
    answer = np.concatenate([table.joints, np.ones((12, 17, 1))], axis=2)
    values, _ = source.evaluate(poses_of(source.table, answer), str(tmp_path))
    assert values["AP"] > 0.99


def test_a_detectors_boxes_are_read():
    source = CocoKeypoints(
        str(DATA / "coco"), "val2017", COCO, aspect_ratio=0.75, detections=str(BOXES)
    )
    assert images(source) == len(source.table) > 12


def test_mpiis_files_are_read_and_their_truth_scores_100(tmp_path):
    source = MpiiKeypoints(str(DATA / "mpii"), "valid")
    table = source.table
    assert images(source) == len(table) == 5
    answer = np.concatenate([table.joints, np.ones((5, 16, 1))], axis=2)
    assert source.evaluate(poses_of(source.table, answer), str(tmp_path))[1] == 100
