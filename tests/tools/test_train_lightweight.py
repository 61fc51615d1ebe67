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
def test_a_network_learns_a_few_people_by_heart(experiment, epochs, figures, command, tmp_path):
    still = ["DATASET.FLIP", "False", "DATASET.SCALE_FACTOR", "0.0", "DATASET.ROT_FACTOR", "0"]
    ended = command(
        "train",
        "--cfg",
        EXPERIMENTS / f"{experiment}.yaml",
        "--work-dir",
        tmp_path,
        "DATASET.ROOT",
        figures,
        "DATASET.TEST_SET",
        "train",
        "WORKERS",
        "0",
        *still,
        "MODEL.IMAGE_SIZE",
        "[64,64]",
        "MODEL.HEATMAP_SIZE",
        "[16,16]",
        "TRAIN.BATCH_SIZE_PER_GPU",
        "8",
        "TRAIN.WARMUP_ITERS",
        "0",
        "TRAIN.AMP",
        "False",
        "TRAIN.LR",
        "0.01",
        "TRAIN.END_EPOCH",
        epochs,
        "MODEL.EXTRA.NUM_MODULES",
        "[1,1,1]",
        "TRAIN.EVAL_INTERVAL",
        epochs,
        "TEST.FLIP_TEST",
        "False",
        "DEBUG.DEBUG",
        "False",
    )
    assert ended.code == 0, ended.err
    # It is 0 for an untrained network and after one epoch.
    assert float(history(tmp_path)[-1]["Ap .5"]) > 0.5
