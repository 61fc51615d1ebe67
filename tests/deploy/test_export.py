"""Parity of exported files with PyTorch, with and without decoding."""

import re
from pathlib import Path

import numpy as np
import pytest
import torch

from lib.core.backends import build_backend
from lib.core.exported import Description
from lib.core.inference import Predictor
from lib.deploy.export import openvino_content, openvino_model, write_draft
from lib.deploy.parity import difference, random_crops
from lib.utils.errors import InputError
from tests.deploy.exports import skip_without_graphs, small


def matches_pytorch(made, path) -> bool:
    backend = build_backend(made.cfg, made.skeleton, path)
    crops = random_crops(made.cfg.MODEL.IMAGE_SIZE, 3)
    for number in (1, 3):
        keypoints, scores = backend(crops[:number])
        assert keypoints.shape == (number, 17, 2) and scores.shape == (number, 17)
        found = difference(backend, made.backend, crops[:number])
        assert found.stable > found.joints / 2
        assert found.stable_largest < 0.01 and found.scores < 1e-4
    return True


def example_of_the_guide_matches(made, path) -> bool:
    """Run the example of docs/export.md, which uses the file without HRPose."""
    guide = (Path(__file__).parents[2] / "docs" / "export.md").read_text(encoding="utf-8")
    example = re.search(r"```python\n(import json.*?)```", guide, re.DOTALL)[1]
    namespace = {}
    exec(example.replace("top_down.onnx", path.as_posix()), namespace)
    image = np.random.default_rng(0).integers(0, 256, (80, 120, 3), np.uint8)
    predictor = Predictor(made.cfg, path, "cpu")
    for box in ([30, 10, 20, 50], [-5, 20, 90, 30]):
        keypoints, scores = namespace["predict"](image, box)
        expected = predictor(image, [box])
        np.testing.assert_allclose(keypoints, expected.keypoints[0], atol=0.01)
        np.testing.assert_allclose(scores, expected.scores[0], rtol=1e-4)
    return True


@pytest.mark.parametrize("decodes", [True, False])
@pytest.mark.parametrize("target", ["gaussian", "udp", "rtm_simcc"])
def test_torchscript_matches_pytorch_for_any_number_of_crops(tmp_path, target, decodes):
    made = small(tmp_path, TARGET_TYPE=target, HEAD="simcc" if "simcc" in target else "heatmap")
    assert matches_pytorch(made, made.write(tmp_path, "torchscript", decodes))


def test_onnx_and_openvino_match_pytorch_for_any_number_of_crops(tmp_path):
    skip_without_graphs()
    made = small(tmp_path, TARGET_TYPE="udp")
    path = made.write(tmp_path, "onnx")
    assert matches_pytorch(made, path)
    assert example_of_the_guide_matches(made, path)
    assert b"stack_trace" not in path.read_bytes()  # no paths of the exporting machine
    description = Description.of(made.cfg, made.skeleton, decodes=True, dynamic_batch=True)
    files = openvino_content(openvino_model(path.read_bytes()), description)
    assert matches_pytorch(made, write_draft(path, files))


def test_onnx_without_decoding_is_decoded_by_the_backend(tmp_path):
    for package in ("onnx", "onnxscript", "onnxruntime"):
        pytest.importorskip(package)
    made = small(tmp_path)
    assert matches_pytorch(made, made.write(tmp_path, "onnx", decodes=False))


def test_a_file_without_dynamic_batch_accepts_several_crops(tmp_path):
    made = small(tmp_path)
    path = made.write(tmp_path, "torchscript", dynamic_batch=False)
    backend = build_backend(made.cfg, made.skeleton, path)
    crops = random_crops(made.cfg.MODEL.IMAGE_SIZE, 3)
    keypoints, scores = backend(crops)
    alone = [backend(one) for one in crops.split(1)]
    assert torch.equal(keypoints, torch.cat([coords for coords, _ in alone]))
    assert torch.equal(scores, torch.cat([score for _, score in alone]))


@pytest.mark.parametrize(
    ("decodes", "key", "value", "message"),
    [
        (True, "MODEL.IMAGE_SIZE", [96, 64], r"MODEL.IMAGE_SIZE \[64, 64\], .* has \[96, 64\]"),
        (True, "TEST.FLIP_TEST", False, "TEST.FLIP_TEST True, but the experiment has False"),
        (False, "TEST.FLIP_TEST", False, None),
        (False, "MODEL.TARGET_TYPE", "udp", "MODEL.TARGET_TYPE gaussian"),
    ],
)
def test_a_file_of_another_experiment_is_refused_with_the_difference(
    tmp_path, decodes, key, value, message
):
    made = small(tmp_path)
    path = made.write(tmp_path, "torchscript", decodes)
    cfg = made.cfg.clone()
    cfg.defrost()
    section, name = key.split(".")
    cfg[section][name] = value
    if message is None:
        build_backend(cfg, made.skeleton, path)
        return
    with pytest.raises(InputError, match=message):
        build_backend(cfg, made.skeleton, path)
