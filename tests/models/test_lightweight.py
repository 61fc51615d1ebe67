"""Lite-HRNet, Dite-HRNet and WideHRNet: fusion, dynamic convolutions and settings."""

import copy
import re

import pytest
import torch
from torch import nn
from torch.nn import functional

from lib.models import build_model
from lib.models.dite_hrnet import DynamicConv
from lib.models.layers.lightweight import LightweightModule, shuffle_channels
from lib.models.wide_hrnet import make_divisible
from lib.utils.errors import InputError
from tests.models.configs import LIGHT, tiny_light_cfg

CHANNELS = (8, 12, 16)


def branches(number: int = 2) -> list[torch.Tensor]:
    sizes = (16, 8, 4)
    return [torch.randn(number, c, n, n) for c, n in zip(CHANNELS, sizes, strict=True)]


def fuse_as_published(module: LightweightModule, x: list[torch.Tensor]) -> list[torch.Tensor]:
    """Fuse branches literally as the published code does."""
    x = [item.clone() for item in x]
    rows = []
    for i in range(len(x)):
        total = x[0] if i == 0 else module.fuse_layers[i][0](x[0])
        for j in range(len(x)):
            sent = module.fuse_layers[i][j](x[j])
            if j > i:
                sent = functional.interpolate(sent, scale_factor=2.0 ** (j - i), mode="nearest")
            total = total + sent
        if i == 0:
            x[0] = total.relu() if module.fuse_after_relu else total
        rows.append(total.relu())
    return rows


@pytest.fixture(params=[False, True], ids=["lite", "dite"])
def module(request) -> LightweightModule:
    torch.manual_seed(0)
    return LightweightModule(nn.Identity(), CHANNELS, fuse_after_relu=request.param)


def test_fuses_as_published(module):
    module.eval()
    x = branches()
    before = [item.clone() for item in x]
    ours = module(x)
    for row, published in zip(ours, fuse_as_published(module, x), strict=True):
        torch.testing.assert_close(row, published, rtol=1e-5, atol=1e-5)
    assert all(torch.equal(a, b) for a, b in zip(x, before, strict=True))


def test_a_training_step_leaves_the_published_statistics_and_gradients(module):
    published = copy.deepcopy(module)
    for norm in published.modules():
        if isinstance(norm, nn.BatchNorm2d):
            norm.momentum = 0.1
    x = branches()
    for network, fuse in ((module, module), (published, lambda x: fuse_as_published(published, x))):
        sum(row.square().mean() for row in fuse(x)).backward()
        assert network.training
    ours, theirs = module.state_dict(), published.state_dict()
    for name, value in theirs.items():
        if not name.endswith("num_batches_tracked"):
            torch.testing.assert_close(ours[name], value, rtol=1e-5, atol=1e-6)
    for a, b in zip(module.parameters(), published.parameters(), strict=True):
        torch.testing.assert_close(a.grad, b.grad, rtol=1e-3, atol=1e-6)
    moved = module.fuse_layers[2][0][0][1].running_mean
    assert moved.abs().max() > 1e-3


@pytest.mark.parametrize("groups", [2, 4])
def test_shuffles_as_torch_does(groups):
    x = torch.randn(2, 8 * groups, 5, 3)
    ours = shuffle_channels(x.chunk(groups, dim=1))
    assert torch.equal(ours, functional.channel_shuffle(x, groups))


@pytest.mark.parametrize("name", LIGHT)
def test_the_operations_chosen_for_onnx_compute_the_same(monkeypatch, name):
    torch.manual_seed(0)
    network = build_model(tiny_light_cfg(name, NUM_MODULES=[1, 1, 1], NUM_BLOCKS=1)).eval()
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight)
    images = torch.randn(2, 3, 96, 64)
    with torch.no_grad():
        expected = network(images)
        monkeypatch.setattr(torch.onnx, "is_in_onnx_export", lambda: True)
        torch.testing.assert_close(
            network(images), expected, rtol=1e-4, atol=1e-4 * float(expected.std())
        )


@pytest.mark.parametrize(
    ("kernel", "stride", "groups", "out"), [(3, 1, 6, 6), (3, 2, 6, 6), (5, 1, 6, 6), (1, 1, 1, 4)]
)
def test_a_dynamic_convolution_gives_each_image_its_own_mix_of_kernels(kernel, stride, groups, out):
    torch.manual_seed(0)
    layer = DynamicConv(6, out, kernel, stride, groups, num_kernels=3).eval()
    x = torch.randn(4, 6, 8, 8)
    kernels = layer.aggregation.weight
    expected = [
        functional.conv2d(
            image[None],
            sum(share * one for share, one in zip(shares, kernels, strict=True)),
            stride=stride,
            padding=kernel // 2,
            groups=groups,
        )
        for image, shares in zip(x, layer.attention(x), strict=True)
    ]
    torch.testing.assert_close(layer(x), torch.cat(expected), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(layer(x[:1]), expected[0], rtol=1e-4, atol=1e-5)
    if groups > 1:
        by_each = layer._mix_outputs(x, layer.attention(x))
        torch.testing.assert_close(by_each, torch.cat(expected), rtol=1e-4, atol=1e-5)


def test_images_side_by_side_stay_channels_last(monkeypatch):
    seen = []

    def record(x, *args):
        seen.append(x)
        return convolve(x, *args)

    convolve = functional.conv2d
    conv = DynamicConv(8, 8, 3, groups=8)
    x = torch.randn(3, 8, 6, 4).contiguous(memory_format=torch.channels_last)
    monkeypatch.setattr("lib.models.dite_hrnet.functional.conv2d", record)
    y = conv(x)
    # PyTorch chooses its kernel by the strides, including that of the batch dimension.
    assert [row.stride() for row in seen] == [(3 * 8 * 6 * 4, 1, 4 * 3 * 8, 3 * 8)]
    assert y.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize(("images", "convolutions"), [(1, 1), (2, 4)])
def test_a_graph_for_one_image_mixes_kernels_and_not_answers(images, convolutions):
    conv = DynamicConv(8, 8, 3, groups=8, num_kernels=4).eval()
    x = torch.randn(images, 8, 6, 4)
    graph = torch.jit.trace(conv, x).inlined_graph
    kinds = [node.kind() for node in graph.nodes()]
    assert kinds.count("aten::_convolution") == convolutions


GATES = {
    "lite_hrnet": r"spatial_weighting\.\d\.conv2\.conv",
    "dite_hrnet": r"attention\.conv2|conv_mask|dcm\.conv_mask\.\d|channel_attention\.3",
    "wide_hrnet": r"\.fc2",
}


@pytest.mark.parametrize("name", GATES)
def test_gates_begin_alike_whatever_they_are_given(name):
    torch.manual_seed(0)
    cfg = tiny_light_cfg(name)
    cfg.MODEL.INIT, cfg.MODEL.INIT_WEIGHTS = "kaiming", True
    modules = dict(build_model(cfg).named_modules())
    gates = [module for key, module in modules.items() if re.search(f"({GATES[name]})$", key)]
    # The pattern also matches Dite-HRNet's containers of gates.
    gates = [gate for gate in gates if isinstance(gate, nn.Conv2d)]
    assert gates
    for gate in gates:
        x = torch.randn(2, gate.in_channels, 1, 1)
        assert gate(x).abs().max() < 0.1


@pytest.mark.parametrize("name", LIGHT)
def test_only_the_unused_mask_of_dite_hrnet_gets_no_gradient(name):
    torch.manual_seed(0)
    cfg = tiny_light_cfg(name)
    cfg.MODEL.INIT_WEIGHTS = False
    network = build_model(cfg)
    network(torch.randn(2, 3, 64, 64)).square().mean().backward()
    silent = {name for name, p in network.named_parameters() if p.grad is None}
    assert all(".dcm.conv_mask." in parameter for parameter in silent)
    # DistributedDataParallel has to know.
    assert any(hasattr(m, "has_unused_parameters") for m in network.modules()) == bool(silent)
    layers = [m for n, m in network.named_modules() if n.endswith(".dcm")]
    assert len(silent) == 2 * len(layers)


@pytest.mark.parametrize(("channels", "expected"), [(20, 24), (40, 40), (8, 8), (3, 8), (11, 16)])
def test_squeezed_channels_are_mobilenets(channels, expected):
    assert make_divisible(channels) == expected


@pytest.mark.parametrize("name", LIGHT)
@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("EXTRA.NUM_MODULES", [2, 4]),
        ("EXTRA.NUM_CHANNELS", [40, 80, 160]),
        ("EXTRA.NUM_CHANNELS", [40, 80, 160, 321]),
        ("EXTRA.NUM_BLOCKS", 0),
        ("IMAGE_SIZE", [192, 250]),
    ],
)
def test_a_bad_setting_is_refused_and_named(name, key, value):
    cfg = tiny_light_cfg(name)
    (cfg.MODEL.EXTRA if "EXTRA" in key else cfg.MODEL)[key.removeprefix("EXTRA.")] = value
    with pytest.raises(InputError, match=f"MODEL.{key}"):
        build_model(cfg)


@pytest.mark.parametrize("channels", [[40, 80, 160, 324], [8, 16, 24, 32]])
def test_dite_hrnet_refuses_channels_that_its_groups_cannot_share(channels):
    with pytest.raises(InputError, match=r"MODEL\.EXTRA\.NUM_CHANNELS must be multiples of 8"):
        build_model(tiny_light_cfg("dite_hrnet", NUM_CHANNELS=channels))


def test_an_unknown_kind_of_module_is_refused():
    with pytest.raises(InputError, match=r"MODEL\.EXTRA\.MODULE_TYPE must be one of LITE, NAIVE"):
        build_model(tiny_light_cfg("lite_hrnet", MODULE_TYPE="NAVE"))
