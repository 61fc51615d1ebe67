"""CrowdPose: its files, and its metrics compared with the official evaluator."""

import gzip
import json
from pathlib import Path

import numpy as np
import pytest

from lib.dataset.crowdpose import CrowdPoseKeypoints
from lib.keypoints.skeletons import CROWDPOSE
from lib.utils.errors import InputError
from tests.golden_arrays import GOLDEN, golden_annotations
from tests.poses import annotated, poses_of

SUBSET = GOLDEN / "eval" / "crowdpose_subset_expected.json"
NAMES = {
    **{"AP": "AP", "Ap .5": "AP50", "AP .75": "AP75"},
    **{"AR": "AR", "AR .5": "AR50", "AR .75": "AR75"},
    **{"AP (E)": "AP_easy", "AP (M)": "AP_medium", "AP (H)": "AP_hard"},
}


def crowdpose(root: Path, content: dict | bytes, split: str = "val") -> CrowdPoseKeypoints:
    """Write the annotations of a split, and read them."""
    data = content if isinstance(content, bytes) else json.dumps(content).encode()
    (root / "json").mkdir()
    (root / "json" / f"crowdpose_{split}.json").write_bytes(data)
    return CrowdPoseKeypoints(str(root), split, CROWDPOSE, aspect_ratio=0.75)


@pytest.fixture(scope="module")
def source(tmp_path_factory) -> CrowdPoseKeypoints:
    return crowdpose(
        tmp_path_factory.mktemp("crowdpose"), golden_annotations("crowdpose_subset"), "test"
    )


def test_scores_equal_those_of_the_published_evaluator(source):
    packed = GOLDEN / "eval" / "crowdpose_subset_detections.json.gz"
    values, score = source._score(json.loads(gzip.decompress(packed.read_bytes())))
    expected = json.loads(SUBSET.read_bytes())["expected"]
    for ours, theirs in NAMES.items():
        exact = not theirs.startswith("AP_")  # these are rounded
        assert values[ours] == pytest.approx(expected[theirs], abs=1e-9 if exact else 6e-5), ours
    assert list(values) == list(NAMES) and score == values["AP"]


def test_sigmas_equal_those_of_the_published_evaluator(source):
    sigmas = json.loads(SUBSET.read_bytes())["sigmas"]
    np.testing.assert_allclose(CROWDPOSE.sigmas, sigmas, atol=1e-12)


def test_the_table_has_all_people_with_joints_although_annotations_have_no_area(source):
    people = json.loads(golden_annotations("crowdpose_subset"))["annotations"]
    wanted = [p for p in people if not p["iscrowd"] and any(p["keypoints"])]
    assert len(source.table) == len(wanted) > 500
    assert source.table.path(0).endswith(".jpg") and "/images/" in source.table.path(0)
    assert source.has_ground_truth  # also for the test split


def test_the_ground_truth_scores_1(source, tmp_path):
    values, _ = source.evaluate(poses_of(source.table, annotated(source.table)), str(tmp_path))
    assert values["Ap .5"] > 0.98 and values["AR"] > 0.95


def test_ids_of_annotations_do_not_matter(source, tmp_path):
    content = json.loads(golden_annotations("crowdpose_subset"))
    for person in content["annotations"]:
        person["id"] = 0
    poses = poses_of(source.table, annotated(source.table))
    other = crowdpose(tmp_path, content)
    assert other.evaluate(poses, str(tmp_path)) == source.evaluate(poses, str(tmp_path))


def test_an_invalid_crowd_index_is_an_error_that_names_the_image(tmp_path):
    content = json.loads(golden_annotations("crowdpose_subset"))
    content["images"][3]["crowdIndex"] = "high"
    with pytest.raises(InputError, match=r"val\.json: images\[3\]: Expected .* at crowdIndex"):
        crowdpose(tmp_path, content)


def test_scores_by_crowd_index_ignore_images_without_one(tmp_path, caplog):
    content = json.loads(golden_annotations("crowdpose_subset"))
    del content["images"][3]["crowdIndex"]
    source = crowdpose(tmp_path, content)
    values, _ = source.evaluate(poses_of(source.table, annotated(source.table)), str(tmp_path))
    assert list(values) == list(NAMES)
    assert "crowdpose_val.json: 1 images have no crowdIndex" in caplog.text
