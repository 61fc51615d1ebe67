"""Custom data sets in COCO format, described only by a YAML file."""

import gzip
import json
from pathlib import Path

import numpy as np
import pytest
import yaml

from lib.config import load_config
from lib.dataset import build_dataset
from lib.utils.errors import InputError
from tests.golden_arrays import GOLDEN, golden_annotations
from tests.poses import annotated, poses_of

ROOT = Path(__file__).resolve().parents[2]
NAMES = [f"left_{n}" for n in range(8)] + [f"right_{n}" for n in range(8)] + ["middle"]


def own(root: Path, content: dict, split: str = "train", **settings) -> Path:
    """Write the annotations ``content`` to the data set's folder, and a YAML for them."""
    (root / f"{split}.json").write_text(json.dumps(content))
    path = root / "own.yaml"
    common = {"DATASET": "own", "ROOT": str(root), "ANNOTATIONS": "{split}.json"}
    places = {"IMAGES": "images/val2017", "TRAIN_SET": "train", "TEST_SET": "train"}
    model = {"IMAGE_SIZE": [64, 64], "HEATMAP_SIZE": [16, 16]}
    sections = {"DATASET": {**common, **places, **settings}, "MODEL": model}
    sections["TEST"] = {"USE_GT_BBOX": True}
    path.write_text(yaml.safe_dump(sections))
    return path


@pytest.fixture
def content(content) -> dict:
    content["categories"] = [{"id": 1, "name": "thing", "keypoints": NAMES}]
    return content


def test_the_yaml_gives_the_places_of_annotations_and_images(tmp_path, content):
    for image in content["images"][::2]:
        image["filename"] = image.pop("file_name")  # the spelling of some data sets
    dataset = build_dataset(load_config(own(tmp_path, content)), "train", is_train=True)
    assert len(dataset) == 6
    sample = dataset[0]
    assert sample["joints"].shape == (17, 2)
    assert sample["image"].float().std() > 10
    assert dataset.skeleton.flip_pairs == tuple((n, n + 8) for n in range(8))


def test_all_categories_with_the_same_joints_are_used_and_keep_their_ids(tmp_path, content):
    other = {"id": 7, "name": "other", "keypoints": NAMES}
    box = {"id": 9, "name": "box"}
    content["categories"] += [other, box]
    people = content["annotations"]
    people[1]["category_id"] = people[4]["category_id"] = 7
    people[2].update(category_id=9, keypoints=[])
    cfg = load_config(own(tmp_path, content))
    dataset = build_dataset(cfg, "train", is_train=False)
    assert dataset.table.category.tolist() == [1, 7, 1, 7, 1]
    poses = poses_of(dataset.table, annotated(dataset.table))
    values, _ = dataset.source.evaluate(poses, str(tmp_path))
    assert values["AP"] == pytest.approx(1)
    results = json.loads((tmp_path / "results/keypoints_train_results_0.json").read_bytes())
    assert sorted(person["category_id"] for person in results) == [1, 1, 1, 7, 7]
    only = build_dataset(load_config(cfg_with(cfg, tmp_path, "other")), "train", is_train=False)
    assert len(only) == 2
    with pytest.raises(InputError, match=r"train\.json has no category dog; choose from thing"):
        build_dataset(load_config(cfg_with(cfg, tmp_path, "dog")), "train", is_train=False)


def test_files_of_other_labelling_tools_are_read(tmp_path, content, caplog):
    first, second, third, *_ = content["annotations"]
    for person in content["annotations"]:
        person["iscrowd"] = False
    del first["keypoints"], first["num_keypoints"]
    second["keypoints"][:3] = [-1, -1, -1]
    third["keypoints"] = [-1] * len(third["keypoints"])
    dataset = build_dataset(load_config(own(tmp_path, content)), "train", is_train=False)
    assert len(dataset) == 4 and "coordinates" not in caplog.text
    assert set(np.unique(dataset.table.visible)) == {0, 1}
    assert dataset.table.visible[0, 0] == 0
    poses = poses_of(dataset.table, annotated(dataset.table))
    values, _ = dataset.source.evaluate(poses, str(tmp_path))
    assert values["AP"] == pytest.approx(1)


def cfg_with(cfg, folder: Path, category: str) -> Path:
    path = folder / "category.yaml"
    tree = yaml.safe_load(cfg.dump())
    tree["DATASET"]["CATEGORIES"] = [category]
    tree["DATASET"]["JOINT_NAMES"] = NAMES
    path.write_text(yaml.safe_dump(tree))
    return path


def test_half_body_augmentation_needs_the_upper_body(tmp_path, content):
    cfg = load_config(own(tmp_path, content, PROB_HALF_BODY=0.3))
    with pytest.raises(InputError, match=r"PROB_HALF_BODY: needs DATASET\.UPPER_BODY"):
        build_dataset(cfg, "train", is_train=True)
    build_dataset(cfg, "train", is_train=False)


def test_flipping_without_flip_pairs_is_a_warning(tmp_path, content, caplog):
    content["categories"][0]["keypoints"] = [f"point {n}" for n in range(17)]
    cfg = load_config(own(tmp_path, content))
    build_dataset(cfg, "train", is_train=True)
    assert "DATASET.FLIP_PAIRS: empty" in caplog.text


def test_a_custom_test_split_has_its_own_annotations_and_images(tmp_path, content):
    path = own(tmp_path, content, split="mytest", IMAGES="")
    (tmp_path / "images" / "val2017").rename(tmp_path / "images" / "mytest")
    cfg = load_config(path, ["DATASET.TRAIN_SET", "mytest"])
    dataset = build_dataset(cfg, "mytest", is_train=False)
    assert dataset.source.has_ground_truth
    assert dataset[0]["image"].float().std() > 10


def test_mpii_does_not_accept_coco_annotations(tmp_path, content):
    cfg = load_config(own(tmp_path, content, DATASET="mpii"))
    with pytest.raises(InputError, match=r"set DATASET\.DATASET to the name of your data set"):
        build_dataset(cfg, "train", is_train=True)


def test_atrw_scores_equal_those_of_the_published_evaluator(tmp_path):
    (tmp_path / "annotations").mkdir()
    file = tmp_path / "annotations" / "keypoint_val.json"
    file.write_bytes(golden_annotations("atrw_synthetic"))
    experiment = ROOT / "experiments/atrw/w48_384x288.yaml"
    cfg = load_config(experiment, ["DATASET.ROOT", str(tmp_path)])
    source = build_dataset(cfg, "val", is_train=False).source
    packed = GOLDEN / "eval" / "atrw_synthetic_detections.json.gz"
    values, _ = source._score(json.loads(gzip.decompress(packed.read_bytes())))
    expected = json.loads((GOLDEN / "eval" / "atrw_synthetic_expected.json").read_bytes())
    np.testing.assert_allclose(source.skeleton.sigmas, expected["sigmas"])
    assert list(values.values()) == pytest.approx(list(expected["expected"].values()), abs=1e-9)


def test_atrw_inputs_are_wider_than_high():
    for name in ("w48_384x288", "hrnet/w32_256x192"):
        cfg = load_config(ROOT / f"experiments/atrw/{name}.yaml")
        assert (cfg.MODEL.IMAGE_SIZE, cfg.MODEL.HEATMAP_SIZE) == ([256, 192], [64, 48])
