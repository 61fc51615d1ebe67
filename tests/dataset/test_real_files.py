"""Official data set files; skipped where they are not available."""

from pathlib import Path

import pytest

from lib.config import load_config
from lib.dataset import build_dataset
from lib.dataset.loading import TestLoader
from tests.poses import annotated, poses_of

ROOT = Path(__file__).resolve().parents[2]
DATA = ROOT.parent / "shared" / "data"
BOXES = DATA / "coco/person_detection_results/COCO_val2017_detections_AP_H_56_person.json"

pytestmark = pytest.mark.skipif(not DATA.is_dir(), reason="../shared/data is not here")


def build(experiment: str, folder: str, split: str, *opts: str):
    path = ROOT / "experiments" / f"{experiment}.yaml"
    cfg = load_config(path, ["DATASET.ROOT", str(DATA / folder), *opts])
    return build_dataset(cfg, split, is_train=False)


def num_loaded(dataset) -> int:
    return sum(len(batch["image"]) for batch in TestLoader(dataset, 4, workers=0))


@pytest.mark.parametrize(
    ("experiment", "folder", "split", "count"),
    [
        ("coco/hrnet/w32_256x192_adam_lr1e-3", "coco", "train2017", 12),
        ("coco/hrnet/w32_256x192_adam_lr1e-3", "coco", "val2017", 12),
        ("mpii/hrnet/w32_256x256_adam_lr1e-3", "mpii", "valid", 5),
        ("atrw/hrnet/w32_256x192", "atrw", "train", 2),
        ("atrw/hrnet/w32_256x192", "atrw", "val", 2),
        ("ap10k/hrnet/w32_256x256", "ap10k", "val-split1", 2),
        ("crowdpose/hrnet/w32_256x192", "crowdpose", "val", 4),
    ],
)
def test_the_ground_truth_of_real_files_scores_1(tmp_path, experiment, folder, split, count):
    dataset = build(experiment, folder, split, "TEST.USE_GT_BBOX", "True")
    assert num_loaded(dataset) == len(dataset) == count
    poses = poses_of(dataset.table, annotated(dataset.table))
    _, score = dataset.source.evaluate(poses, str(tmp_path))
    assert score > (99.9 if dataset.source.metric == "PCKh" else 0.99)


def test_published_detections_are_read():
    options = ["TEST.USE_GT_BBOX", "False", "TEST.COCO_BBOX_FILE", str(BOXES)]
    dataset = build("coco/hrnet/w32_256x192_adam_lr1e-3", "coco", "val2017", *options)
    assert num_loaded(dataset) == len(dataset) > 12
