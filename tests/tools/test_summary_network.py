"""Tests of tools/summary_network.py: its options and output. Counts: tests/models/test_costs.py."""

import csv
import json
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from tests.models.configs import tiny_hrnet_cfg
from tests.tools.runs import is_one_line

TOOLS = Path(__file__).resolve().parents[2] / "tools"
COCO = TOOLS.parent / "experiments" / "coco"
pytestmark = pytest.mark.usefixtures("quick_shapes")


@pytest.fixture
def run(succeed):
    """Run the tool: run(file, options ...) returns its output without line breaks."""
    return lambda *words: " ".join(succeed("summary_network", *words).out.split())


@pytest.fixture
def experiment(tmp_path):
    """Return the YAML of a small network with an input of 64 x 96 (height x width)."""
    path = tmp_path / "tiny.yaml"
    content = yaml.safe_load(tiny_hrnet_cfg().dump())
    content["MODEL"]["IMAGE_SIZE"] = [96, 64]
    path.write_text(yaml.safe_dump(content))
    return path


def test_published_figures_are_printed_beside_counts_by_the_same_convention(run):
    output = run(COCO / "resnet" / "res50_256x192_d256x3_adam_lr1e-3.yaml")
    for source, published, counted in (
        ("leoxiaobin/deep-high-resolution-net.pytorch", "34.0M parameters, 8.9G", "8.99G"),
        ("haonanwang0522/SRPose", "34.00M parameters, 5.46G", "5.46G"),
    ):
        expected = f"Published in {source}: {published} FLOPs. Counted here in the same way: "
        assert f"{expected}34.00M parameters, {counted} FLOPs." in output
    assert "HRNet's convention" in output and "mmcv's tool" in output
    assert "Reason for the difference" not in output


def test_the_reason_for_a_different_figure_is_printed(run):
    file = COCO / "resnet" / "res50_384x288_d256x3_adam_lr1e-3.yaml"
    assert "20.23G FLOPs. Reason for the difference: the published figure is 2.25" in run(file)
    assert "Published" in run(file, "--shape", 384, 288)
    assert "Published" not in run(file, "--shape", 384)
    assert "Published" not in run(file, "MODEL.NUM_JOINTS", 16)
    (entry,) = json.loads(run(file, "--json"))["published"]
    assert (entry["flops"], entry["counted_flops"], entry["agrees"]) == ("20.0G", "20.23G", False)


def test_layers_used_only_in_training_are_named(run):
    output = run(COCO / "srpose" / "res50_256x192.yaml")
    assert "only in training: head.kp_encoder.0, head.kp_encoder.1, head.kp_encoder.2," in output
    assert "head.converge.2 (317,696 parameters)." in output
    assert "24.80M parameters, 4.61G FLOPs. Counted here in the same way: 24.80M" in output


def test_json_reflects_shape_and_settings(run, experiment):
    summary = json.loads(run(experiment, "--json"))
    assert summary["shape"] == [64, 96] and summary["published"] == []
    larger = json.loads(run(experiment, "--json", "--shape", 128, 96, "MODEL.NUM_JOINTS", 7))
    assert larger["shape"] == [128, 96]
    assert larger["parameters"] - summary["parameters"] == 2 * (4 + 1)
    assert larger["modules"]["conv1"]["macs"] == 2 * summary["modules"]["conv1"]["macs"]
    assert json.loads(run(experiment, "--shape", 128, "--json"))["shape"] == [128, 128]


def test_out_file_has_every_layer_and_the_total(run, experiment, tmp_path):
    summary = json.loads(run(experiment, "--json", "--out-file", tmp_path / "new" / "layers"))
    text = (tmp_path / "new" / "layers.csv").read_text(encoding="utf-8")
    *layers, total = csv.DictReader(text.splitlines())
    assert [row["layer"] for row in layers] == list(summary["layers"])
    assert layers[0] == {
        **{"layer": "conv1", "type": "Conv2d", "parameters": "1728", "activations": "98304"},
        **{"input": "1 x 3 x 64 x 96", "output": "1 x 64 x 32 x 48"},
        **{"macs": "2654208", "flops": "2654208", "memory_mib": "0.3816"},
    }
    for key in ("parameters", "macs", "flops", "activations"):
        assert sum(int(row[key]) for row in layers) == int(total[key]) == summary[key]
    page = (tmp_path / "new" / "layers.html").read_text(encoding="utf-8")
    assert page.count("<tr>") == len(layers) + 2
    assert "<td>conv1</td><td>Conv2d</td>" in page and "HRNet&#x27;s convention" in page


def test_the_command_prints_a_table_with_its_convention(experiment, tmp_path):
    command = [sys.executable, str(TOOLS / "summary_network.py"), "--cfg", str(experiment)]
    result = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert "64 x 96" in result.stdout
    assert "stage4" in result.stdout
    assert "multiply-accumulates" in result.stdout


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["MODEL.EXTRA.STAGE2.BLOCK", "BASIS"], "MODEL.EXTRA.STAGE2.BLOCK"),
        (["--shape", "0", "96"], "--shape"),
        (["--shape", "96", "96", "96"], "one number for a square, not 96 96 96"),
        (["--shape", "96x64"], "one number for a square, not 96x64"),
        (["--shape", "100", "96"], "MODEL.IMAGE_SIZE must be multiples of 32"),
        (["--out-file", "/dev/null/x"], "/dev/null/x.csv: cannot write"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_1(command, experiment, options, message):
    ended = command("summary_network", "--cfg", experiment, *options)
    assert is_one_line(ended, message) and ended.out == ""


def test_the_experiment_may_be_the_last_argument_but_not_given_twice(run, command):
    path = COCO.parent / "figures" / "hrnet" / "quickstart.yaml"
    assert "input 64 x 32" in run("--shape", "64", "32", path)
    assert is_one_line(command("summary_network", path, "--cfg", path), "twice")
