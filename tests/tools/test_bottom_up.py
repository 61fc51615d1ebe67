"""The commands with a bottom-up network: training, test, demo and data check on whole images."""

import json

import pytest
import torch

from lib.config import load_config
from lib.deploy.parity import SceneDifference
from lib.models import build_model
from tests import tiny
from tests.tools.runs import history, is_one_line, output


@pytest.fixture
def path(root):
    return tiny.scenes(root.parent / "scenes.yaml", root)


def test_train_test_and_resume(path, root, command):
    ended = command("train", "--cfg", path, "TRAIN.END_EPOCH", "1")
    assert ended.code == 0, ended
    assert len(history(output(root, "scenes"))) == 1
    ended = command("train", "--cfg", path, "TRAIN.END_EPOCH", "2", "AUTO_RESUME", "True")
    assert ended.code == 0, ended
    out = root.parent / "people.json"
    ended = command("test", "--cfg", path, "--out", out)
    assert ended.code == 0, ended
    assert "| pose_hrnet |" in ended.out
    for name in ("predictions.jpg", "history.csv", "curves.png"):
        assert (output(root, "scenes") / name).exists()
    names = {"preds", "scores", "image_paths", "output_heatmap"}
    assert all(set(image) == names for image in json.loads(out.read_text()))


def test_the_demo_finds_people_without_boxes(path, root, command):
    weights = root.parent / "weights.pth"
    torch.manual_seed(0)
    torch.save(tiny.randomize_weights(build_model(load_config(path))).state_dict(), weights)
    images = root / "images" / "val2017"
    words = ["demo", "--cfg", path, "--weights", weights, "--input", images]
    ended = command(*words, "--output", root.parent / "demo")
    assert ended.code == 0, ended
    assert len(list((root.parent / "demo" / "pictures").iterdir())) == 2
    people = json.loads((root.parent / "demo" / "results.json").read_text())
    assert all(len(person["keypoints"]) == 51 for person in people)
    annotations = root / "annotations" / "person_keypoints_val2017.json"
    ended = command(*words, "--annotations", annotations, "--output", root.parent / "measured")
    assert ended.code == 0, ended
    assert (root.parent / "measured" / "errors.csv").exists()
    boxes = root.parent / "boxes.json"
    boxes.write_text("[]")
    assert is_one_line(command(*words, "--boxes", boxes), "finds people without boxes")


def test_the_data_check_draws_scenes(path, root, command):
    ended = command("check_data", "--cfg", path, "--work-dir", root.parent / "check")
    assert ended.code == 0, ended
    assert (root.parent / "check" / "samples.jpg").exists()


def test_an_exported_file_is_checked_and_tested_like_weights(path, root, command):
    weights = root.parent / "w.pth"
    torch.save(tiny.randomize_weights(build_model(load_config(path))).state_dict(), weights)
    ended = command("export", "--cfg", path, "--weights", weights, "--to", "torchscript")
    assert ended.code == 0, ended
    assert ended.out.splitlines()[0].startswith("random: heatmaps ")
    assert "includes normalisation and candidates, one image of any size" in ended.out
    ended = command("test", "--cfg", path, "TEST.MODEL_FILE", root.parent / "w.ts")
    assert ended.code == 0 and "=> AP " in ended.out, ended


@pytest.mark.parametrize(
    ("options", "part"),
    [
        (["--single"], "--single: files of bottom-up networks always read one image"),
        (["TEST.SCALE_FACTOR", "[0.5, 1]"], "TEST.SCALE_FACTOR: a file with decoding reads"),
    ],
)
def test_exports_that_do_not_fit_are_one_line(path, root, command, options, part):
    ended = command("export", "--cfg", path, "--weights", "w.pth", "--to", "onnx", *options)
    assert is_one_line(ended, part)


def test_a_file_that_answers_otherwise_is_not_kept(path, root, command, tool, monkeypatch):
    module = tool("export")
    weights = root.parent / "w.pth"
    torch.save(tiny.randomize_weights(build_model(load_config(path))).state_dict(), weights)
    wrong = SceneDifference(
        heatmaps=0.01, tags=0.0, scores=0.0, candidate_values=0.0, people=1, expected=1
    )
    monkeypatch.setattr(module, "scene_difference", lambda *_: wrong)
    ended = command(module, "--cfg", path, "--weights", weights, "--to", "torchscript")
    assert ended.code == 1 and "nothing was written" in ended.err
    assert not (root.parent / "w.ts").exists()


@pytest.mark.parametrize(
    ("name", "settings", "part"),
    [
        ("scenes", ["DATASET.PROB_HALF_BODY", "0.3"], "is only for top-down networks"),
        ("tiny", ["TEST.SCALE_FACTOR", "[0.5, 1]"], "is only for bottom-up networks"),
        ("scenes", ["TEST.SCALE_FACTOR", "[0.5, 2]"], "a list that contains 1"),
        ("scenes", ["MODEL.IMAGE_SIZE", "[128, 96]"], "must be square"),
        ("scenes", ["TEST.NMS_KERNEL", "4"], "must be odd"),
        ("scenes", ["DATASET.SCALE_TYPE", "wide"], "must be short or long"),
    ],
)
def test_wrong_settings_are_one_line(path, root, command, name, settings, part):
    if name == "tiny":
        path = tiny.experiment(root.parent / "tiny.yaml", root)
    assert is_one_line(command("train", "--cfg", path, *settings), part)
