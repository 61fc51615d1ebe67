"""Quantization to int8, and the images it is calibrated with."""

import cv2
import numpy as np
import pytest
import torch

from lib.core.backends import build_backend, exported_backend
from lib.core.exported import open_exported
from lib.deploy import int8
from lib.deploy.export import ONNX, OPENVINO, write_draft
from lib.deploy.int8 import RANKING_CROPS, AccuracyControl, calibration_crops, quantize
from lib.deploy.parity import drawn_crops, random_crops
from lib.utils.errors import InputError
from tests import tiny
from tests.deploy.exports import skip_without_graphs, small


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
    quantized = quantize(*graph, file_format, crops)
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
    crops = random_crops(made.cfg.MODEL.IMAGE_SIZE, RANKING_CROPS + 1)
    keypoints, _ = made.backend(crops)

    def score(backend):
        return 100 - float((backend(crops)[0] - keypoints).abs().mean())

    def backend_of(runner):
        return exported_backend(made.cfg, runner, made.codec)

    control = AccuracyControl(score, 0.1, crops, keypoints, backend_of)
    quantized = quantize(*graph, file_format, crops[:8], control)
    assert quantized.layers == 0
    path = write_draft(tmp_path / "q", quantized.files)
    assert score(build_backend(made.cfg, made.skeleton, path)) > 99.9


def test_calibration_takes_the_training_set_if_it_is_installed(tmp_path):
    made = small(tmp_path)
    crops, source = calibration_crops(made.cfg, None, 3)
    assert source == "synthetic people: 3 crops"
    assert torch.equal(crops, drawn_crops(made.cfg, 3, "train"))
    tiny.write_coco(tmp_path, "train2017", images=2)
    crops, source = calibration_crops(made.cfg, None, 300)
    assert source == f"coco train2017: {len(crops)} crops" and len(crops) >= 2


def test_calibration_takes_a_folder_of_images(tmp_path, monkeypatch):
    made = small(tmp_path)
    found = [np.array([[0, 0, 30, 60], [30, 0, 30, 60]]), np.empty((0, 4))]
    detector = iter([[(boxes, None)] for boxes in found])
    monkeypatch.setattr(int8, "PoseDetector", lambda device: lambda images: next(detector))
    folder = tmp_path / "photos"
    with pytest.raises(InputError, match=r"--calibration: .*photos"):
        calibration_crops(made.cfg, folder, 4)
    (folder / "more").mkdir(parents=True)
    (folder / "notes.txt").write_text("not an image")
    image = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    for name in ("a.png", "more/b.jpg"):
        cv2.imwrite(str(folder / name), image)
    crops, source = calibration_crops(made.cfg, folder, 4)
    assert source == f"{folder}: 3 crops" and crops.shape == (3, 3, 64, 64)
