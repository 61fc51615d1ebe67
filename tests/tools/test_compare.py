"""Tests of tools/compare.py: a table of experiments, each trained once and tested twice."""

import re

import pytest

from tests.tools.runs import is_one_line, output, write

FULL = {"TARGET_TYPE": "full", "HEATMAP_SIZE": [64, 64], "SIGMA": 4}
HEADS = {
    "dark": {"TARGET_TYPE": "dark"},
    "udp": {"TARGET_TYPE": "udp"},
    "sr": {"HEAD": "sr", **FULL},
    "srpose": {"HEAD": "srpose", **FULL},
    "simcc": {"HEAD": "simcc", "TARGET_TYPE": "simcc"},
    "sa_simcc": {"HEAD": "simcc", "TARGET_TYPE": "sa_simcc", "SIGMA": 4},
}


@pytest.mark.parametrize("kind", HEADS)
def test_every_representation_trains_resumes_and_tests(root, succeed, kind):
    pictures = {"SAVE_HEATMAPS_GT": True, "SAVE_HEATMAPS_PRED": True}
    debug = {"DEBUG": True, **pictures}
    path = write(root, kind, MODEL=HEADS[kind], TRAIN={"END_EPOCH": 2}, DEBUG=debug)
    succeed("train", "--cfg", path, "TRAIN.END_EPOCH", "1")
    ended = succeed("train", "--cfg", path, "AUTO_RESUME", "True")
    folder = output(root, kind)
    assert (folder / "train_0_hm_gt.jpg").exists() and (folder / "val_0_hm_pred.jpg").exists()
    ended = succeed("test", "--cfg", path, "TEST.FLIP_TEST", "True")
    assert re.search(r"=> AP \d\.\d+ on", ended.out), ended.err


def test_the_table_has_a_row_per_experiment_and_none_is_trained_twice(
    root, succeed, command, tmp_path
):
    files = [write(root, name) for name in ("one", "two")]
    succeed("train", "--cfg", files[0])
    weights = output(root, "one") / "final_state.pth"
    before = weights.stat().st_mtime_ns
    table = tmp_path / "table.md"
    ended = succeed("compare", "--cfg", *files, "--out", table, "WORKERS", "0")
    assert re.search(
        r"^\| one \| \d+\.\d\dM \| \d\.\d+ \| \d\.\d+ \| -?\d\.\d+ \|$", ended.out, re.M
    )
    assert table.read_text().count("\n") == 4 and "| two |" in table.read_text()
    assert weights.stat().st_mtime_ns == before and output(root, "two").exists()
    ended = command("compare", "--cfg", files[0], "TRAIN.LR", "-1e-3")
    assert is_one_line(ended, "one: was trained with other settings; remove it")


def test_no_experiment_at_all_is_an_error(command):
    assert is_one_line(command("compare", "--cfg", "TRAIN.LR", "1"), "--cfg has no value")


def test_a_missing_file_is_reported_before_training(root, command, tmp_path):
    ended = command("compare", "--cfg", write(root, "good"), tmp_path / "absent.yaml")
    assert is_one_line(ended, "absent.yaml: cannot read the experiment")
    assert not output(root, "good").exists()
