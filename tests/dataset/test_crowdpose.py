"""CrowdPose: its files, and its metrics compared with the official evaluator."""

import gzip
import json

import numpy as np
import pytest

from lib.dataset.crowdpose import CrowdPoseKeypoints
from lib.keypoints.skeletons import CROWDPOSE
from lib.utils.errors import InputError
from tests.golden_arrays import GOLDEN, golden_annotations
from tests.poses import poses_of

SUBSET = GOLDEN / "eval" / "crowdpose_subset_expected.json"
NAMES = {
    **{
        "AP": "AP",
        "Ap .5": "AP50",
        "AP .75": "AP75",
        "AR": "AR",
        "AR .5": "AR50",
        "AR .75": "AR75",
    },
    **{"AP (E)": "AP_easy", "AP (M)": "AP_medium", "AP (H)": "AP_hard"},
}


@pytest.fixture(scope="module")
def source(tmp_path_factory) -> CrowdPoseKeypoints:
    root = tmp_path_factory.mktemp("crowdpose")
    (root / "json").mkdir()
    (root / "json" / "crowdpose_test.json").write_bytes(golden_annotations("crowdpose_subset"))
    return CrowdPoseKeypoints(str(root), "test", CROWDPOSE, aspect_ratio=0.75)


def test_the_score_is_the_published_evaluators(source):
    packed = GOLDEN / "eval" / "crowdpose_subset_detections.json.gz"
    values, score = source._score(json.loads(gzip.decompress(packed.read_bytes())))
    expected = json.loads(SUBSET.read_bytes())["expected"]
    for ours, theirs in NAMES.items():
        exact = not theirs.startswith("AP_")  # these are rounded
        assert values[ours] == pytest.approx(expected[theirs], abs=1e-9 if exact else 6e-5), ours
    assert list(values) == list(NAMES) and score == values["AP"]


def test_sigmas_are_the_evaluators(source):
    sigmas = json.loads(SUBSET.read_bytes())["sigmas"]
    np.testing.assert_allclose(CROWDPOSE.sigmas, sigmas, atol=1e-12)


def test_everybody_with_joints_is_in_the_table_though_annotations_have_no_area(source, tmp_path):
    people = json.loads(golden_annotations("crowdpose_subset"))["annotations"]
    wanted = [p for p in people if not p["iscrowd"] and any(p["keypoints"])]
    assert len(source.table) == len(wanted) > 500
    assert source.table.path(0).endswith(".jpg") and "/images/" in source.table.path(0)
    assert source.has_ground_truth  # also for the test split


def test_the_truth_as_an_answer_scores_1(source, tmp_path):
    table = source.table
    answer = np.concatenate([table.joints, np.ones((len(table), 14, 1), np.float32)], axis=2)
    values, _ = source.evaluate(poses_of(source.table, answer), str(tmp_path))
    assert values["Ap .5"] > 0.98 and values["AR"] > 0.95


def test_ids_of_annotations_do_not_matter(source, tmp_path):
    content = json.loads(golden_annotations("crowdpose_subset"))
    for person in content["annotations"]:
        person["id"] = 0
    (tmp_path / "json").mkdir()
    (tmp_path / "json" / "crowdpose_test.json").write_text(json.dumps(content))
    other = CrowdPoseKeypoints(str(tmp_path), "test", CROWDPOSE, aspect_ratio=0.75)
    table = source.table
    answer = np.concatenate([table.joints, np.ones((len(table), 14, 1), np.float32)], axis=2)
    assert other.evaluate(poses_of(other.table, answer), str(tmp_path)) == source.evaluate(
        poses_of(source.table, answer), str(tmp_path)
    )


def test_a_crowd_index_that_is_no_number_is_an_error_that_names_the_image(tmp_path):
    content = json.loads(golden_annotations("crowdpose_subset"))
    content["images"][3]["crowdIndex"] = "high"
    (tmp_path / "json").mkdir()
    (tmp_path / "json" / "crowdpose_val.json").write_text(json.dumps(content))
    with pytest.raises(InputError, match=r"val\.json: images\[3\]: Expected .* at crowdIndex"):
        CrowdPoseKeypoints(str(tmp_path), "val", CROWDPOSE, aspect_ratio=0.75)


def test_images_without_a_crowd_index_are_left_out_of_the_scores_by_crowd(tmp_path, caplog):
    content = json.loads(golden_annotations("crowdpose_subset"))
    del content["images"][3]["crowdIndex"]
    (tmp_path / "json").mkdir()
    (tmp_path / "json" / "crowdpose_val.json").write_text(json.dumps(content))
    ours = CrowdPoseKeypoints(str(tmp_path), "val", CROWDPOSE, aspect_ratio=0.75)
    answer = np.ones((len(ours.table), 14, 3), np.float32)
    values, _ = ours.evaluate(poses_of(ours.table, answer), str(tmp_path))
    assert list(values) == list(NAMES)
    assert "crowdpose_val.json: 1 images have no crowdIndex" in caplog.text
