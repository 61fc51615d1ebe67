"""Test that the lightweight networks can overfit a few drawn people."""

from pathlib import Path

import pytest

from lib.figures.write import write_figures
from tests.tools.runs import history

EXPERIMENTS = Path(__file__).resolve().parents[2] / "experiments" / "figures"


@pytest.fixture(scope="module")
def figures(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("figures")
    write_figures(root, {"train": 12, "val": 1}, workers=1)
    return root


@pytest.mark.parametrize(
    ("experiment", "epochs"),
    [
        ("lite_hrnet/litehrnet_18_128x96", 30),
        ("dite_hrnet/ditehrnet_18_128x96", 24),
        ("wide_hrnet/widehrnet_18_se_128x96", 20),
    ],
)
def test_a_network_overfits_a_few_people(experiment, epochs, figures, succeed, tmp_path):
    settings = (
        "DATASET.TEST_SET train DATASET.FLIP False DATASET.SCALE_FACTOR 0.0 DATASET.ROT_FACTOR 0 "
        "MODEL.IMAGE_SIZE [64,64] MODEL.HEATMAP_SIZE [16,16] MODEL.EXTRA.NUM_MODULES [1,1,1] "
        "TRAIN.BATCH_SIZE_PER_GPU 8 TRAIN.WARMUP_ITERS 0 TRAIN.AMP False TRAIN.LR 0.01 "
        f"TRAIN.END_EPOCH {epochs} TRAIN.EVAL_INTERVAL {epochs} TEST.FLIP_TEST False "
        f"DEBUG.DEBUG False WORKERS 0 DATASET.ROOT {figures}"
    )
    path = EXPERIMENTS / f"{experiment}.yaml"
    succeed("train", "--cfg", path, "--work-dir", tmp_path, *settings.split())
    # It is 0 for an untrained network and after one epoch.
    assert float(history(tmp_path)[-1]["Ap .5"]) > 0.5
