"""Heads on every backbone: published outputs, sizes, names and errors."""

import copy

import pytest
import torch
from yacs.config import CfgNode

from lib.config.networks import EXTRA
from lib.models import build_model
from lib.models.checkpoint import load_checkpoint
from lib.models.heads import HEADS, SRPoseHead
from lib.utils.errors import InputError
from tests.golden_files import GoldenModel, golden_model
from tests.models.configs import tiny, with_head

GOLDEN = {
    "simcc_pose_hrnet_w32_sa": ("pose_hrnet", "simcc"),
    "simcc_pose_resnet_50": ("pose_resnet", "simcc"),
    "sr_head_resnet_50": ("pose_resnet", "sr"),
    "srpose_hrnet_w32": ("pose_hrnet", "srpose"),
    "srpose_resnet_50": ("pose_resnet", "srpose"),
    "srpose_transpose_r_a4": ("transpose_r", "srpose"),
    "srpose_hrformer_small": ("hrformer", "srpose"),
}


def build_with_weights(golden: GoldenModel, cfg: CfgNode) -> torch.nn.Module:
    """Build a network with the golden weights; buffers listed as constant keep their values."""
    network = build_model(cfg).eval()
    own = network.state_dict()
    names = [name.removeprefix("backbone.") for name in golden.meta.get("constant_buffers", [])]
    load_checkpoint(network, {**golden.state, **{name: own[name] for name in names}})
    return network


@pytest.mark.parametrize("name", GOLDEN)
def test_outputs_match_the_published_network(name):
    golden = golden_model(name)
    network = build_with_weights(golden, with_head(*GOLDEN[name]))
    assert sum(p.numel() for p in network.parameters()) == golden.meta["params"]
    with torch.inference_mode():
        outputs = network(golden.image)
        if isinstance(network.head, SRPoseHead):
            network.head.training = True  # the head's own flag: batch norms stay in evaluation
            *coarse, finest = network(golden.image)
            assert torch.equal(finest, outputs)
            outputs = [outputs, *coarse]
        if name == "srpose_hrformer_small":
            biased = build_with_weights(
                golden, with_head(*GOLDEN[name], RELATIVE_POSITION_BIAS=True)
            )
            outputs.append(biased(golden.image))
    outputs = outputs if isinstance(outputs, list) else [outputs]
    assert max(golden.errors(outputs)) < 1e-4


def test_the_bottom_up_sr_head_matches_the_published_one():
    golden = golden_model("sr_head_hrnet_w32_bottom_up")
    cfg = with_head("pose_hrnet", "sr")
    cfg.MODEL.TARGET_TYPE = "tags"
    network = build_with_weights(golden, cfg)
    assert sum(p.numel() for p in network.parameters()) == golden.meta["params"]
    with torch.inference_mode():
        outputs = network(golden.image)
    assert max(golden.errors([outputs])) < 1e-4


PYRAMIDS = ("pose_hrnet", "pose_resnet", "hrformer", "transpose_r")


@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("name", EXTRA)
def test_every_backbone_works_with_every_head_or_says_why_not(name, head):
    cfg = tiny(name, head)
    if head == "srpose" and name not in PYRAMIDS:
        with pytest.raises(InputError, match=f"MODEL.HEAD: srpose needs maps of.*{name} has"):
            build_model(cfg)
        return
    if head == "higher" and name != "pose_hrnet":
        with pytest.raises(InputError, match=f"higher works only with pose_hrnet, not with {name}"):
            build_model(cfg)
        return
    network = build_model(cfg)
    outputs = network(torch.randn(2, 3, 96, 64))
    if head == "higher":
        assert [output.shape for output in outputs] == [(2, 10, 24, 16), (2, 5, 48, 32)]
    elif head == "heatmap":
        assert outputs.shape == (2, 5, 24, 16)
    elif head == "sr":
        assert outputs.shape == (2, 5, 96, 64)
    elif head == "simcc":
        assert [axis.shape for axis in outputs] == [(2, 5, 96), (2, 5, 144)]
    else:
        sizes = [tuple(output.shape[2:]) for output in outputs]
        stride = network.feature_strides[-1]
        levels = len(network.feature_strides)
        assert sizes == [(96 // stride, 64 // stride), *[(24, 16)] * (levels - 1), (96, 64)]
        assert network.eval()(torch.randn(1, 3, 96, 64)).shape == (1, 5, 96, 64)


@pytest.mark.parametrize("name", ["pose_resnet", "transpose_r"])
def test_entries_of_the_head_have_no_prefix_in_a_state_dict(name):
    network = build_model(tiny(name, "sr"))
    state = network.state_dict()
    assert {"kp_encoder.0.weight", "heatmap_head.bias", "deconv_layers.0.weight"} <= state.keys()
    assert not any(key.startswith("head.") for key in state)
    other = copy.deepcopy(build_model(tiny(name, "sr")))
    other.load_state_dict(state)
    wrapped = torch.nn.DataParallel(other)
    assert wrapped.state_dict().keys() == {f"module.{key}" for key in state}
    torch.nn.DataParallel(build_model(tiny(name, "sr"))).load_state_dict(wrapped.state_dict())
    pairs = zip(network.parameters(), other.parameters(), strict=True)
    assert all(torch.equal(a, b) for a, b in pairs)
    state.pop("heatmap_head.bias")
    with pytest.raises(RuntimeError, match=r"heatmap_head\.bias"):
        other.load_state_dict(state)


def test_training_only_parts_of_srpose_get_gradients_and_start_with_small_heatmaps():
    torch.manual_seed(0)
    network = build_model(tiny("hrformer", "srpose"))
    assert all(layer.weight.std() < 0.0015 for layer in network.head.output_layers())
    assert network.head.fuse[0].weight.std() > 0.01  # other layers keep PyTorch's initialisation
    outputs = network(torch.randn(2, 3, 96, 64))
    sum((10 * output).square().sum() for output in outputs).backward()
    without_gradient = [n for n, p in network.head.named_parameters() if p.grad is None]
    assert without_gradient == []


def test_an_unknown_head_is_an_error_that_names_the_known_ones():
    with pytest.raises(InputError, match=r"MODEL\.HEAD must be one of heatmap, higher, simcc, sr"):
        build_model(tiny("pose_hrnet", "simc"))


@pytest.mark.parametrize(
    ("head", "change", "message"),
    [
        ("simcc", {"SIMDR_SPLIT_RATIO": 0.0}, "SIMDR_SPLIT_RATIO must be at most 8 and give at"),
        ("simcc", {"SIMDR_SPLIT_RATIO": -1.0}, "SIMDR_SPLIT_RATIO must be"),
        ("simcc", {"IMAGE_SIZE": [64, 100]}, "IMAGE_SIZE must be multiples of 32 for pose_resnet"),
        ("sr", {"EXTRA": {"NUM_DECONV_LAYERS": 6}}, "NUM_DECONV_LAYERS must be at most 5"),
    ],
)
def test_an_invalid_head_setting_is_named(head, change, message):
    cfg = tiny("pose_resnet", head)
    for key, value in change.pop("EXTRA", {}).items():
        cfg.MODEL.EXTRA[key] = value
        cfg.MODEL.EXTRA.NUM_DECONV_FILTERS = [8] * value
        cfg.MODEL.EXTRA.NUM_DECONV_KERNELS = [4] * value
    cfg.MODEL.update(change)
    with pytest.raises(InputError, match=message):
        build_model(cfg)


@pytest.mark.parametrize(
    ("name", "head"),
    [("pose_hrnet", "srpose"), ("transpose_h", "simcc"), ("hrformer", "sr")],
)
def test_gradients_are_finite_in_bfloat16(name, head):
    torch.manual_seed(0)
    network = build_model(tiny(name, head))
    with torch.autocast("cpu", torch.bfloat16):
        outputs = network(torch.randn(2, 3, 96, 64))
    outputs = outputs if isinstance(outputs, list) else [outputs]
    sum(output.float().square().sum() for output in outputs).backward()
    grads = [p.grad for p in network.parameters() if p.requires_grad]
    assert all(grad is not None and grad.isfinite().all() for grad in grads)
