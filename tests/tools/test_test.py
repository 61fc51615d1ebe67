"""Tests of tools/test.py: scores, results for evaluation servers, and bad input."""

import json
import re
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from lib.core.backends import load_network
from lib.keypoints.geometry import PIXEL_STD
from tests import tiny
from tests.tools.runs import (
    RESULTS,
    annotations,
    history,
    is_one_line,
    leftovers,
    output,
    random_weights,
    torch_load,
    write,
)


@pytest.fixture
def trained(root, succeed) -> Path:
    """Train an experiment for one epoch and return its output folder."""
    succeed("train", "--cfg", write(root))
    return output(root)


def table(text: str) -> list[float]:
    """Return the numbers in the last Markdown row."""
    row = re.findall(r"^\| pose_hrnet \| (.*) \|$", text, re.MULTILINE)[-1]
    return [float(number) for number in row.split(" | ")]


def test_the_best_weights_have_the_scores_of_training(root, trained, succeed):
    (row,) = history(trained)
    results = trained / RESULTS
    written = results.read_bytes()
    results.unlink()
    ended = succeed("test", "--cfg", write(root), "--no-fuse-conv-bn")
    assert ended.err == ""
    names = ["AP", "Ap .5", "AP .75", "AP (M)", "AP (L)"]
    names += ["AR", "AR .5", "AR .75", "AR (M)", "AR (L)"]
    assert "| Arch | " + " | ".join(names) + " |" in ended.out
    scores = table(ended.out)
    assert scores == pytest.approx([float(row[name]) for name in names], abs=5e-4)
    assert 0 < scores[0] < 1
    assert "model_best.pth" in ended.out
    assert results.read_bytes() == written
    sheet = cv2.imread(str(trained / "predictions.jpg"))
    assert sheet.shape == (300 + 4, 2 * 402 + 2, 3)
    assert list(trained.glob("tiny_*_valid.log"))
    assert not leftovers(trained)


def test_results_are_in_coco_format(trained):
    entries = json.loads((trained / RESULTS).read_text())
    assert len(entries) == 4
    for entry in entries:
        keys = {"image_id", "category_id", "keypoints", "score", "center", "scale", "bbox"}
        assert set(entry) == keys
        assert isinstance(entry["image_id"], int) and entry["category_id"] == 1
        assert len(entry["keypoints"]) == 51 and len(entry["center"]) == len(entry["scale"]) == 2


def test_the_demo_reads_boxes_from_results(root, trained, succeed):
    results = trained / RESULTS
    words = ["--input", root / "images" / "val2017", "--boxes", results, "--no-pictures"]
    ended = succeed("demo", "--cfg", write(root), *words, "--output", root.parent / "found")
    assert ended.err == "", ended
    found = json.loads((root.parent / "found" / "results.json").read_text())
    tested = json.loads(results.read_text())
    assert len(found) == len(tested) == 4
    for one, other in zip(found, tested, strict=True):
        assert (one["image_id"], one["bbox"]) == (other["image_id"], other["bbox"])
        np.testing.assert_allclose(one["keypoints"], other["keypoints"], atol=0.02)


def test_model_file_selects_the_weights(root, trained, succeed):
    state = torch_load(trained / "model_best.pth")
    state["final_layer.bias"] += 3
    other = root.parent / "other.pth"
    torch.save({"state_dict": {f"module.{key}": value for key, value in state.items()}}, other)
    ended = succeed("test", "--cfg", write(root), "TEST.MODEL_FILE", other)
    assert str(other) in ended.out
    results = json.loads((trained / RESULTS).read_text())
    assert min(entry["score"] for entry in results) > 2


class Fixed(torch.nn.Module):
    """A network with the same heatmaps for every crop: left joints have a ridge from 1 at x = 4
    down to 0.8 at x = 5, right joints half of its mirror image."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        heatmaps = torch.zeros(len(images), 17, 16, 16)
        heatmaps[:, 1::2, 8, 4:6] = torch.tensor([1.0, 0.8])
        heatmaps[:, 2::2, 8, 10:12] = torch.tensor([0.4, 0.5])
        return heatmaps


@pytest.mark.parametrize(
    ("key", "x", "score"),
    [
        # The mirrored crop's ridge, half as high, lies one pixel further right: 0.5, 0.65, 0.2.
        (None, 4.75, 0.65),
        ("TEST.FLIP_TEST", 4.25, 1.0),
        ("TEST.POST_PROCESS", 5.0, 0.65),
        ("TEST.SHIFT_HEATMAP", 4.25, 0.75),
    ],
)
def test_flip_test_and_post_processing_can_be_switched_off(
    root, tool, succeed, monkeypatch, key, x, score
):
    module = tool("test")
    monkeypatch.setattr("lib.core.backends.load_network", lambda *_, **__: Fixed())
    switch = [key, "False"] if key else []
    succeed(module, "--cfg", write(root), "TEST.MODEL_FILE", "fixed.pth", *switch)
    for entry in json.loads((output(root) / RESULTS).read_text()):
        left_eye = entry["keypoints"][3:6]
        pixel = entry["scale"][0] * PIXEL_STD / 16
        assert (left_eye[0] - entry["center"][0]) / pixel + 8 == pytest.approx(x, abs=1e-3)
        assert left_eye[2] == pytest.approx(score)


def test_scores_include_those_of_detected_boxes(root, trained, succeed):
    content = json.loads(annotations(root).read_text())
    boxes = tiny.write_detections(root.parent / "boxes.json", content)
    arguments = ("TEST.USE_GT_BBOX", "False", "TEST.COCO_BBOX_FILE", root.parent / "boxes.json")
    ended = succeed("test", "--cfg", write(root), *arguments)
    assert 0 < table(ended.out)[0] < 1
    results = json.loads((trained / RESULTS).read_text())
    # A score is the box score times the mean of the joint scores above 0.
    for entry in results:
        scores = [score for score in entry["keypoints"][2::3] if score > 0]
        found = entry["score"] / (sum(scores) / len(scores))
        assert any(found == pytest.approx(box["score"], rel=1e-5) for box in boxes)


def test_test_dev_gives_results_without_ground_truth(root, trained, succeed):
    content = json.loads(annotations(root).read_text())
    tiny.write_detections(root.parent / "boxes.json", content)
    info = {key: content[key] for key in ("images", "categories")}
    (root / "annotations" / "image_info_test-dev2017.json").write_text(json.dumps(info))
    (root / "images" / "val2017").rename(root / "images" / "test2017")
    arguments = ("TEST.USE_GT_BBOX", "False", "TEST.COCO_BBOX_FILE", root.parent / "boxes.json")
    ended = succeed("test", "--cfg", write(root), "DATASET.TEST_SET", "test-dev2017", *arguments)
    assert "| Arch | Null |" in ended.out
    results = trained / "results" / "keypoints_test-dev2017_results_0.json"
    assert {entry["image_id"] for entry in json.loads(results.read_text())} == {1, 2}


def test_nan_weights_are_a_one_line_error(root, trained, command):
    state = torch_load(trained / "model_best.pth")
    state["final_layer.bias"][:] = float("nan")
    torch.save(state, root.parent / "nan.pth")
    ended = command("test", "--cfg", write(root), "TEST.MODEL_FILE", root.parent / "nan.pth")
    assert is_one_line(ended, "contains NaN or Inf")


def exported(root, succeed) -> tuple[Path, Path]:
    """Return random weights and the exported network."""
    weights = random_weights(root)
    options = ("--weights", weights, "--to", "torchscript")
    succeed("export", "--cfg", write(root), *options)
    return weights, weights.with_suffix(".ts")


def test_an_exported_file_has_the_scores_of_its_weights(root, succeed, command):
    arguments = ("test", "--cfg", write(root), "DEBUG.DEBUG", "True")
    arguments += ("DEBUG.SAVE_BATCH_IMAGES_PRED", "True", "DEBUG.SAVE_HEATMAPS_PRED", "True")
    people = root.parent / "people.json"
    weights, file = exported(root, succeed)
    tested = output(root)
    expected = command(*arguments, "--out", people, "TEST.MODEL_FILE", weights)
    expected_people = json.loads(people.read_text())
    shutil.rmtree(root.parent / "log")
    (tested / "val_0_hm_pred.jpg").unlink()
    ended = succeed(*arguments, "--out", people, "TEST.MODEL_FILE", file)
    assert ended.err == ""
    assert 0 < table(ended.out)[0] == pytest.approx(table(expected.out)[0], abs=0.05)
    for image, expected_image in zip(json.loads(people.read_text()), expected_people, strict=True):
        scores, wanted = (np.array(one["preds"])[..., 2] for one in (image, expected_image))
        np.testing.assert_allclose(scores, wanted, atol=1e-4)
    assert "Loss" in expected.out and "Loss" not in ended.out
    (line,) = [line for line in ended.out.splitlines() if "DEBUG.SAVE_HEATMAPS_PRED:" in line]
    assert line.endswith(f"skipped, {file} does not output heatmaps")
    assert (tested / "val_0_pred.jpg").exists()
    assert not (tested / "val_0_hm_pred.jpg").exists()


def test_options_an_exported_file_does_not_support_are_one_line_errors(root, succeed, command):
    _, file = exported(root, succeed)
    for options, message in (
        (["--no-fuse-conv-bn"], f"--no-fuse-conv-bn: {file} is an exported file"),
        (["--precision", "bfloat16"], "precision: random.ts runs in float32"),
        (["--precision", "float16"], "precision: random.ts runs in float32, not in float16"),
        (["--precision", "half"], "must be one of float32, bfloat16, float16, not 'half'"),
        (["TEST.FLIP_TEST", "False"], f"{file}: was exported with TEST.FLIP_TEST True"),
        (["TEST.MODEL_FILE", "none.onnx"], "none.onnx: there is no such file"),
    ):
        ended = command("test", "--cfg", write(root), "TEST.MODEL_FILE", file, *options)
        assert is_one_line(ended, message)


def test_weights_are_tested_in_bfloat16(root, tool, succeed, monkeypatch):
    module, computed = tool("test"), []

    def hooked(*args, **kwargs):
        network = load_network(*args, **kwargs)
        network.register_forward_hook(lambda module, args, out: computed.append(out.dtype))
        return network

    monkeypatch.setattr("lib.core.backends.load_network", hooked)
    monkeypatch.setattr("lib.core.backends.has_bfloat16", lambda _: True)  # emulated where missing
    arguments = ("--precision", "bfloat16", "TEST.MODEL_FILE", random_weights(root))
    ended = succeed(module, "--cfg", write(root), *arguments)
    assert "random.pth in bfloat16" in ended.out
    assert set(computed) == {torch.bfloat16}


def another_network(folder: Path) -> dict:
    return {"conv1.weight": torch.ones(3)}


def another_number_of_joints(folder: Path) -> dict:
    state = torch_load(folder / "model_best.pth")
    for name in ("weight", "bias"):
        state[f"final_layer.{name}"] = state[f"final_layer.{name}"][:16]
    return state


@pytest.mark.parametrize("make", [another_network, another_number_of_joints])
def test_weights_of_another_network_are_a_one_line_error(root, trained, command, make):
    path = root.parent / "other.pth"
    torch.save(make(trained), path)
    ended = command("test", "--cfg", write(root), "TEST.MODEL_FILE", path)
    assert is_one_line(ended, str(path), "does not match PoseHRNet")


def test_max_broken_counts_people_in_broken_images_as_missed(root, trained, succeed, command):
    before = table(command("test", "--cfg", write(root)).out)
    image = root / "images" / "val2017" / "000000000002.jpg"
    image.write_bytes(image.read_bytes()[:900])
    ended = succeed("test", "--cfg", write(root), "TEST.MAX_BROKEN", "0.5", "WORKERS", "1")
    assert ended.err == ""
    assert f"=> broken image, left out: {image}: the image file is truncated" in ended.out
    assert "=> 1 of 2 images are broken; 2 people in them count as not found" in ended.out
    assert all(new <= old for new, old in zip(table(ended.out), before, strict=True))
    results = json.loads((trained / RESULTS).read_text())
    assert {entry["image_id"] for entry in results} == {1}
