"""Test that docs/own_data.md works as written."""

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest

from lib.config import load_config
from lib.dataset import build_dataset
from lib.models import build_model
from lib.models.checkpoint import load_pretrained
from tests import tiny

ROOT = Path(__file__).resolve().parents[2]
GUIDE = (ROOT / "docs" / "own_data.md").read_text(encoding="utf-8")
# Settings that make the guide's training take a second.
SMALL = {
    "GPUS": "()",
    "WORKERS": "0",
    "MODEL.IMAGE_SIZE": "[64, 64]",
    "MODEL.HEATMAP_SIZE": "[16, 16]",
    "MODEL.EXTRA.STAGE2.NUM_CHANNELS": "[4, 8]",
    "MODEL.EXTRA.STAGE3.NUM_CHANNELS": "[4, 8, 16]",
    "MODEL.EXTRA.STAGE4.NUM_CHANNELS": "[4, 8, 16, 32]",
    "MODEL.EXTRA.STAGE3.NUM_MODULES": "1",
    "MODEL.EXTRA.STAGE4.NUM_MODULES": "1",
    "TRAIN.END_EPOCH": "1",
}


@pytest.fixture
def birds(tmp_path, monkeypatch):
    """Write the guide's data and YAML, and return the folder that contains both."""
    folder = tmp_path / "data" / "birds"
    category = re.search(r'`({"id": 1, "name": "bird".*?})`', GUIDE)[1]
    joints = 4
    for split, seed in (("train", 0), ("val", 1)):
        content = tiny.write_coco(folder, split, images=2, seed=seed)
        content["categories"] = [json.loads(category)]
        for person in content["annotations"]:
            person["keypoints"] = person["keypoints"][: 3 * joints]
            person["num_keypoints"] = int(np.count_nonzero(person["keypoints"][2::3]))
        tiny.save_coco(folder, content, split)
        made = folder / "annotations" / f"person_keypoints_{split}.json"
        made.rename(folder / "annotations" / f"{split}.json")
    experiment = tmp_path / re.search(r"`(experiments/birds/\S+\.yaml)`:", GUIDE)[1]
    experiment.parent.mkdir(parents=True)
    experiment.write_text(re.search(r"```yaml\n(.*?)```", GUIDE, re.S)[1])
    shutil.copy(ROOT / "experiments" / "base.yaml", tmp_path / "experiments")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_guide_to_own_data_works_as_written(birds, succeed):
    lines = re.findall(r"^python tools/(\w+)\.py (.*)$", GUIDE.replace("\\\n", ""), re.M)[:4]
    assert [name for name, _ in lines] == ["check_data", "train", "test", "demo"]
    small = [word for pair in SMALL.items() for word in pair]
    for name, words in lines:
        succeed(name, *words.split(), *small)
    assert (birds / "output/birds/check/samples.jpg").exists()
    result = birds / "output/birds/pose_hrnet/w32_256x256"
    for name in ("model_best.pth", "predictions.jpg", "curves.png"):
        assert (result / name).exists(), name
    kept = (result / "config_train.yaml").read_text()
    assert "left_wing" in kept and "NUM_JOINTS: 4" in kept
    drawn = birds / "output/demo/w32_256x256"
    assert len(list((drawn / "pictures").glob("*.jpg"))) == 2
    assert len(json.loads((drawn / "results.json").read_bytes())) == 4  # two in each image
    assert len(json.loads((drawn / "results.json").read_bytes())[0]["keypoints"]) == 12


def test_the_recipe_for_little_data_starts_from_the_built_in_weights(birds):
    recipe = next(
        text for text in re.findall(r"```yaml\n(.*?)```", GUIDE, re.S) if "workers" in text
    )
    (birds / "data/birds").rename(birds / "data/workers")
    (birds / "models").symlink_to(ROOT / "models")
    (birds / "experiments/workers").mkdir()
    path = birds / "experiments/workers/small.yaml"
    path.write_text(recipe)
    cfg = load_config(path)
    report = load_pretrained(build_model(cfg), cfg.MODEL.PRETRAINED)
    assert report.mismatched == {"final_layer": 2}
    assert report.unfilled == {}
    assert len(build_dataset(cfg, "train", is_train=True)) == 4
