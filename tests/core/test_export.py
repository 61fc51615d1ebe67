"""Exported files: that each kind answers as PyTorch does, with decoding inside and without."""

import pytest
import torch

from lib.core.agreement import difference, random_crops
from lib.core.engines import build_engine
from lib.utils.errors import InputError
from tests.core.exports import small

PACKAGES = {
    "torchscript": (),
    "onnx": ("onnx", "onnxscript", "onnxruntime"),
    "openvino": ("onnx", "onnxscript", "openvino"),
}


def skip_without(kind: str) -> None:
    for package in PACKAGES[kind]:
        pytest.importorskip(package)


@pytest.mark.parametrize("kind", PACKAGES)
@pytest.mark.parametrize("target", ["gaussian", "udp"])
def test_a_file_with_decoding_answers_as_pytorch_for_any_number_of_crops(tmp_path, kind, target):
    skip_without(kind)
    made = small(tmp_path, TARGET_TYPE=target)
    engine = build_engine(made.cfg, made.skeleton, made.write(tmp_path, kind))
    crops = random_crops(made.cfg, 3)
    for number in (1, 3):
        places, scores = engine(crops[:number])
        assert places.shape == (number, 17, 2) and scores.shape == (number, 17)
        found = difference(engine, made.engine, crops[:number])
        assert found.steady > found.joints / 2
        assert found.steady_largest < 0.01 and found.scores < 1e-4


@pytest.mark.parametrize("kind", PACKAGES)
def test_a_file_without_decoding_is_decoded_by_the_engine(tmp_path, kind):
    skip_without(kind)
    made = small(tmp_path)
    engine = build_engine(made.cfg, made.skeleton, made.write(tmp_path, kind, decodes=False))
    found = difference(engine, made.engine, random_crops(made.cfg, 2))
    assert found.steady > 30 and found.steady_largest < 0.01 and found.scores < 1e-4


def test_a_file_for_single_crops_takes_several_one_after_another(tmp_path):
    made = small(tmp_path)
    path = made.write(tmp_path, "torchscript", is_single=True)
    engine = build_engine(made.cfg, made.skeleton, path)
    crops = random_crops(made.cfg, 3)
    places, scores = engine(crops)
    alone = [engine(one) for one in crops.split(1)]
    assert torch.equal(places, torch.cat([place for place, _ in alone]))
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
def test_a_file_of_another_experiment_is_refused_by_what_differs(
    tmp_path, decodes, key, value, message
):
    made = small(tmp_path)
    path = made.write(tmp_path, "torchscript", decodes)
    cfg = made.cfg.clone()
    cfg.defrost()
    section, name = key.split(".")
    cfg[section][name] = value
    if message is None:
        build_engine(cfg, made.skeleton, path)
        return
    with pytest.raises(InputError, match=message):
        build_engine(cfg, made.skeleton, path)
