"""Tests of tools/summary_network.py: its counts and output."""

import importlib
import json
import math
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml
from torch import nn

from lib.models import build_model
from tests.golden_files import golden_model
from tests.models.configs import hrnet_cfg, resnet_cfg, tiny_hrnet_cfg, tiny_light_cfg, with_head

TOOLS = Path(__file__).resolve().parents[2] / "tools"
pytestmark = pytest.mark.usefixtures("quick_shapes")


# Networks with counts in golden files: by mmcv's tool, and of all convolutions and matrix products.
MMCV = {
    "sr_head_resnet_50": ("pose_resnet", "sr"),
    "srpose_hrnet_w32": ("pose_hrnet", "srpose"),
    "srpose_resnet_50": ("pose_resnet", "srpose"),
    "srpose_hrformer_small": ("hrformer", "srpose"),
    "srpose_transpose_r_a4": ("transpose_r", "srpose"),
    "transpose_r_a4": ("transpose_r", "heatmap"),
    "hrformer_small": ("hrformer", "heatmap"),
}


@pytest.fixture
def tool(monkeypatch):
    monkeypatch.syspath_prepend(str(TOOLS))
    return importlib.import_module("summary_network")


@pytest.fixture
def experiment(tmp_path):
    """Return the YAML of a small network with an input of 64 x 96 (height x width)."""
    path = tmp_path / "tiny.yaml"
    content = yaml.safe_load(tiny_hrnet_cfg().dump())
    content["MODEL"]["IMAGE_SIZE"] = [96, 64]
    path.write_text(yaml.safe_dump(content))
    return path


@pytest.mark.parametrize(
    ("cfg", "published"),
    [
        (resnet_cfg(50), 8.9),
        (resnet_cfg(101), 12.4),
        (resnet_cfg(152), 15.7),
        (hrnet_cfg(32), 7.1),
        (hrnet_cfg(48), 14.6),
    ],
    ids=["res50", "res101", "res152", "w32", "w48"],
)
def test_counts_within_a_tenth_of_the_published_gflops(tool, cfg, published):
    with torch.device("meta"):
        summary = tool.summarize(build_model(cfg), 256, 192)
    assert summary["hrnet_gflops"] == pytest.approx(published, abs=0.1)


def summarized(tool, capsys, experiment: str) -> dict:
    path = TOOLS.parent / "experiments" / f"{experiment}.yaml"
    assert tool.main(["--cfg", str(path), "--json"]) == 0
    return json.loads(capsys.readouterr().out)


@pytest.mark.parametrize(
    ("experiment", "flops", "parameters"),
    [  # published code, counted by its own tool
        ("coco/lite_hrnet/litehrnet_18_256x192", 215_202_112, 1_130_769),
        ("coco/dite_hrnet/ditehrnet_18_256x192", 219_991_891, 1_186_933),
        ("mpii/wide_hrnet/widehrnet_18_256x256", 1_007_951_360, 2_685_624),
        ("coco/wide_hrnet/widehrnet_18_se_256x192", 765_003_520, 4_398_369),
    ],
)
def test_counts_to_the_last_digit_as_the_papers_of_the_family(
    tool, capsys, experiment, flops, parameters
):
    summary = summarized(tool, capsys, experiment)
    assert summary["counted_mflops"] * 2**20 == pytest.approx(flops, abs=0.5)
    assert summary["parameters"] == parameters


@pytest.mark.parametrize("family", ["lite", "dite"])
@pytest.mark.parametrize("size", ["coco 256x192", "coco 384x288", "mpii 256x256"])
@pytest.mark.parametrize("depth", [18, 30])
def test_counts_what_the_papers_tables_say(tool, capsys, family, size, depth):
    dataset, shape = size.split()
    experiment = f"{dataset}/{family}_hrnet/{family}hrnet_{depth}_{shape}"
    summary = summarized(tool, capsys, experiment)
    # The tables truncate or round the figures.
    assert summary["counted_mflops"] == pytest.approx(summary["published_mflops"], abs=0.1)
    millions = summary["parameters"] / 1e6
    assert millions == pytest.approx(summary["published_mparameters"], abs=0.1)


def test_says_where_a_published_figure_cannot_be_reproduced(tool, capsys):
    folder = TOOLS.parent / "experiments" / "coco" / "wide_hrnet"
    assert tool.main(["--cfg", str(folder / "widehrnet_18_se_256x192.yaml")]) == 0
    assert "published: 900M, which this count does not reproduce" in capsys.readouterr().out
    assert tool.main(["--cfg", str(folder / "widehrnet_18_se_384x288.yaml")]) == 0
    assert "published: 1600M\npublished parameters: 4.4M" in capsys.readouterr().out
    folder = TOOLS.parent / "experiments" / "mpii" / "lite_hrnet"
    for name, said in (("naive", "259.6M\n"), ("wider_naive", "418.7M, which this")):
        assert tool.main(["--cfg", str(folder / f"{name}_litehrnet_18_256x256.yaml")]) == 0
        assert f"published: {said}" in capsys.readouterr().out


@pytest.mark.parametrize("name", ["dite_hrnet", "lite_hrnet"])
def test_what_a_module_computes_itself_is_listed_too(tool, name):
    with torch.device("meta"):
        summary = tool.summarize(build_model(tiny_light_cfg(name)), 64, 96)
    layers = summary["layers"].values()
    for key in ("parameters", "macs", "activations"):
        assert summary[key] == sum(layer[key] for layer in layers), key
    if name == "dite_hrnet":
        assert summary["layers"]["stem.branch1.0.conv"]["macs"] > 0  # the dynamic convolution


@pytest.mark.parametrize(
    "cfg",
    [resnet_cfg(18), tiny_hrnet_cfg(), tiny_light_cfg("wide_hrnet")],
    ids=["resnet", "hrnet", "wide"],
)
def test_counts_what_the_layers_shapes_say(tool, cfg):
    with torch.device("meta"):
        network = build_model(cfg)
    by_hand = {}

    def count(module, args, output):
        # A deconvolution applies its kernel per input pixel, a convolution per output pixel.
        pixels = args[0] if isinstance(module, nn.ConvTranspose2d) else output
        by_hand[module] = module.weight.numel() * math.prod(pixels.shape[2:])

    handles = [
        module.register_forward_hook(count)
        for module in network.modules()
        if isinstance(module, (nn.Conv2d, nn.ConvTranspose2d))
    ]
    summary = tool.summarize(network, 64, 96)
    for handle in handles:
        handle.remove()
    assert summary["macs"] == sum(by_hand.values())
    modules = summary["modules"].values()
    assert summary["macs"] == sum(module["macs"] for module in modules)
    assert summary["parameters"] == sum(module["parameters"] for module in modules)
    layers = summary["layers"].values()
    for key in ("parameters", "macs", "activations"):
        assert summary[key] == sum(layer[key] for layer in layers), key


def test_json_follows_shape_and_options(tool, experiment, capsys):
    arguments = ["--cfg", str(experiment), "--json"]
    assert tool.main(arguments) == 0
    summary = json.loads(capsys.readouterr().out)
    assert summary["shape"] == [64, 96]
    assert tool.main([*arguments, "--shape", "128", "96", "MODEL.NUM_JOINTS", "7"]) == 0
    larger = json.loads(capsys.readouterr().out)
    assert larger["shape"] == [128, 96]
    assert larger["parameters"] - summary["parameters"] == 2 * (4 + 1)
    assert larger["modules"]["conv1"]["macs"] == 2 * summary["modules"]["conv1"]["macs"]


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
        (["--shape", "100", "96"], "MODEL.IMAGE_SIZE must be multiples of 32"),
        (["MODEL.NAME", "pose_hernet"], "pose_hernet"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_1(tool, experiment, capsys, options, message):
    assert tool.main(["--cfg", str(experiment), *options]) == 1
    output = capsys.readouterr()
    assert message in output.err
    assert output.err.count("\n") == 1
    assert output.out == ""


@pytest.mark.parametrize("name", MMCV)
def test_counts_what_mmcvs_tool_and_a_whole_count_give(tool, name):
    meta = golden_model(name).meta
    with torch.device("meta"):
        summary = tool.summarize(build_model(with_head(*MMCV[name])), 256, 192)
    assert round(summary["counted_mflops"] * 1e6) == meta["flops"]
    assert summary["macs"] == meta["macs_conv_matmul"]
    assert "mmcv" in summary["counted_convention"]
    for rows in (summary["modules"], summary["layers"]):
        assert sum(row["macs"] for row in rows.values()) == summary["macs"]
        assert all(row["macs"] >= 0 for row in rows.values())


# GFLOPs and millions of parameters of SRPose's table: backbone and head.
BOTTOM_UP = {
    "res50_512x512": (29.20, 34.00),
    "res50_sr_512x512": (30.86, 34.11),
    "w32_512x512": (41.10, 28.54),
    "w32_sr_512x512": (42.57, 28.63),
}


@pytest.mark.parametrize("name", BOTTOM_UP)
def test_bottom_up_networks_cost_what_srposes_table_says(tool, capsys, name):
    path = TOOLS.parent / "experiments" / "coco" / "bottom_up" / f"{name}.yaml"
    assert tool.main(["--cfg", str(path), "--json"]) == 0
    summary = json.loads(capsys.readouterr().out)
    found = (summary["counted_mflops"] / 1e3, summary["parameters"] / 1e6)
    assert [round(value, 2) for value in found] == list(BOTTOM_UP[name])
