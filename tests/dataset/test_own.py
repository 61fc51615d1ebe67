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
from tests.poses import poses_of
from tests.tiny import write_coco

ROOT = Path(__file__).resolve().parents[2]
DATA = ROOT.parent / "shared" / "data"
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
def content(tmp_path) -> dict:
    content = write_coco(tmp_path)
    content["categories"] = [{"id": 1, "name": "thing", "keypoints": NAMES}]
    return content


def test_files_and_images_lie_where_the_yaml_says(tmp_path, content):
    for image in content["images"][::2]:
        image["filename"] = image.pop("file_name")  # the spelling of some data sets
    dataset = build_dataset(load_config(own(tmp_path, content)), "train", is_train=True)
    assert len(dataset) == 6
    sample = dataset[0]
    assert sample["joints"].shape == (17, 2)
    assert sample["image"].float().std() > 10
    assert dataset.skeleton.flip_pairs == tuple((n, n + 8) for n in range(8))


def test_every_category_with_the_same_joints_is_used_and_keeps_its_number(tmp_path, content):
    other = {"id": 7, "name": "other", "keypoints": NAMES}
    box = {"id": 9, "name": "box"}
    content["categories"] += [other, box]
    people = content["annotations"]
    people[1]["category_id"] = people[4]["category_id"] = 7
    people[2].update(category_id=9, keypoints=[])
    cfg = load_config(own(tmp_path, content))
    dataset = build_dataset(cfg, "train", is_train=False)
    assert dataset.table.category.tolist() == [1, 7, 1, 7, 1]
    answer = np.concatenate([dataset.table.joints, np.ones((5, 17, 1))], axis=2)
    values, _ = dataset.source.evaluate(poses_of(dataset.source.table, answer), str(tmp_path))
    assert values["AP"] == pytest.approx(1)
    results = json.loads((tmp_path / "results/keypoints_train_results_0.json").read_bytes())
    assert sorted(person["category_id"] for person in results) == [1, 1, 1, 7, 7]
    only = build_dataset(load_config(cfg_with(cfg, tmp_path, "other")), "train", is_train=False)
    assert len(only) == 2
    with pytest.raises(InputError, match=r"CATEGORIES: .*train\.json has no dog; it has thing"):
        build_dataset(load_config(cfg_with(cfg, tmp_path, "dog")), "train", is_train=False)


def cfg_with(cfg, folder: Path, category: str) -> Path:
    path = folder / "category.yaml"
    tree = yaml.safe_load(cfg.dump())
    tree["DATASET"]["CATEGORIES"] = [category]
    tree["DATASET"]["JOINT_NAMES"] = NAMES
    path.write_text(yaml.safe_dump(tree))
    return path


def test_half_bodies_need_to_know_the_upper_half(tmp_path, content):
    cfg = load_config(own(tmp_path, content, PROB_HALF_BODY=0.3))
    with pytest.raises(InputError, match=r"PROB_HALF_BODY: needs DATASET\.UPPER_BODY"):
        build_dataset(cfg, "train", is_train=True)
    build_dataset(cfg, "train", is_train=False)


def test_a_mirror_without_pairs_is_warned_of(tmp_path, content, caplog):
    content["categories"][0]["keypoints"] = [f"point {n}" for n in range(17)]
    cfg = load_config(own(tmp_path, content))
    build_dataset(cfg, "train", is_train=True)
    assert "DATASET.FLIP_PAIRS: empty" in caplog.text


def test_a_split_called_test_has_annotations_where_its_file_has_and_images_of_its_name(
    tmp_path, content
):
    path = own(tmp_path, content, split="mytest", IMAGES="")
    (tmp_path / "images" / "val2017").rename(tmp_path / "images" / "mytest")
    cfg = load_config(path, ["DATASET.TRAIN_SET", "mytest"])
    dataset = build_dataset(cfg, "mytest", is_train=False)
    assert dataset.source.has_ground_truth
    assert dataset[0]["image"].float().std() > 10


def test_mpii_is_not_in_cocos_layout(tmp_path, content):
    cfg = load_config(own(tmp_path, content, DATASET="mpii"))
    with pytest.raises(InputError, match=r"set DATASET\.DATASET to the name of your data set"):
        build_dataset(cfg, "train", is_train=True)


def test_tigers_score_as_in_their_own_evaluator(tmp_path):
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


def test_the_tigers_input_is_wider_than_high():
    for name in ("w48_384x288", "hrnet/w32_256x192"):
        cfg = load_config(ROOT / f"experiments/atrw/{name}.yaml")
        assert (cfg.MODEL.IMAGE_SIZE, cfg.MODEL.HEATMAP_SIZE) == ([256, 192], [64, 48])


@pytest.mark.skipif(not DATA.is_dir(), reason="../shared/data is not here")
@pytest.mark.parametrize(
    ("experiment", "folder", "splits", "count"),
    [
        ("atrw/hrnet/w32_256x192", "atrw", ("train", "val"), 2),
        ("ap10k/hrnet/w32_256x256", "ap10k", ("val-split1",), 2),
        ("crowdpose/hrnet/w32_256x192", "crowdpose", ("val",), 4),
    ],
)
def test_real_files_are_read_and_their_truth_scores_1(tmp_path, experiment, folder, splits, count):
    path = ROOT / "experiments" / f"{experiment}.yaml"
    opts = ["DATASET.ROOT", str(DATA / folder), "TEST.USE_GT_BBOX", "True"]
    cfg = load_config(path, opts)
    for split in splits:
        dataset = build_dataset(cfg, split, is_train=False)
        table = dataset.table
        assert len(table) == count
        assert dataset[0]["image"].float().std() > 10
        answer = np.concatenate([table.joints, np.ones((*table.visible.shape, 1))], axis=2)
        values, _ = dataset.source.evaluate(poses_of(dataset.source.table, answer), str(tmp_path))
        assert values["AP"] > 0.99
