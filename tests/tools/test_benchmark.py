"""tools/benchmark.py: that it runs, that both ways answer alike, and what it prints; never how
fast."""

import importlib
import json
import re
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
import yaml

from lib.config import load_config
from lib.core.codecs import build_codec
from lib.dataset.skeletons import COCO
from lib.models import build_model
from tests.models.configs import hrnet_cfg, tiny_light_cfg

TOOLS = Path(__file__).resolve().parents[2] / "tools"
DATA = ["data", "--count", "3", "--people", "3", "--batch", "4", "--repeats", "1"]
NMS = ["nms", "--detections", "300", "--images", "20", "--boxes", "60", "--repeats", "1"]
LOAD = ["load", "--annotations", "90", "--used", "50", "--images", "30", "--repeats", "1"]


@pytest.fixture
def tool(monkeypatch):
    monkeypatch.syspath_prepend(str(TOOLS))
    return importlib.import_module("benchmark")


@pytest.mark.parametrize(
    ("arguments", "compared", "rows"),
    [
        (DATA, ["training sample", "box in a test", "post-processing"], 6),
        (NMS, ["OKS-NMS, NumPy", "soft OKS-NMS, NumPy", "box NMS of 60, NumPy"], None),
        (LOAD, ["building the data set"], 5),
    ],
    ids=["data", "nms", "load"],
)
def test_json_has_every_comparison_and_both_ways_answer_alike(
    tool, capsys, arguments, compared, rows
):
    assert tool.main([*arguments, "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["what"] == arguments[0]
    assert "1 thread" in report["machine"]
    assert rows is None or len(report["rows"]) == rows
    for name in compared:
        row = next(row for row in report["rows"] if row["what"].startswith(name))
        assert row["agree"] is True
        assert row["plain"] > 0
        assert row["ratio"] == pytest.approx(row["ours"] / row["plain"])


@pytest.fixture
def experiment(tmp_path) -> Path:
    path = tmp_path / "tiny.yaml"
    content = yaml.safe_load(tiny_light_cfg("lite_hrnet").dump())
    content["MODEL"] |= {"IMAGE_SIZE": [64, 64], "HEATMAP_SIZE": [16, 16]}
    path.write_text(yaml.safe_dump(content))
    return path


def test_a_networks_forms_answer_alike(tool, capsys, experiment):
    arguments = ["forward", "--cfg", str(experiment), "--batch", "1", "3", "--repeats", "1"]
    assert tool.main([*arguments, "--forms", "folded", "plain", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)["rows"]
    forms = ("plain", "folded", "decoding")
    names = [f"{form}, batch of {batch}" for form in forms for batch in (1, 3)]
    assert [row["what"] for row in rows] == names
    assert [row["agree"] for row in rows] == [True] * 4 + [None] * 2  # nothing to hold decoding to
    assert all(row["ratio"] == 1 for row in rows[:2])
    settings = ["MODEL.NUM_JOINTS", "3"]
    assert tool.main([arguments[0], *settings, *arguments[1:], "--forms", "folded"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines[-5:]] == [
        "form",
        "plain",
        "folded",
        *["decoding"] * 2,
    ]
    assert re.fullmatch(r"decoding a batch of 3: [\d.]+ ms, [\d.]+% of the plain .*", lines[-1])


@pytest.mark.parametrize("head", ["simcc", "srpose"])
def test_forms_of_networks_with_several_outputs_answer_alike(tool, capsys, tmp_path, head):
    path = tmp_path / "tiny.yaml"
    content = yaml.safe_load(hrnet_cfg(4, 5, modules=(1, 1, 1), blocks=1).dump())
    kind = {"simcc": "simcc", "srpose": "full"}[head]
    size = {"IMAGE_SIZE": [64, 64], "HEATMAP_SIZE": [64, 64]}
    content["MODEL"] |= {"HEAD": head, "TARGET_TYPE": kind, **size}
    path.write_text(yaml.safe_dump(content))
    arguments = ["forward", "--cfg", str(path), "--batch", "2", "--repeats", "1", "--json"]
    packages = ("onnx", "onnxscript", "onnxruntime", "openvino")
    graphs = all(importlib.util.find_spec(name) for name in packages)
    forms = ["folded", *(["onnxruntime", "openvino"] if graphs and head == "simcc" else [])]
    assert tool.main([*arguments, "--forms", *forms]) == 0
    rows = json.loads(capsys.readouterr().out)["rows"]
    # plain, the forms, and decoding, which has nothing to agree with
    assert [row["agree"] for row in rows] == [True, *[True] * len(forms), None]


def test_random_weights_show_what_a_form_gets_wrong(tool):
    forward = importlib.import_module("_forward")
    torch.manual_seed(0)
    cfg = tiny_light_cfg("dite_hrnet", NUM_MODULES=[1, 1, 1], NUM_BLOCKS=1)
    network = build_model(cfg).eval()
    images = torch.randn(2, 3, 64, 96)
    forward.enliven(network, images)
    with torch.inference_mode():
        expected = network(images)
        gates = [module for module in network.modules() if getattr(module, "is_gate", False)]
        seen = 0
        for gate in gates:
            weight = gate.weight.clone()
            gate.weight.zero_()
            seen += forward.distance(network(images), expected) > forward.TOLERANCE
            gate.weight.copy_(weight)
        assert torch.equal(network(images), expected)
    # The last masks compute nothing, and a hidden layer of one unit may be silent.
    assert seen > 0.8 * len(gates)


def test_forms_whose_packages_are_missing_are_left_out(tool, capsys, experiment, monkeypatch):
    monkeypatch.setattr("_forward.GRAPH", ("no_such_package",))
    arguments = ["forward", "--cfg", str(experiment), "--batch", "1", "--repeats", "1", "--json"]
    assert tool.main([*arguments, "--forms", "onnxruntime", "openvino-bf16"]) == 0
    output = capsys.readouterr()
    for form in ("onnxruntime", "openvino-bf16"):
        assert f"{form} is left out; it needs: pip install no_such_package" in output.err
    names = [row["what"] for row in json.loads(output.out)["rows"]]
    assert names == ["plain, batch of 1", "decoding, batch of 1"]


def test_every_engine_that_can_run_is_timed_from_image_to_keypoints(
    tool, capsys, experiment, monkeypatch
):
    def missing(*_):
        raise tool.InputError("exporting: needs a package that is not here")

    monkeypatch.setattr("lib.core.export.onnx_graph", missing)
    arguments = ["predict", "--cfg", str(experiment), "--repeats", "1", "--people", "2"]
    settings = ["DATASET.DATASET", "coco", "MODEL.NUM_JOINTS", "17"]
    assert tool.main([arguments[0], *settings, *arguments[1:], "--json"]) == 0
    output = capsys.readouterr()
    assert output.err.startswith("the rest is left out: exporting: needs a package")
    rows = json.loads(output.out)["rows"]
    assert len(rows) == 3
    assert [row["agree"] for row in rows] == [True] * 3
    assert all(row["ours"] > 0 and row["plain"] == rows[0]["ours"] for row in rows)


def test_the_command_prints_a_table_from_any_folder(tmp_path):
    command = [sys.executable, str(TOOLS / "benchmark.py"), *NMS]
    result = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    title, machine, *_ = result.stdout.splitlines()
    assert "300 people in 20 images" in title
    assert "OpenCV" in machine
    lines = [line for line in result.stdout.splitlines() if "OKS-NMS, NumPy" in line]
    assert len(lines) == 2
    assert all(" ms " in line and line.endswith("agree") for line in lines)


def test_data_takes_images_from_a_folder(tool, tmp_path, capsys):
    rng = np.random.default_rng(0)
    for number, shape in enumerate([(120, 200, 3), (200, 90, 3)]):
        cv2.imwrite(str(tmp_path / f"{number}.jpg"), rng.integers(0, 256, shape, np.uint8))
    assert tool.main([*DATA, "--images", str(tmp_path)]) == 0
    assert "DIFFER" not in capsys.readouterr().out


def test_a_different_answer_is_printed_and_exit_code_1(tool, capsys, monkeypatch):
    plain = importlib.import_module("_plain").oks_nms
    monkeypatch.setattr("_plain.oks_nms", lambda *given: plain(*given)[1:])
    assert tool.main(NMS) == 1
    lines = capsys.readouterr().out.splitlines()
    assert all(line.endswith("DIFFER") for line in lines if "OKS-NMS" in line)
    assert any(line.endswith("agree") for line in lines if "box NMS" in line)


def test_every_way_to_differ_is_noticed_in_samples(tool):
    data = importlib.import_module("_data")
    photo = torch.zeros(2, 3, 8, 8)
    target = build_codec(load_config(str(data.EXPERIMENT)), COCO).encode(
        torch.full((2, 17, 2), 90.0), torch.ones(2, 17)
    )
    plain = [(photo[n], target.heatmaps[n], target.weight[n][:, None]) for n in range(2)]
    assert data.alike_samples((photo, target), plain)
    assert not data.alike_samples((photo + 0.1, target), plain)
    assert not data.alike_samples((photo, target._replace(heatmaps=target.heatmaps * 0.9)), plain)
    assert not data.alike_samples((photo, target._replace(weight=target.weight * 0)), plain)


def test_made_up_annotations_have_as_many_people_as_asked(tool, tmp_path):
    path = tmp_path / "people.json"
    made_up = importlib.import_module("_made_up")
    made_up.write_annotations(path, images=7, annotations=40, used=25, polygon=8)
    content = json.loads(path.read_bytes())
    assert len(content["images"]) == 7
    assert len(content["annotations"]) == 40
    assert sum(a["num_keypoints"] > 0 for a in content["annotations"]) == 25
    assert {len(a["segmentation"][0]) for a in content["annotations"]} == {8}


def test_bad_input_is_one_line_and_exit_code_1(tool, tmp_path, capsys):
    assert tool.main(["data", "--images", str(tmp_path)]) == 1
    output = capsys.readouterr()
    assert str(tmp_path) in output.err
    assert output.err.count("\n") == 1
    assert output.out == ""


def test_threads_are_as_before_afterwards(tool, capsys):
    before = torch.get_num_threads(), cv2.getNumThreads()
    tool.main(NMS)
    assert (torch.get_num_threads(), cv2.getNumThreads()) == before
