"""Quantization to int8, and the images it is calibrated with."""

import cv2
import numpy as np
import pytest
import torch

from lib.config import load_config
from lib.core import build_task
from lib.core.backends import build_backend, exported_backend
from lib.core.exported import open_exported
from lib.deploy import int8
from lib.deploy.distances import CropDistances
from lib.deploy.export import ONNX, OPENVINO, write_draft
from lib.deploy.int8 import AccuracyControl, calibration_inputs, quantize
from lib.deploy.parity import drawn_crops, real_scenes, scene_difference
from lib.utils.errors import InputError
from tests import tiny
from tests.deploy.exports import skip_without_graphs, small, small_scenes


@pytest.fixture(scope="module")
def network(tmp_path_factory):
    """Return an experiment, and its network as ``quantize`` takes it."""
    skip_without_graphs()
    pytest.importorskip("nncf")
    folder = tmp_path_factory.mktemp("network")
    made = small(folder, TARGET_TYPE="udp")
    path = made.write(folder, ONNX)
    return made, (path.read_bytes(), open_exported(path).description)


@pytest.mark.parametrize("file_format", [ONNX, OPENVINO])
def test_the_network_is_quantized_and_decoding_is_not(network, tmp_path, file_format):
    made, graph = network
    crops = drawn_crops(made.cfg, 8)
    quantized = quantize(*graph, file_format, crops.split(1))
    assert quantized.layers == 1
    backend = build_backend(made.cfg, made.skeleton, write_draft(tmp_path / "q", quantized.files))
    keypoints, scores = backend(crops)
    expected, expected_scores = made.backend(crops)
    distance = torch.linalg.vector_norm(keypoints - expected, dim=-1)
    # Coordinates of decoding with 8 bits would be off by more in most joints.
    assert 0 < distance.median() < 0.1
    assert (scores - expected_scores).abs().max() < 0.2 * expected_scores.abs().max()


@pytest.mark.parametrize("file_format", [ONNX, OPENVINO])
def test_layers_return_to_float32_until_the_score_is_close(network, tmp_path, file_format):
    made, graph = network
    distances = CropDistances(made.cfg, made.backend, CropDistances.ranking_size + 1)
    crops = torch.cat(distances.inputs)
    keypoints, _ = made.backend(crops)

    def score(backend):
        return 100 - float((backend(crops)[0] - keypoints).abs().mean())

    def backend_of(runner):
        return exported_backend(made.cfg, runner, made.codec)

    control = AccuracyControl(score, 0.001, distances, backend_of)
    quantized = quantize(*graph, file_format, distances.inputs[:8], control)
    assert quantized.layers == 0
    path = write_draft(tmp_path / "q", quantized.files)
    assert score(build_backend(made.cfg, made.skeleton, path)) > 99.999


def test_a_lower_score_during_the_search_is_not_reported(network, monkeypatch):
    nncf = pytest.importorskip("nncf")
    made, graph = network
    distances = CropDistances(made.cfg, made.backend, CropDistances.ranking_size + 1)
    scores, reported = iter([100.0, 50.0, 60.0, 55.0, 70.0]), []

    def search(model, data, tested, validate, **_):
        rows = range(len(distances.inputs))
        reported.extend(validate(model, rows)[0] for _ in range(5))
        return model

    def backend_of(runner):
        return exported_backend(made.cfg, runner, made.codec)

    monkeypatch.setattr(nncf, "quantize_with_accuracy_control", search)
    control = AccuracyControl(lambda _: next(scores), 1.0, distances, backend_of)
    quantize(*graph, ONNX, distances.inputs[:2], control)
    assert reported == [100, 50, 60, 60, 70]


@pytest.mark.parametrize("file_format", [ONNX, OPENVINO])
def test_a_bottom_up_network_is_quantized(tmp_path, file_format):
    skip_without_graphs()
    pytest.importorskip("nncf")
    made = small_scenes(tmp_path)
    path = made.write(tmp_path, ONNX)
    images, _ = real_scenes(made.cfg, 2)
    inputs = [batch["image0"] for batch in images]
    graph = path.read_bytes(), open_exported(path).description
    quantized = quantize(*graph, file_format, inputs)
    assert quantized.layers == 1
    path = write_draft(tmp_path / "q", quantized.files)
    task = build_task(made.cfg, build_backend(made.cfg, made.skeleton, path))
    found = scene_difference(task, build_task(made.cfg, made.backend), images[0])
    # Candidates are the exact maxima of the heatmaps, so their search is not quantized.
    assert 1e-4 < found.heatmaps < 0.5 and found.candidate_values < 1e-6


def test_calibration_takes_the_training_set_if_it_is_installed(tmp_path):
    made = small(tmp_path)
    crops, source = calibration_inputs(made.cfg, None, 3)
    assert source == "synthetic people: 3 crops"
    assert torch.equal(torch.cat(crops), drawn_crops(made.cfg, 3, "train"))
    tiny.write_coco(tmp_path, "train2017", images=2)
    crops, source = calibration_inputs(made.cfg, None, 300)
    assert source == f"coco train2017: {len(crops)} crops" and len(crops) >= 2


def test_calibration_takes_a_folder_of_images(tmp_path, monkeypatch):
    made = small(tmp_path)
    found = [np.array([[0, 0, 30, 60], [30, 0, 30, 60]]), np.empty((0, 4))]
    detector = iter([[(boxes, None)] for boxes in found])
    monkeypatch.setattr(int8, "PersonDetector", lambda device: lambda images: next(detector))
    folder = tmp_path / "photos"
    with pytest.raises(InputError, match=r"--calibration: .*photos"):
        calibration_inputs(made.cfg, folder, 4)
    (folder / "more").mkdir(parents=True)
    (folder / "notes.txt").write_text("not an image")
    image = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    for name in ("a.png", "more/b.jpg"):
        cv2.imwrite(str(folder / name), image)
    crops, source = calibration_inputs(made.cfg, folder, 4)
    assert source == f"{folder}: 3 crops" and torch.cat(crops).shape == (3, 3, 64, 64)


def test_a_bottom_up_network_is_calibrated_with_whole_images(tmp_path):
    cfg = load_config(tiny.scenes(tmp_path / "scenes.yaml", tmp_path))
    images, source = calibration_inputs(cfg, None, 2)
    assert source == "synthetic people: 2 images"
    assert all(image.shape[:2] == (1, 3) and min(image.shape[2:]) == 128 for image in images)
    tiny.write_coco(tmp_path, "train2017", images=2)
    images, source = calibration_inputs(cfg, None, 3)
    assert source == "coco train2017: 2 images" and len(images) == 2
    folder = tmp_path / "photos"
    folder.mkdir()
    cv2.imwrite(str(folder / "a.png"), np.zeros((40, 80, 3), np.uint8))
    images, source = calibration_inputs(cfg, folder, 2)
    assert source == f"{folder}: 1 images" and images[0].shape == (1, 3, 128, 256)
