"""Joints defined by a YAML file or an annotation file."""

import json
import logging
from pathlib import Path

import numpy as np
import pytest
import yaml

from lib.config import load_config
from lib.config.joints import find_flip_pairs, joint_distances, propose_limbs, skeleton_of
from lib.keypoints.skeletons import COCO, CROWDPOSE, SKELETONS
from lib.utils.errors import InputError

BIRD = ["beak", "left_wing", "right_wing", "tail", "nose"]


def write_birds(tmp_path: Path, categories: list[dict] | None = None, **settings) -> Path:
    """Write a YAML file for a data set of birds, with ``categories`` in its annotations."""
    if categories is not None:
        content = {"images": [], "annotations": [], "categories": categories}
        (tmp_path / "train.json").write_text(json.dumps(content))
    path = tmp_path / "birds.yaml"
    common = {"DATASET": "birds", "ROOT": str(tmp_path), "ANNOTATIONS": "{split}.json"}
    path.write_text(yaml.safe_dump({"DATASET": {**common, **settings}}))
    return path


@pytest.mark.parametrize("name", SKELETONS)
def test_built_in_data_sets_define_the_joints(tmp_path, name):
    (tmp_path / "a.yaml").write_text(f"DATASET: {{DATASET: {name}}}")
    cfg = load_config(tmp_path / "a.yaml")
    assert len(SKELETONS[name]) == cfg.MODEL.NUM_JOINTS
    assert skeleton_of(cfg) == SKELETONS[name]
    assert cfg.DATASET.JOINT_NAMES == []  # those of built-in data sets are not written out


def test_joint_settings_missing_from_the_yaml_are_filled_in_and_logged(tmp_path, caplog):
    caplog.set_level(logging.INFO)
    limbs = [[1, 2], [1, 3], [1, 4]]
    path = write_birds(tmp_path, [{"id": 3, "name": "bird", "keypoints": BIRD, "skeleton": limbs}])
    cfg = load_config(path)
    skeleton = skeleton_of(cfg)
    assert skeleton.names == tuple(BIRD)
    assert cfg.MODEL.NUM_JOINTS == 5
    assert skeleton.flip_pairs == ((1, 2),)
    assert skeleton.limbs == ((0, 1), (0, 2), (0, 3))
    middle = float(np.median(COCO.sigmas))
    assert skeleton.sigmas == (middle,) * 4 + (COCO.sigmas[0],)
    assert "5 joints: beak, left_wing, right_wing, tail, nose" in caplog.text
    assert "flip pairs found by name: left_wing/right_wing" in caplog.text
    assert "DATASET.SIGMAS is not set" in caplog.text
    # The configuration holds the joints, so the annotations are no longer needed.
    (tmp_path / "train.json").unlink()
    (tmp_path / "kept.yaml").write_text(cfg.dump())
    caplog.clear()
    kept = load_config(tmp_path / "kept.yaml")
    assert skeleton_of(kept) == skeleton
    assert not caplog.text


def test_skeletons_with_a_0_are_0_based_and_limbs_of_missing_joints_are_dropped(tmp_path, caplog):
    limbs = [[0, 1], [4, 3], [4, 5]]
    path = write_birds(tmp_path, [{"id": 1, "name": "bird", "keypoints": BIRD, "skeleton": limbs}])
    assert skeleton_of(load_config(path)).limbs == ((0, 1), (4, 3))
    assert "ignoring 1 of 3 limbs of category 'bird'" in caplog.text


def annotation(**places: tuple[float, float]) -> dict:
    """Annotate a bird's joints at the given places."""
    rows = [[*places[name], 2] if name in places else [0, 0, 0] for name in BIRD]
    return {"keypoints": [value for row in rows for value in row], "bbox": [0, 0, 10, 50]}


def test_missing_limbs_are_those_of_a_built_in_skeleton_and_then_the_shortest(tmp_path, caplog):
    names = ["L ankle", "kneeLeft", "hip_left", "right_hip", "stern", "tip: end", "crest"]
    rows = [(0, 0), (0, 40), (0, 80), (30, 80), (60, 80), (90, 80), (60, 50)]
    category = {"id": 1, "name": "bird", "keypoints": names, "skeleton": []}
    path = write_birds(tmp_path, [category])
    content = json.loads((tmp_path / "train.json").read_text())
    people = [[value for x, y in rows for value in (x, y, 2)], [0] * 21, [1, 2, 2]]
    content["annotations"] = [{"keypoints": person} for person in people]
    (tmp_path / "train.json").write_text(json.dumps(content))
    with caplog.at_level(logging.INFO):
        cfg = load_config(path)
    # COCO's ankle-knee-hip-hip; hip-stern, stern-tip and stern-crest are equally long.
    expected = ((0, 1), (1, 2), (2, 3), (3, 4), (4, 5), (4, 6))
    assert skeleton_of(cfg).limbs == expected
    text = caplog.text.partition("DATASET.LIMBS: ")[2].splitlines()[0]
    assert yaml.safe_load(text) == [[names[a], names[b]] for a, b in expected]
    assert "'tip: end'" in text


def test_limbs_between_known_joints_need_no_annotations():
    nothing = np.full((3, 3), np.inf)
    assert propose_limbs(["left_hip", "left_knee", "beak"], nothing) == ((0, 1),)
    assert propose_limbs(BIRD[:3], nothing) == ()


def test_limbs_are_the_same_on_both_sides():
    x = np.array([0.0, 1.0, 0.4])
    distances = np.abs(x[:, None] - x)
    # The right wing is nearer to the tail than the left wing.
    assert propose_limbs(["left_wing", "right_wing", "tail"], distances) == ((0, 2), (1, 2))


def test_distances_are_relative_to_the_box_and_infinite_without_a_common_annotation():
    first = annotation(beak=(0, 0), left_wing=(3, 4))
    second = {**annotation(beak=(0, 0), left_wing=(30, 40), tail=(0, 40)), "bbox": None}
    broken = {"keypoints": "none"}
    people = [json.dumps(person).encode() for person in (first, broken, second)]
    distances = joint_distances(people, 5)
    assert distances[0, 1] == pytest.approx((5 / 50 + 50 / 40) / 2)
    assert distances[1, 3] == distances[3, 1] == pytest.approx(30 / 40)
    assert np.isinf(distances[2]).all() and np.isinf(distances[:, 4]).all()


def test_limbs_come_from_the_annotation_file_if_the_yaml_only_names_the_joints(tmp_path):
    category = {"id": 1, "name": "bird", "keypoints": list("abcde"), "skeleton": [[1, 5]]}
    path = write_birds(tmp_path, [category], JOINT_NAMES=BIRD)
    assert skeleton_of(load_config(path)).limbs == ((0, 4),)


def test_the_yaml_overrides_the_annotation_file_and_may_refer_to_joints_by_name(tmp_path):
    path = write_birds(
        tmp_path,
        [{"id": 1, "name": "bird", "keypoints": ["x", "y", "z", "u", "v"]}],
        JOINT_NAMES=BIRD,
        FLIP_PAIRS=[["left_wing", 2], [2, 1]],
        LIMBS=[["beak", "tail"]],
        SIGMAS=[0.1, 0.2, 0.2, 0.3, 1],
        UPPER_BODY=["beak", 4],
        JOINT_WEIGHTS=[1, 2, 2, 1, 1],
    )
    skeleton = skeleton_of(load_config(path))
    assert skeleton.names == tuple(BIRD)
    assert (skeleton.flip_pairs, skeleton.limbs) == (((1, 2), (2, 1)), ((0, 3),))
    assert skeleton.sigmas == (0.1, 0.2, 0.2, 0.3, 1)
    assert (skeleton.upper_body, skeleton.joint_weights) == ((0, 4), (1, 2, 2, 1, 1))


def test_sigmas_of_a_built_in_data_set_can_be_overridden(tmp_path):
    path = write_birds(tmp_path, DATASET="coco", SIGMAS=[0.05] * 17)
    skeleton = skeleton_of(load_config(path))
    assert skeleton.sigmas == (0.05,) * 17
    assert (skeleton.names, skeleton.flip_pairs) == (COCO.names, COCO.flip_pairs)


def test_a_built_in_data_set_with_other_joints_is_treated_as_a_custom_one(tmp_path):
    path = write_birds(tmp_path, DATASET="coco", JOINT_NAMES=BIRD)
    skeleton = skeleton_of(load_config(path))
    assert skeleton.flip_pairs == ((1, 2),)
    assert skeleton.sigmas[4] == COCO.sigmas[0]


def test_categories_select_one_of_several_categories(tmp_path):
    categories = [
        {"id": 1, "name": "cage"},
        {"id": 2, "name": "cat", "keypoints": ["head", "tail"]},
        {"id": 3, "name": "bird", "keypoints": BIRD},
    ]
    path = write_birds(tmp_path, categories)
    assert skeleton_of(load_config(path)).names == ("head", "tail")
    path = write_birds(tmp_path, categories, CATEGORIES=["bird"])
    assert skeleton_of(load_config(path)).names == tuple(BIRD)


@pytest.mark.parametrize(
    ("names", "pairs"),
    [
        (COCO.names, COCO.flip_pairs),
        (CROWDPOSE.names, CROWDPOSE.flip_pairs),
        (["L_Eye", "R_Eye", "Nose", "L_F_Paw", "R_F_Paw"], ((0, 1), (3, 4))),
        (["rightKnee", "leftKnee", "eyeLeft", "eyeRight"], ((1, 0), (2, 3))),
        (["hip-r", "hip-l", "knee l", "knee r"], ((1, 0), (2, 3))),
        (["leftear", "rightear", "snout", "hindRIGHT", "hindLEFT"], ((0, 1), (4, 3))),
        (["LEFT EAR 1", "RIGHT EAR 1", "LEFT EAR 2"], ((0, 1),)),
        (["collar", "rear", "leftover"], ()),
    ],
)
def test_flip_pairs_by_name(names, pairs):
    assert set(find_flip_pairs(names)) == set(pairs)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"DATASET": "birds", "ANNOTATIONS": ""}, "unknown data set 'birds'.*DATASET.ANNOTATIONS"),
        ({}, "no category lists its keypoints.*DATASET.JOINT_NAMES"),
        ({"JOINT_NAMES": ["a", "a"]}, r"DATASET.JOINT_NAMES: must be distinct strings"),
        ({"JOINT_NAMES": BIRD, "SIGMAS": [0.1]}, "DATASET.SIGMAS: must be 5 positive numbers"),
        ({"JOINT_NAMES": BIRD, "SIGMAS": [0.1] * 4 + [0]}, "DATASET.SIGMAS: must be 5 positive"),
        ({"JOINT_NAMES": BIRD, "FLIP_PAIRS": [[1, 2, 3]]}, "FLIP_PAIRS: must be pairs of"),
        ({"JOINT_NAMES": BIRD, "FLIP_PAIRS": [[1, 2], [1, 3]]}, "FLIP_PAIRS: .* is in 2 pairs"),
        ({"JOINT_NAMES": BIRD, "LIMBS": [["beak", "foot"]]}, "LIMBS: unknown joint 'foot'"),
        ({"JOINT_NAMES": BIRD, "UPPER_BODY": [5]}, "UPPER_BODY: unknown joint 5"),
    ],
)
def test_inconsistent_joint_settings_are_errors_that_name_the_key(tmp_path, settings, message):
    path = write_birds(tmp_path, [{"id": 1, "name": "bird"}], **settings)
    with pytest.raises(InputError, match=message):
        load_config(path)


def test_a_missing_annotation_file_is_an_error_that_names_it(tmp_path):
    with pytest.raises(InputError, match=r"train\.json: there is no such file"):
        load_config(write_birds(tmp_path))
