"""Tests of tools/export.py."""

import pytest
import torch

from lib.config import load_config
from lib.core.inference import Predictor
from lib.deploy.export import DecodingNetwork
from tests.tools.runs import is_one_line, leftovers, random_weights, torch_load, write


@pytest.fixture
def start(root):
    """Return the command's arguments without the format, with random weights."""
    return ["--cfg", write(root), "--weights", random_weights(root)]


def test_the_file_is_checked_and_written_next_to_the_weights(succeed, start, root):
    ended = succeed("export", *start, "--to", "torchscript", "TEST.FLIP_TEST", "False")
    lines = ended.out.splitlines()
    assert [line.partition(":")[0] for line in lines[:4]] == [
        *("random, 1 crop", "random, 3 crops", "coco val2017, 1 crop", "coco val2017, 3 crops")
    ]
    assert all(": keypoints differ by at most 0." in line for line in lines[:4])
    assert lines[4].startswith(f"=> {root.parent / 'random.ts'}: ")
    assert "includes normalisation and decoding, dynamic batch" in lines[4]
    cfg = load_config(start[1], ["TEST.FLIP_TEST", "False"])
    image = str(root / "images" / "val2017" / "000000000001.jpg")
    assert len(Predictor(cfg, root.parent / "random.ts", "cpu")(image)) == 1


def test_a_file_with_different_output_is_not_written(command, tool, start, root, monkeypatch):
    module = tool("export")

    class Wrong(DecodingNetwork):
        def forward(self, crops):
            coords, scores = super().forward(crops)
            return coords + 1, scores

    monkeypatch.setattr("lib.deploy.export.DecodingNetwork", Wrong)
    ended = command(module, *start, "--to", "torchscript")
    assert ended.code == 1
    assert ended.err.splitlines()[-1].startswith("error: random.ts: its output differs")
    assert not (root.parent / "random.ts").exists()
    assert not leftovers(root.parent)


def test_weights_are_exported_in_float16_and_can_be_tested(succeed, start, root):
    ended = succeed("export", *start, "--to", "weights")
    path = root.parent / "random_float16.pth"
    first, last = ended.out.splitlines()
    assert first.startswith("coco val2017: ") and "at most 0." in first
    assert last.startswith(f"=> {path}: ") and last.endswith("weights in float16")
    plain, half = (torch_load(file) for file in (start[3], path))
    assert half.keys() == {key for key in plain if "num_batches_tracked" not in key}
    assert all(torch.equal(value, plain[key].half()) for key, value in half.items())
    ended = succeed("test", "--cfg", start[1], "TEST.MODEL_FILE", path)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["weights", "--raw"], "--raw, --single"),
        (["onnx", "--out", "network.xml"], "--out: must end in .onnx for --to onnx: network.xml"),
    ],
)
def test_invalid_options_are_one_line_errors(command, start, options, message):
    assert is_one_line(command("export", *start, "--to", *options), message)
