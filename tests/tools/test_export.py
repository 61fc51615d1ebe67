"""Tests of tools/export.py."""

import pytest
import torch

from lib.config import load_config
from lib.core.inference import Predictor
from lib.deploy.export import DecodingNetwork
from lib.models import build_model
from tests.tools import runs


@pytest.fixture
def start(root):
    """Return the command's arguments without the format, with random weights."""
    yaml = runs.write(root)
    torch.manual_seed(0)
    weights = root.parent / "weights.pth"
    torch.save(build_model(load_config(yaml)).state_dict(), weights)
    return ["--cfg", yaml, "--weights", weights]


def test_the_file_is_checked_and_lies_beside_the_weights(command, start, root):
    ended = command("export", *start, "--to", "torchscript", "TEST.FLIP_TEST", "False")
    assert ended.code == 0, ended.err
    lines = ended.out.splitlines()
    assert [line.partition(":")[0] for line in lines[:4]] == [
        *("random, 1 crop", "random, 3 crops", "coco val2017, 1 crop", "coco val2017, 3 crops")
    ]
    assert all(": at most 0." in line for line in lines[:4])
    assert lines[4].startswith(f"=> {root.parent / 'weights.ts'}: ")
    assert "includes normalisation and decoding, dynamic batch" in lines[4]
    cfg = load_config(start[1], ["TEST.FLIP_TEST", "False"])
    image = str(root / "images" / "val2017" / "000000000001.jpg")
    assert len(Predictor(cfg, root.parent / "weights.ts", "cpu")(image)) == 1


def test_a_file_that_answers_otherwise_is_not_kept(command, tool, start, root, monkeypatch):
    module = tool("export")

    class Wrong(DecodingNetwork):
        def forward(self, crops):
            coords, scores = super().forward(crops)
            return coords + 1, scores

    monkeypatch.setattr("lib.deploy.export.DecodingNetwork", Wrong)
    ended = command(module, *start, "--to", "torchscript")
    assert ended.code == 1
    assert ended.err.splitlines()[-1].startswith("error: weights.ts: its output differs")
    assert not (root.parent / "weights.ts").exists()
    assert not runs.leftovers(root.parent)


def test_weights_become_a_float16_file_that_every_command_takes(command, start, root):
    ended = command("export", *start, "--to", "weights")
    assert ended.code == 0, ended
    path = root.parent / "weights_float16.pth"
    first, last = ended.out.splitlines()
    assert first.startswith("coco val2017: ") and "at most 0." in first
    assert last.startswith(f"=> {path}: ") and last.endswith("weights in float16")
    plain, half = (torch.load(file, weights_only=True) for file in (start[3], path))
    assert half.keys() == {key for key in plain if "num_batches_tracked" not in key}
    assert all(torch.equal(value, plain[key].half()) for key, value in half.items())
    ended = command("test", "--cfg", start[1], "TEST.MODEL_FILE", path)
    assert ended.code == 0, ended


def test_options_of_graphs_are_not_for_weights(command, start):
    ended = command("export", *start, "--to", "weights", "--raw")
    assert runs.is_one_line(ended, "--raw, --single")


def test_a_wrong_suffix_is_one_line(command, start, root):
    ended = command("export", *start, "--to", "onnx", "--out", root / "network.xml")
    assert runs.is_one_line(ended, "--out: must end in .onnx", "network.xml")
