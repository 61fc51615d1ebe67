"""Tests of tools/quickstart.py: its steps, estimate, summary and resumption."""

import re
from pathlib import Path

import pytest
import torch

from lib.config import load_config
from lib.models import build_model, shipped
from tests import tiny
from tests.tools.runs import history, is_one_line, output

WHOLE = ["test built_in", "train quickstart", "test quickstart"]
TIMINGS = {"start": 10, "image": 5, "training": 3, "testing": 7}
TIMINGS |= {"testing_built_in": 11, "people": 2}


@pytest.fixture
def quickstart(tool, succeed, command, tmp_path, monkeypatch):
    """Run the quickstart on a few images with tiny networks: quickstart(options ...).

    Afterwards ``ran`` lists the commands that it ran, and ``said`` is its output.
    """
    module = tool("quickstart")
    data = {"DATASET": "figures", "TRAIN_SET": "train", "TEST_SET": "val"}
    sections = {"DATASET": data, "AUTO_RESUME": True, "TRAIN": {"END_EPOCH": 2}}
    for name in ("quickstart", "built_in"):
        tiny.experiment(tmp_path / f"{name}.yaml", tmp_path / "figures", **sections)
    torch.manual_seed(0)
    network = build_model(load_config(tmp_path / "built_in.yaml"))
    torch.save(network.state_dict(), tmp_path / "built_in.pth")
    small = shipped.ShippedNetwork(tmp_path / "built_in.yaml", tmp_path / "built_in.pth")
    monkeypatch.setattr(shipped, "TOP_DOWN", small)
    monkeypatch.setattr(module, "EXPERIMENT", tmp_path / "quickstart.yaml")
    monkeypatch.setattr(module, "IMAGES", {"train": 4, "val": 2})
    monkeypatch.setattr(module, "NUM_MEASURED", 4)
    monkeypatch.setattr(module, "MEASURED_EPOCHS", 1)
    monkeypatch.setattr("os.cpu_count", lambda: 1)  # no processes for drawing

    def in_this_process(name, path, opts, processes=1, quiet=False):
        name = name.removesuffix(".py")
        if not quiet:  # the measurement is quiet
            run.ran.append(f"{name} {Path(path).stem}")
        succeed(name, "--cfg", path, *opts)

    def score(path, opts):
        run.ran.append(f"test {Path(path).stem}")
        return compare_score(path, opts)

    def run(*options):
        run.ran, run.said = [], ""
        return command(module, *options)

    def say(text):
        run.said += f"{text}\n"

    monkeypatch.setattr(module, "say", say)
    monkeypatch.setattr(module, "run_tool", in_this_process)
    compare_score = module.score
    monkeypatch.setattr(module, "score", score)
    run.module = module
    run.folder = output(tmp_path / "data", "quickstart", "figures")
    return run


def test_all_steps_run_and_a_finished_run_can_be_extended(quickstart, tmp_path):
    ended = quickstart("TRAIN.END_EPOCH", "1")
    assert ended.code == 0, ended
    assert quickstart.ran == WHOLE
    estimate, *_, summary = re.split(r"^(?=this will take|done)", quickstart.said, flags=re.M)[1:]
    for part in ("drawing", "testing built-in", "training", "testing"):
        assert re.search(rf"^ +{part} +\d+ s$", estimate, re.M), estimate
    assert len(re.findall(r"^ +[\d.]+  the (built-in top-down )?network", summary, re.M)) == 2
    for name in ("predictions.jpg", "built_in/predictions.jpg", "curves.png"):
        assert str(quickstart.folder / name) in summary
        assert (quickstart.folder / name).exists()
    for text in ("demo.py --input", "docs/own_data.md", "get_weights.py --list"):
        assert text in summary
    drawn = {path: path.stat().st_mtime_ns for path in (tmp_path / "figures").rglob("*.j*")}
    assert len(drawn) == 4 + 2 + 2

    assert quickstart("TRAIN.END_EPOCH", "2").code == 0
    assert quickstart.ran == WHOLE
    assert "1 epoch" in quickstart.said
    assert len(history(quickstart.folder)) == 2
    assert quickstart().code == 0
    assert quickstart.ran == ["test built_in", "test quickstart"]
    (quickstart.folder / "final_state.pth").unlink()  # as if the last validation was interrupted
    assert quickstart().code == 0
    assert quickstart.ran == WHOLE and (quickstart.folder / "final_state.pth").exists()
    assert {path: path.stat().st_mtime_ns for path in drawn} == drawn


def test_an_interrupt_keeps_the_drawn_images(quickstart, tmp_path, monkeypatch):
    def interrupt(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(quickstart.module, "score", interrupt)
    ended = quickstart()
    assert ended.code == 130 and ended.err.endswith("interrupted\n"), ended
    names = [path.name for path in (tmp_path / "figures" / "annotations").iterdir()]
    assert names == ["person_keypoints_val.json"]


def test_the_estimate_is_the_sum_of_the_remaining_steps(quickstart, tmp_path):
    module = quickstart.module
    cfg = load_config(module.EXPERIMENT, ["TRAIN.END_EPOCH", "10", "TRAIN.EVAL_INTERVAL", "4"])
    # 8 people to train on, 4 to test on
    text = module.estimate(cfg, quickstart.folder, module.Timings(**TIMINGS))
    seconds = {
        "drawing": 6 * 5,
        "testing built-in": 4 * 11,
        "training": 10 + 10 * 8 * 3 + 3 * 4 * 7,
        "testing": 4 * 7,
    }
    for name, value in seconds.items():
        assert re.search(rf"^ +{name} +{value} s$", text, re.M), text
    assert f"about {sum(seconds.values()) / 60:.1f} minutes" in text
    torch.save({"epoch": 10, "state_dict": {}, "optimizer": {}}, tmp_path / "checkpoint.pth")
    text = module.estimate(cfg, tmp_path, module.Timings(**TIMINGS))
    assert re.search(r"^ +training +0 s$", text, re.M)


def test_a_slow_machine_trains_for_as_many_epochs_as_fit(quickstart, tmp_path):
    module = quickstart.module
    cfg = load_config(module.EXPERIMENT, ["TRAIN.END_EPOCH", "14"])
    speed = module.Timings(**TIMINGS)  # 24 s an epoch, 140 s for the rest
    for seconds, epochs in ((1000, 14), (140 + 6 * 24, 6), (0, module.MIN_EPOCHS)):
        assert module.choose_epochs(cfg, tmp_path, speed, seconds) == epochs
    torch.save({}, tmp_path / "checkpoint.pth")  # a started run keeps its number of epochs
    (tmp_path / "config_train.yaml").write_text("TRAIN: {END_EPOCH: 9}")
    assert module.choose_epochs(cfg, tmp_path, speed, 1000) == 9


def test_an_unknown_setting_is_a_one_line_error(quickstart):
    assert is_one_line(quickstart("TRAIN.EPOCHS", "1"), "unknown key TRAIN.EPOCHS")
    assert not quickstart.ran
