"""Costs of networks: counts that match published tools, and sums over layers."""

import math

import pytest
import torch
from torch import nn

from lib.config import load_config
from lib.models import build_model
from lib.models.costs import count_flops, record_calls, summarize, training_layers
from lib.models.network import PoseNetwork
from lib.utils.zoo import ROOT
from tests.golden_files import golden_model
from tests.models.configs import resnet_cfg, tiny, tiny_hrnet_cfg, tiny_light_cfg, with_head

pytestmark = pytest.mark.usefixtures("quick_shapes")

# Networks with counts in golden files: by mmcv's tool, and of all convolutions and matrix products.
MMCV = {
    "sr_head_resnet_50": ("pose_resnet", "sr"),
    "srpose_hrnet_w32": ("pose_hrnet", "srpose"),
    "srpose_resnet_50": ("pose_resnet", "srpose"),
    "srpose_hrformer_small": ("hrformer", "srpose"),
    "srpose_transpose_r_a4": ("transpose_r", "srpose"),
    "transpose_r_a4": ("transpose_r", "heatmap"),
}


def on_meta(cfg) -> PoseNetwork:
    with torch.device("meta"):
        return build_model(cfg).eval()


@pytest.mark.parametrize("name", MMCV)
def test_counts_match_mmcvs_tool_and_the_published_operations(name):
    meta, network = golden_model(name).meta, on_meta(with_head(*MMCV[name]))
    calls = record_calls(network, torch.zeros(1, 3, 256, 192, device="meta"))
    assert sum(count_flops(calls, "mmcv").values()) == meta["flops"]
    summary = summarize(network, 256, 192)
    assert summary["macs"] == meta["macs_conv_matmul"]
    assert summary["parameters"] + sum(summary["training_only"].values()) == meta["params"]
    for rows in (summary["modules"], summary["layers"]):
        assert sum(row["macs"] for row in rows.values()) == summary["macs"]
        assert all(row["macs"] >= 0 for row in rows.values())


@pytest.mark.parametrize(
    ("experiment", "flops", "parameters"),
    [  # published code, counted by its own tool
        ("coco/lite_hrnet/litehrnet_18_256x192", 215_202_112, 1_130_769),
        ("coco/dite_hrnet/ditehrnet_18_256x192", 219_991_891, 1_186_933),
        ("mpii/wide_hrnet/widehrnet_18_256x256", 1_007_951_360, 2_685_624),
        ("coco/wide_hrnet/widehrnet_18_se_256x192", 765_003_520, 4_398_369),
    ],
)
def test_lightweight_networks_have_exactly_the_published_flops(experiment, flops, parameters):
    cfg = load_config(ROOT / "experiments" / f"{experiment}.yaml")
    width, height = cfg.MODEL.IMAGE_SIZE
    network = on_meta(cfg)
    calls = record_calls(network, torch.zeros(1, 3, height, width, device="meta"))
    assert sum(count_flops(calls, "lightweight").values()) == flops
    assert sum(p.numel() for p in network.parameters()) == parameters


def test_layers_called_only_in_training_are_left_out():
    network = on_meta(tiny("pose_hrnet", "srpose"))
    image = torch.zeros(1, 3, 96, 64, device="meta")
    used = {call.name for call in record_calls(network, image)}
    network.head.training = True  # batch norms stay in evaluation mode
    added = {call.name for call in record_calls(network, image)} - used
    layers = training_layers(network)
    assert added == {
        f"{name}.{child}".rstrip(".")
        for name, layer in layers.items()
        for child, _ in layer.named_modules()
    }
    left_out = sum(p.numel() for layer in layers.values() for p in layer.parameters())
    summary = summarize(network, 96, 64)
    assert sum(p.numel() for p in network.parameters()) == summary["parameters"] + left_out
    assert sum(summary["training_only"].values()) == left_out


@pytest.mark.parametrize(
    "cfg",
    [
        tiny_light_cfg("dite_hrnet"),
        tiny_light_cfg("lite_hrnet"),
        tiny("transpose_h", "heatmap"),
        tiny("hrformer", "srpose"),
    ],
    ids=["dite", "lite", "transpose_h", "hrformer"],
)
def test_layers_include_what_a_module_computes_outside_its_children(cfg):
    summary = summarize(on_meta(cfg), 96, 64)
    for key in ("parameters", "macs", "activations", "flops"):
        layers = sum(layer.get(key, 0) for layer in summary["layers"].values())
        own = 0 if key != "parameters" or "transpose" not in cfg.MODEL.NAME else 24 * 16 * 16
        assert summary[key] == layers + own, key  # TransPose's own: the position embedding
    if cfg.MODEL.NAME == "dite_hrnet":  # the dynamic convolution
        assert summary["layers"]["stem.branch1.0.conv"]["macs"] > 0


@pytest.mark.parametrize(
    "cfg",
    [resnet_cfg(18), tiny_hrnet_cfg(), tiny_light_cfg("wide_hrnet")],
    ids=["resnet", "hrnet", "wide"],
)
def test_macs_match_a_count_from_shapes(cfg):
    network, by_hand = on_meta(cfg), {}

    def count(module, args, output):
        # A deconvolution applies its kernel per input pixel, a convolution per output pixel.
        pixels = args[0] if isinstance(module, nn.ConvTranspose2d) else output
        by_hand[module] = module.weight.numel() * math.prod(pixels.shape[2:])

    handles = [
        module.register_forward_hook(count)
        for module in network.modules()
        if isinstance(module, (nn.Conv2d, nn.ConvTranspose2d))
    ]
    summary = summarize(network, 64, 96)
    for handle in handles:
        handle.remove()
    assert summary["macs"] == sum(by_hand.values())
    for rows in (summary["modules"], summary["layers"]):
        for key in ("parameters", "macs", "activations"):
            assert summary[key] == sum(row[key] for row in rows.values()), key
