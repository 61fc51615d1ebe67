"""The commands with a bottom-up network: training, test, demo and data check on whole images."""

import itertools
import json

import pytest

from lib.deploy.parity import SceneDifference
from tests import tiny
from tests.tools.runs import annotations, history, is_one_line, output, random_weights


@pytest.fixture
def path(root):
    return tiny.scenes(root.parent / "scenes.yaml", root)


def test_train_test_and_resume(path, root, succeed):
    ended = succeed("train", "--cfg", path, "TRAIN.END_EPOCH", "1")
    assert len(history(output(root, "scenes"))) == 1
    ended = succeed("train", "--cfg", path, "TRAIN.END_EPOCH", "2", "AUTO_RESUME", "True")
    out = root.parent / "people.json"
    ended = succeed("test", "--cfg", path, "--out", out)
    assert "| pose_hrnet |" in ended.out
    for name in ("predictions.jpg", "history.csv", "curves.png"):
        assert (output(root, "scenes") / name).exists()
    names = {"preds", "scores", "image_paths", "output_heatmap"}
    assert all(set(image) == names for image in json.loads(out.read_text()))


def test_the_demo_finds_people_without_boxes(path, root, succeed, command):
    images = root / "images" / "val2017"
    weights = random_weights(root, path)
    words = ["demo", "--cfg", path, "--weights", weights, "--input", images]
    succeed(*words, "--output", root.parent / "demo")
    assert len(list((root.parent / "demo" / "pictures").iterdir())) == 2
    people = json.loads((root.parent / "demo" / "results.json").read_text())
    assert all(len(person["keypoints"]) == 51 for person in people)
    scores = sorted(person["score"] for person in people)
    _, threshold = max((b - a, (a + b) / 2) for a, b in itertools.pairwise(scores))
    options = ("--detector-threshold", threshold, "--output", root.parent / "few")
    succeed(*words, *options)
    few = json.loads((root.parent / "few" / "results.json").read_text())
    assert few == [person for person in people if person["score"] >= threshold]
    options = ("--annotations", annotations(root), "--output", root.parent / "measured")
    succeed(*words, *options)
    assert (root.parent / "measured" / "errors.csv").exists()
    boxes = root.parent / "boxes.json"
    boxes.write_text("[]")
    assert is_one_line(command(*words, "--boxes", boxes), "finds people without boxes")


def test_the_data_check_draws_scenes(path, root, succeed):
    succeed("check_data", "--cfg", path, "--work-dir", root.parent / "check")
    assert (root.parent / "check" / "samples.jpg").exists()


def test_an_exported_file_is_checked_and_tested_like_weights(path, root, succeed):
    weights = random_weights(root, path)
    ended = succeed("export", "--cfg", path, "--weights", weights, "--to", "torchscript")
    assert ended.out.splitlines()[0].startswith("random: heatmaps ")
    assert "includes normalisation and candidates, one image of any size" in ended.out
    ended = succeed("test", "--cfg", path, "TEST.MODEL_FILE", weights.with_suffix(".ts"))
    assert "=> AP " in ended.out, ended


@pytest.mark.parametrize(
    ("options", "part"),
    [
        (["--single"], "--single: files of bottom-up networks always read one image"),
        (["TEST.SCALE_FACTOR", "[0.5, 1]"], "TEST.SCALE_FACTOR: a file with decoding reads"),
    ],
)
def test_invalid_export_options_are_one_line_errors(path, root, command, options, part):
    ended = command("export", "--cfg", path, "--weights", "w.pth", "--to", "onnx", *options)
    assert is_one_line(ended, part)


def test_a_file_with_different_output_is_not_written(path, root, command, tool, monkeypatch):
    module, weights = tool("export"), random_weights(root, path)
    wrong = SceneDifference(
        heatmaps=0.01, tags=0.0, scores=0.0, candidate_values=0.0, people=1, expected=1
    )
    monkeypatch.setattr(module, "scene_difference", lambda *_: wrong)
    ended = command(module, "--cfg", path, "--weights", weights, "--to", "torchscript")
    assert ended.code == 1 and "nothing was written" in ended.err
    assert not weights.with_suffix(".ts").exists()


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
def test_invalid_settings_are_one_line_errors(path, root, command, name, settings, part):
    if name == "tiny":
        path = tiny.experiment(root.parent / "tiny.yaml", root)
    assert is_one_line(command("train", "--cfg", path, *settings), part)
