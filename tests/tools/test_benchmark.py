"""Tests of tools/benchmark.py: its output and the agreement of results, but no speeds."""

import importlib
import re

import pytest
import torch
import yaml

from lib.models import build_model
from lib.nms import backend, gpu
from lib.utils.errors import InputError
from tests import tiny
from tests.deploy.exports import graphs_run
from tests.models.configs import hrnet_cfg, tiny_light_cfg
from tests.tools.conftest import TOOLS
from tests.tools.runs import is_one_line

NMS = {"detections": 300, "images": 20, "boxes": 60, "repeats": 1}
NMS_ROWS = ["OKS-NMS, 300 people", "soft OKS-NMS, 300 people", "box NMS, 60 boxes"]
if gpu.is_available():
    NMS_ROWS.append("box NMS, 60 boxes, CUDA")


@pytest.fixture
def benchmark(monkeypatch):
    """Load a benchmark: benchmark('nms') is the module tools/benchmarks/nms.py."""
    monkeypatch.syspath_prepend(str(TOOLS))
    return lambda name: importlib.import_module(f"benchmarks.{name}")


@pytest.mark.parametrize(
    ("name", "sizes", "rows"),
    [
        (
            "data",
            {"images": 3, "people": 3, "batch": 4, "repeats": 1},
            ["training sample", "box in a test with 3 boxes per image", "post-processing"],
        ),
        ("nms", NMS, NMS_ROWS),
        (
            "load",
            {"images": 30, "annotations": 90, "people": 50, "repeats": 1},
            ["annotations of 50 people: time", "annotations of 50 people: peak memory"],
        ),
    ],
)
def test_every_row_has_a_value_and_agrees_with_its_reference(benchmark, name, sizes, rows):
    found = benchmark(name).run(**sizes)
    assert len(found) == len(rows)
    for row, expected in zip(found, rows, strict=True):
        assert row.name.startswith(expected)
        assert row.agrees and row.value > 0
        assert row.reference or (name == "nms" and backend.compiled is None)


@pytest.mark.skipif(backend.compiled is None, reason="the compiled NMS is not built")
def test_a_different_result_is_printed_and_exit_code_1(benchmark, command, monkeypatch):
    nms = benchmark("nms")
    box_nms = nms.box_nms
    monkeypatch.setattr(nms, "box_nms", lambda *given: box_nms(*given)[backend.compiled is None :])
    rows = nms.run(**NMS)
    monkeypatch.setattr(nms, "run", lambda: rows)
    ended = command("benchmark", "nms")
    assert ended.code == 1
    lines = ended.out.splitlines()
    assert "OpenCV" in lines[0] and "threads: 1" in lines[0]
    assert [line.endswith("DIFFERS") for line in lines[3:6]] == [False, False, True]


@pytest.fixture
def experiment(tmp_path):
    path = tmp_path / "tiny.yaml"
    content = yaml.safe_load(tiny_light_cfg("lite_hrnet").dump())
    content["MODEL"] |= {"IMAGE_SIZE": [64, 64], "HEATMAP_SIZE": [16, 16]}
    path.write_text(yaml.safe_dump(content))
    return path


def names(table: str, after: str) -> list[str]:
    """Return the row names of the table below the line that ends in ``after``."""
    lines = table.splitlines()
    start = next(i for i, line in enumerate(lines) if line.endswith(after))
    return [line.split("  ")[0] for line in lines[start + 1 :]]


def test_variants_of_a_network_agree(succeed, experiment):
    arguments = ["--cfg", experiment, "--batch", "1", "3", "--repeats", "1"]
    ended = succeed("benchmark", "forward", *arguments, "--variants", "folded", "plain")
    assert names(ended.out, "ratio") == [
        f"{variant}, batch of {batch}" for batch in (1, 3) for variant in ("plain", "folded")
    ]
    ended = succeed(
        "benchmark", "forward", "MODEL.NUM_JOINTS", "3", *arguments, "--variants", "folded"
    )
    assert "DIFFERS" not in ended.out


@pytest.mark.parametrize("head", ["simcc", "srpose"])
def test_variants_of_networks_with_several_outputs_agree(succeed, tmp_path, head):
    path = tmp_path / "tiny.yaml"
    content = yaml.safe_load(hrnet_cfg(4, 5, modules=(1, 1, 1), blocks=1).dump())
    kind = {"simcc": "simcc", "srpose": "full"}[head]
    size = {"IMAGE_SIZE": [64, 64], "HEATMAP_SIZE": [64, 64]}
    content["MODEL"] |= {"HEAD": head, "TARGET_TYPE": kind, **size}
    path.write_text(yaml.safe_dump(content))
    variants = [
        "folded",
        *(["onnxruntime", "openvino"] if graphs_run() and head == "simcc" else []),
    ]
    arguments = ["--cfg", path, "--batch", "2", "--repeats", "1", "--variants", *variants]
    ended = succeed("benchmark", "forward", *arguments)
    assert len(names(ended.out, "ratio")) == 1 + len(variants)


def test_random_weights_reveal_a_layer_without_effect(benchmark):
    forward = benchmark("forward")
    torch.manual_seed(0)
    cfg = tiny_light_cfg("dite_hrnet", NUM_MODULES=[1, 1, 1], NUM_BLOCKS=1)
    network = build_model(cfg).eval()
    images = torch.randn(2, 3, 64, 96)
    forward.randomize(network, images)
    with torch.inference_mode():
        expected = network(images)
        gates = [module for module in network.modules() if getattr(module, "is_gate", False)]
        seen = 0
        for gate in gates:
            weight = gate.weight.clone()
            gate.weight.zero_()
            seen += forward.difference(network(images), expected) > forward.TOLERANCE["cpu"]
            gate.weight.copy_(weight)
        assert torch.equal(network(images), expected)
    # The last gates do not affect the output, and a hidden layer of one unit may be inactive.
    assert seen > 0.8 * len(gates)


def missing(*_):
    raise InputError("exporting: requires a package that is not here")


def test_variants_whose_packages_are_missing_are_skipped(
    benchmark, succeed, experiment, monkeypatch
):
    monkeypatch.setattr(benchmark("forward"), "onnx_graph", missing)
    arguments = ["--cfg", experiment, "--batch", "1", "--repeats", "1"]
    ended = succeed("benchmark", "forward", *arguments, "--variants", "onnxruntime", "openvino")
    for variant in ("onnxruntime", "openvino"):
        assert f"{variant} is skipped: exporting: requires a package" in ended.err
    assert names(ended.out, "ratio") == ["plain, batch of 1"]


def test_every_backend_that_can_run_is_timed_from_image_to_keypoints(
    benchmark, succeed, experiment, monkeypatch
):
    monkeypatch.setattr(benchmark("predict"), "PEOPLE", 2)
    monkeypatch.setattr("lib.deploy.export.onnx_graph", missing)
    settings = ["DATASET.DATASET", "coco", "MODEL.NUM_JOINTS", "17"]
    ended = succeed("benchmark", "predict", *settings, "--cfg", experiment, "--repeats", "1")
    assert "onnx is skipped: exporting: requires a package" in ended.err
    assert names(ended.out, "ratio") == ["PyTorch, plain", "PyTorch, folded", "torchscript"]


@pytest.mark.parametrize("recipe", ["train", "test", "infer"])
def test_results_agree_with_the_plain_recipe(
    benchmark, succeed, command, experiment, monkeypatch, recipe
):
    monkeypatch.setattr(benchmark("recipes"), "matmul_flops", lambda *_: 1e9)
    monkeypatch.setattr(benchmark("infer"), "PEOPLE", 2)
    settings = ["DATASET.DATASET", "coco", "MODEL.NUM_JOINTS", "17", "TEST.FLIP_TEST", "True"]
    settings += ["TRAIN.BATCH_SIZE_PER_GPU", "2", "WORKERS", "0"]
    options = ["--cfg", experiment, "--count", "2", "--repeats", "2"]
    ended = succeed("benchmark", recipe, *settings, *options)
    assert [name.split(", ")[-1] for name in names(ended.out, "ratio")] == ["plain", "ours"]
    for line in ended.out.splitlines()[-2:]:
        assert re.search(r"images/s, \d+% waiting for data, \d+ MiB, \d+% of peak$", line)
    ended = command("benchmark", recipe, *settings, *options[:-1], "1")
    assert is_one_line(ended, "--repeats: must be 2 or more")


def test_bad_input_is_one_line_and_exit_code_1(command, experiment, tmp_path):
    ended = command("benchmark", "forward", "--cfg", experiment, "--repeats", "0")
    assert is_one_line(ended, "--batch, --repeats: must be 1 or more")
    scenes = tiny.scenes(tmp_path / "scenes.yaml", tmp_path)
    assert is_one_line(command("benchmark", "predict", "--cfg", scenes), "is a bottom-up network")
