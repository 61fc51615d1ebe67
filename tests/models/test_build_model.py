"""Networks from build_model: published outputs, sizes, features and errors."""

import pytest
import torch
from torch import nn
from yacs.config import CfgNode

from lib.models import MODELS, build_model
from lib.models.checkpoint import load_checkpoint
from lib.models.layers.blocks import BasicBlock, Bottleneck
from lib.models.pose_hrnet import PoseHRNet, Stage
from lib.utils.errors import InputError
from tests.golden_files import golden_model
from tests.models.configs import (
    GOLDEN_CONFIGS,
    LIGHT,
    hrnet_cfg,
    model_cfg,
    resnet_cfg,
    tiny,
    tiny_hrnet_cfg,
    tiny_light_cfg,
)

TOLERANCE = 1e-4  # in units of the golden output's standard deviation


@pytest.mark.parametrize("name", GOLDEN_CONFIGS)
def test_outputs_match_the_published_network(name):
    golden = golden_model(name)
    network = build_model(model_cfg(**GOLDEN_CONFIGS[name]))
    load_checkpoint(network, golden.state)
    with torch.inference_mode():
        heatmaps = network.eval()(golden.image)
        features = network.features(golden.image) if len(golden.outputs) > 1 else []
    height, width = golden.meta["height"], golden.meta["width"]
    assert heatmaps.shape[-2:] == (height // 4, width // 4)
    assert max(golden.errors([heatmaps, *features])) < TOLERANCE
    assert count_parameters(network) == golden.meta["params"]


@pytest.mark.parametrize(
    ("options", "parameters"),
    [
        ({"depth": 18}, 15_376_721),
        ({"depth": 34}, 25_484_881),
        ({"depth": 50}, 33_999_697),
        ({"depth": 101}, 52_991_825),
        ({"depth": 152}, 68_635_473),
        ({"width": 32}, 28_536_113),
        ({"width": 48}, 63_595_745),
        ({"light": "lite_hrnet", "NUM_MODULES": [3, 8, 3]}, 1_763_717),
        ({"light": "dite_hrnet", "NUM_MODULES": [3, 8, 3]}, 1_862_549),
    ],
)
def test_has_the_published_number_of_parameters(options, parameters):
    with torch.device("meta"):
        network = build_model(model_cfg(**options))
    assert count_parameters(network) == parameters


def test_hrnet_that_returns_all_branches_has_the_size_of_srposes_backbone():
    stages = (
        Stage(1, Bottleneck, (4,), (64,)),
        *(
            Stage(modules, BasicBlock, (4,) * branches, (32, 64, 128, 256)[:branches])
            for branches, modules in ((2, 1), (3, 4), (4, 3))
        ),
    )
    with torch.device("meta"):
        network = PoseHRNet(stages, multi_scale_output=True)
        features = network.features(torch.zeros(1, 3, 256, 192))
    assert count_parameters(network) == 29_305_536
    shapes = [tuple(feature.shape[1:]) for feature in features]
    assert shapes == [(32, 64, 48), (64, 32, 24), (128, 16, 12), (256, 8, 6)]


@pytest.mark.parametrize(
    "options", [{"depth": 18}, {"depth": 50}, {"width": 32}, *({"light": name} for name in LIGHT)]
)
def test_features_have_the_declared_channels(options, quick_shapes):
    with torch.device("meta"), torch.no_grad():
        network = build_model(model_cfg(**options))
        features = network.features(torch.zeros(2, 3, 64, 96))
    assert tuple(feature.shape[1] for feature in features) == tuple(network.feature_channels)
    assert [feature.shape[2] for feature in features] == [16, 8, 4, 2][: len(features)]


@pytest.mark.parametrize(
    "cfg",
    [
        tiny_hrnet_cfg(),
        tiny_hrnet_cfg(block="BOTTLENECK"),
        resnet_cfg(18, NUM_DECONV_FILTERS=[8, 8, 8]),
        tiny_light_cfg("lite_hrnet", MODULE_TYPE="NAIVE"),
    ],
    ids=["hrnet", "hrnet-bottleneck", "resnet", "naive"],
)
def test_gradients_reach_every_parameter(cfg):
    torch.manual_seed(0)
    cfg.MODEL.INIT_WEIGHTS = False  # with a std of 0.001 gradients would underflow
    network = build_model(cfg)
    network(torch.randn(2, 3, 64, 64)).square().mean().backward()
    without_gradient = [
        name
        for name, parameter in network.named_parameters()
        if parameter.grad is None or not parameter.grad.any()
    ]
    assert without_gradient == []


@pytest.mark.parametrize("kernel", [2, 3, 4])
def test_every_deconvolution_kernel_doubles_the_size(kernel):
    with torch.device("meta"):
        network = build_model(resnet_cfg(18, NUM_DECONV_KERNELS=[kernel] * 3))
        heatmaps = network(torch.zeros(1, 3, 64, 96))
    assert heatmaps.shape == (1, 17, 16, 24)


def test_fusion_does_not_modify_its_inputs():
    network = build_model(tiny_hrnet_cfg()).eval()
    module = network.stage3[0]
    branches = [torch.randn(1, 4 * 2**i, 16 // 2**i, 16 // 2**i) for i in range(3)]
    before = [branch.clone() for branch in branches]
    first, second = module(branches), module(branches)
    assert all(torch.equal(a, b) for a, b in zip(branches, before, strict=True))
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


def test_a_branch_can_change_its_width_between_stages():
    cfg = tiny_hrnet_cfg()
    cfg.MODEL.EXTRA.STAGE3.NUM_CHANNELS = [6, 8, 16]
    network = build_model(cfg)
    assert network(torch.zeros(1, 3, 64, 64)).shape == (1, 5, 16, 16)


@pytest.mark.parametrize("cfg", [tiny_hrnet_cfg(), resnet_cfg(18)], ids=["hrnet", "resnet"])
def test_initial_weights_are_those_of_the_papers_and_depend_on_the_seed(cfg):
    networks = []
    for _ in range(2):
        torch.manual_seed(3)
        networks.append(build_model(cfg))
    for module in networks[0].modules():
        if isinstance(module, nn.BatchNorm2d):
            assert torch.all(module.weight == 1)
            assert torch.all(module.bias == 0)
    weights = [m.weight for m in networks[0].modules() if isinstance(m, nn.Conv2d)]
    drawn = torch.cat([weight.detach().flatten() for weight in weights])
    assert abs(float(drawn.std()) / 0.001 - 1) < 0.05
    assert torch.all(networks[0].head.final_layer.bias == 0)
    pairs = zip(networks[0].parameters(), networks[1].parameters(), strict=True)
    assert all(torch.equal(a, b) for a, b in pairs)


@pytest.mark.parametrize("cfg", [tiny_hrnet_cfg(), resnet_cfg(18)], ids=["hrnet", "resnet"])
def test_kaiming_weights_have_the_right_scale(cfg):
    torch.manual_seed(3)
    cfg.MODEL.INIT = "kaiming"
    network = build_model(cfg)
    fan_out = network.conv1.out_channels * network.conv1.kernel_size[0] ** 2
    assert network.conv1.weight.std().item() == pytest.approx((2 / fan_out) ** 0.5, rel=0.1)
    assert network.head.final_layer.weight.std() < 0.0015  # heatmaps start near zero


@pytest.mark.skipif(
    tuple(map(int, torch.__version__.split(".")[:2])) < (2, 14),
    reason="PyTorch cannot export Lite- and Dite-HRNet before 2.14 (requirements-export.txt)",
)
@pytest.mark.parametrize(
    "cfg",
    [
        hrnet_cfg(4, modules=(1, 1, 1), blocks=1),
        resnet_cfg(18),
        *(tiny_light_cfg(name, NUM_MODULES=[1, 1, 1], NUM_BLOCKS=1) for name in LIGHT),
    ],
    ids=["hrnet", "resnet", *LIGHT],
)
def test_exports_for_any_batch(cfg):
    cfg.MODEL.INIT_WEIGHTS = False
    torch.manual_seed(0)
    network = build_model(cfg).eval()
    image, other = torch.randn(2, 3, 64, 96), torch.randn(3, 3, 64, 96)
    with torch.no_grad():
        expected = network(other)
        batch = torch.export.Dim("batch", min=1, max=64)
        program = torch.export.export(network, (image,), dynamic_shapes={"x": {0: batch}})
        torch.testing.assert_close(program.module()(other), expected, rtol=1e-4, atol=1e-5)


def test_an_unknown_network_is_an_error_that_lists_the_known_ones():
    cfg = tiny_hrnet_cfg()
    cfg.MODEL.NAME = "pose_hernet"
    with pytest.raises(InputError, match=r"MODEL\.NAME.*'pose_hernet'") as caught:
        build_model(cfg)
    assert all(name in str(caught.value) for name in MODELS)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("NUM_LAYERS", 42),
        ("NUM_DECONV_LAYERS", -1),
        ("NUM_DECONV_LAYERS", 2),
        ("NUM_DECONV_FILTERS", [256, 256]),
        ("NUM_DECONV_FILTERS", []),
        ("NUM_DECONV_KERNELS", [4, 4, 5]),
        ("NUM_DECONV_KERNELS", [4, 4]),
        ("FINAL_CONV_KERNEL", 2),
    ],
)
def test_an_invalid_resnet_setting_is_named(key, value):
    named = "NUM_DECONV" if key == "NUM_DECONV_LAYERS" else key
    assert_refused(resnet_cfg(50, **{key: value}), f"MODEL.EXTRA.{named}")


@pytest.mark.parametrize(
    ("stage", "key", "value"),
    [
        ("STAGE2", "NUM_BRANCHES", 0),
        ("STAGE3", "NUM_BLOCKS", [4, 4]),
        ("STAGE4", "NUM_CHANNELS", [32, 64, 128]),
        ("STAGE4", "NUM_CHANNELS", [32, 64, 128, True]),
        ("STAGE2", "NUM_MODULES", 0),
        ("STAGE3", "BLOCK", "BASIS"),
        ("STAGE2", "FUSE_METHOD", "CAT"),
    ],
)
def test_an_invalid_hrnet_setting_is_named(stage, key, value):
    cfg = hrnet_cfg(32)
    cfg.MODEL.EXTRA[stage][key] = value
    assert_refused(cfg, f"MODEL.EXTRA.{stage}.{key}")


@pytest.mark.parametrize(
    ("name", "key", "value", "message"),
    [
        ("hrformer", "NUM_HEADS", [3, 2, 4, 8], "NUM_HEADS must be divisors of the channels"),
        ("hrformer", "DROP_PATH", 1.0, "DROP_PATH must be at least 0 and below 1"),
        ("hrformer", "NUM_CHANNELS", [8, 16], "NUM_CHANNELS must be 4 numbers"),
        ("transpose_r", "POS_EMBEDDING", "cosine", "must be one of sine, learnable, none"),
        ("transpose_r", "DIM_MODEL", 18, "DIM_MODEL must be a multiple of 4"),
        ("transpose_r", "N_HEAD", 3, "N_HEAD must be a divisor of 16"),
    ],
)
def test_an_invalid_transformer_setting_is_named(name, key, value, message):
    cfg = tiny(name, "heatmap")
    cfg.MODEL.EXTRA[key] = value
    with pytest.raises(InputError, match=message):
        build_model(cfg)


def test_the_stem_of_hrnet_can_be_narrower():
    cfg = tiny_hrnet_cfg()
    cfg.MODEL.EXTRA.STEM_INPLANES = 8
    network = build_model(cfg)
    assert network.conv1.out_channels == network.conv2.out_channels == 8
    assert network.eval()(torch.zeros(1, 3, 64, 64)).shape == (1, 5, 16, 16)
    cfg.MODEL.EXTRA.STEM_INPLANES = 0
    assert_refused(cfg, "MODEL.EXTRA.STEM_INPLANES")


def test_an_hrnet_stage_cannot_have_fewer_branches_than_the_previous_one():
    cfg = hrnet_cfg(32)
    cfg.MODEL.EXTRA.STAGE4 = cfg.MODEL.EXTRA.STAGE2.clone()
    assert_refused(cfg, "MODEL.EXTRA.STAGE4.NUM_BRANCHES")


def test_zero_joints_are_refused():
    assert_refused(hrnet_cfg(32, num_joints=0), "MODEL.NUM_JOINTS")


def assert_refused(cfg: CfgNode, key: str) -> None:
    with torch.device("meta"), pytest.raises(InputError) as caught:
        build_model(cfg)
    assert str(caught.value).startswith(key)
    assert "\n" not in str(caught.value)


def count_parameters(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())
