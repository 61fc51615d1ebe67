"""Loading of checkpoints in every published layout, and errors for files that do not match."""

import pickle
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from lib.models import build_model
from lib.models.checkpoint import half_state_dict, load_checkpoint, load_pretrained
from lib.utils.errors import InputError
from tests.models.configs import hrnet_cfg, resnet_cfg, tiny, tiny_hrnet_cfg

CONFIGS = {
    "hrnet": tiny_hrnet_cfg(),
    "resnet": resnet_cfg(18, num_joints=5, NUM_DECONV_FILTERS=[8, 8, 8]),
}


def make(kind: str = "hrnet", seed: int = 0) -> nn.Module:
    """Build a network whose entries, including buffers, all depend on the seed."""
    network = build_model(CONFIGS[kind])
    generator = torch.Generator().manual_seed(seed)
    for value in network.state_dict().values():
        if value.is_floating_point():
            value.copy_(torch.rand(value.shape, generator=generator))
        else:
            value.fill_(seed)
    return network


def plain(network: nn.Module) -> OrderedDict:
    return OrderedDict((key, value.clone()) for key, value in network.state_dict().items())


def hrnet_training(network: nn.Module) -> dict:
    state = {f"module.{key}": value for key, value in plain(network).items()}
    optimizer = torch.optim.Adam(network.parameters())
    return {
        "epoch": 3,
        "model": "pose_hrnet",
        "state_dict": state,
        "best_state_dict": plain(network),
        "perf": np.float64(0.7),
        "optimizer": optimizer.state_dict(),
    }


def mmpose(network: nn.Module, head: str) -> dict:
    heads = ("final_layer", "deconv_layers")
    state = {
        f"{head if key.startswith(heads) else 'backbone'}.{key}": value
        for key, value in plain(network).items()
    }
    return {"meta": {"epoch": 210, "mmpose_version": "0.18.0"}, "state_dict": state}


def compiled(network: nn.Module) -> dict:
    return {f"module._orig_mod.{key}": value for key, value in plain(network).items()}


def without_counters(network: nn.Module) -> dict:
    return {k: v for k, v in plain(network).items() if not k.endswith("num_batches_tracked")}


LAYOUTS = {
    "zoo": plain,
    "HRNet training": hrnet_training,
    "mmpose 0": lambda network: mmpose(network, "keypoint_head"),
    "mmpose 1": lambda network: mmpose(network, "head"),
    "DataParallel": lambda network: {f"module.{k}": v for k, v in plain(network).items()},
    "torch.compile under DDP": compiled,
    "under model": lambda network: {"model": plain(network), "epoch": 1},
    "no batch counters": without_counters,
}


@pytest.mark.parametrize("kind", CONFIGS)
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("is_zip", [True, False], ids=["zip", "legacy"])
def test_every_layout_loads(kind, layout, is_zip, tmp_path):
    source, target = make(kind, seed=1), make(kind, seed=2)
    path = tmp_path / "weights.pth"
    torch.save(LAYOUTS[layout](source), path, _use_new_zipfile_serialization=is_zip)
    load_checkpoint(target, path)
    expected = plain(source)
    for key, value in target.state_dict().items():
        if layout == "no batch counters" and key.endswith("num_batches_tracked"):
            assert value == 2
        else:
            assert torch.equal(value, expected[key]), key


def test_a_state_dict_is_copied():
    source, target = make(seed=1), make(seed=2)
    state = plain(source)
    load_checkpoint(target, state)
    assert_same_state(target, state)
    state["final_layer.weight"].zero_()
    assert target.state_dict()["final_layer.weight"].any()


@pytest.mark.parametrize("wrap", [nn.DataParallel, torch.compile], ids=["parallel", "compiled"])
def test_a_wrapped_network_loads_a_plain_checkpoint(wrap):
    source, target = make(seed=1), make(seed=2)
    load_checkpoint(wrap(target), plain(source))
    assert_same_state(target, plain(source))


def test_a_checkpoint_with_a_numpy_1_scalar_loads(tmp_path):
    # NumPy 1 pickled its numbers under numpy.core, where NumPy 2 says numpy._core.
    path = tmp_path / "checkpoint.pth"
    torch.save(hrnet_training(make(seed=1)), path, _use_new_zipfile_serialization=False)
    content = path.read_bytes()
    assert b"numpy._core.multiarray" in content
    path.write_bytes(content.replace(b"numpy._core.multiarray", b"numpy.core.multiarray"))
    target = make(seed=2)
    load_checkpoint(target, path)
    assert_same_state(target, plain(make(seed=1)))


def test_a_different_number_of_joints_is_an_error_with_both_shapes():
    state = plain(build_model(tiny_hrnet_cfg(num_joints=6)))
    message = error_of(make(), state)
    assert "final_layer.weight is (6, 4, 1, 1) in the file, (5, 4, 1, 1) in the network" in message
    assert "2 entries with a different shape" in message
    assert "PoseHRNet" in message


def test_a_different_network_is_an_error_with_counts_and_names():
    message = error_of(make(), plain(make("resnet")))
    assert "missing from the file: conv2.weight, bn2.weight, bn2.bias, ..." in message
    assert "not in the network: layer2.0.conv1.weight" in message
    assert "a different network" in message


def test_one_missing_and_one_unknown_entry_are_named():
    state = plain(make(seed=1))
    state["final_layer.gain"] = state.pop("final_layer.bias")
    message = error_of(make(), state)
    assert "1 entry missing from the file: final_layer.bias" in message
    assert "1 entry not in the network: final_layer.gain" in message


def test_a_duplicate_entry_is_refused():
    state = plain(make(seed=1))
    state["module.conv1.weight"] = state["conv1.weight"]
    assert "conv1.weight twice" in error_of(make(), state)


@pytest.mark.parametrize(
    "content", [{}, {"epoch": 3, "state_dict": {}}, {"a": 1}, [torch.zeros(1)], torch.zeros(2)]
)
def test_a_file_without_weights_is_refused(content, tmp_path):
    path = tmp_path / "weights.pth"
    torch.save(content, path)
    assert "contains no weights" in error_of(make(), path)


class CustomClass:
    """A class that loading with weights_only must not create."""


def test_a_pickle_with_code_is_refused(tmp_path):
    path = tmp_path / "weights.pth"
    torch.save({"state_dict": plain(make()), "config": CustomClass()}, path)
    message = error_of(make(), path)
    assert "CustomClass" in message
    assert "refused" in message


def test_a_plain_pickle_is_refused(tmp_path):
    path = tmp_path / "weights.pkl"
    path.write_bytes(pickle.dumps({"conv1.weight": np.zeros(3)}, protocol=2))
    assert "refused" in error_of(make(), path)


@pytest.mark.parametrize("share", [0.1, 0.5, 0.999])
@pytest.mark.parametrize("is_zip", [True, False], ids=["zip", "legacy"])
def test_a_truncated_file_is_refused(share, is_zip, tmp_path):
    path = tmp_path / "weights.pth"
    torch.save(plain(make()), path, _use_new_zipfile_serialization=is_zip)
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])
    assert "truncated" in error_of(make(), path)


@pytest.mark.parametrize("content", [b"", b"<!DOCTYPE html>\n<html>", b"version https://git-lfs"])
def test_a_file_that_is_not_a_checkpoint_is_refused(content, tmp_path):
    path = tmp_path / "weights.pth"
    path.write_bytes(content)
    assert "not a PyTorch checkpoint" in error_of(make(), path)


def test_a_missing_file_and_a_folder_are_refused(tmp_path):
    assert "no such checkpoint file" in error_of(make(), tmp_path / "absent.pth")
    assert "cannot read the checkpoint" in error_of(make(), tmp_path)


def test_a_backbone_loads_what_matches_and_reports_the_rest(tmp_path):
    source, target = make("resnet", seed=1), make("resnet", seed=2)
    before = plain(target)
    state = {k: v for k, v in plain(source).items() if not k.startswith(("deconv", "final"))}
    path = save({**state, "fc.weight": torch.zeros(9, 512), "fc.bias": torch.zeros(9)}, tmp_path)
    report = load_pretrained(target, path)
    after = target.state_dict()
    assert all(torch.equal(after[key], state[key]) for key in state)
    rest = before.keys() - state.keys()
    assert all(torch.equal(after[key], before[key]) for key in rest)
    assert sum(report.loaded.values()) == len(state)
    assert report.loaded.keys() == {key.split(".")[0] for key in state}
    assert report.mismatched == {}
    assert report.unused == {"fc": 2}
    assert report.unfilled == {"deconv_layers": 15, "final_layer": 2}
    assert "fc (2)" in str(report)
    assert "\n" not in str(report)


def test_a_backbone_loads_only_the_listed_layers(tmp_path):
    source, target = make(seed=1), make(seed=2)
    before = plain(target)
    report = load_pretrained(target, save(plain(source), tmp_path), ["conv1", "stage3"])
    for key, value in target.state_dict().items():
        is_listed = key.split(".")[0] in ("conv1", "stage3")
        assert torch.equal(value, (plain(source) if is_listed else before)[key]), key
    assert report.unfilled == report.unused == {}
    assert "conv2" in report.unselected
    assert "not in MODEL.EXTRA.PRETRAINED_LAYERS, not loaded: bn1 (5)" in str(report)


def test_a_head_for_a_different_number_of_joints_is_skipped_and_reported(tmp_path):
    state = plain(build_model(tiny_hrnet_cfg(num_joints=6)))
    target = make(seed=2)
    before = plain(target)
    report = load_pretrained(target, save(state, tmp_path))
    heads = {"final_layer.weight", "final_layer.bias"}
    for key, value in target.state_dict().items():
        assert torch.equal(value, (before if key in heads else state)[key]), key
    assert report.mismatched == {"final_layer": 2}
    assert report.unused == report.unfilled == {}
    assert str(report).endswith("; shape differs, not loaded: final_layer (2)")


def test_a_branch_of_a_different_width_is_skipped_and_reported(tmp_path):
    cfg = tiny_hrnet_cfg()
    cfg.MODEL.EXTRA.STAGE4.NUM_CHANNELS = [4, 8, 16, 36]
    state = plain(build_model(cfg))
    target = make(seed=2)
    report = load_pretrained(target, save(state, tmp_path))
    assert report.mismatched.keys() == {"transition3", "stage4"}
    after = target.state_dict()
    assert torch.equal(
        after["stage3.0.branches.0.0.conv1.weight"], state["stage3.0.branches.0.0.conv1.weight"]
    )


@pytest.mark.parametrize(
    ("head", "other", "layout", "missing"),
    [
        ("heatmap", "simcc", "mmpose 1", {"final_layer", "mlp_head_x", "mlp_head_y"}),
        ("simcc", "sr", "HRNet training", {"heatmap_head", "kp_encoder"}),
        ("srpose", "heatmap", "mmpose 0", {"final_layer"}),
    ],
)
def test_pose_weights_can_start_a_training_with_another_head(
    tmp_path, head, other, layout, missing
):
    cfg = tiny("pose_hrnet", head)
    cfg.MODEL.NUM_JOINTS = 6
    source, target = build_model(cfg), build_model(tiny("pose_hrnet", other))
    report = load_pretrained(target, save(LAYOUTS[layout](source), tmp_path))
    state = source.state_dict()
    for key, value in target.state_dict().items():
        if key.split(".")[0] not in missing:
            assert torch.equal(value, state[key]), key
    assert {*report.mismatched, *report.unfilled} == missing


def test_stages_of_equal_width_load_when_others_differ(tmp_path):
    cfg = tiny_hrnet_cfg()
    cfg.MODEL.EXTRA.STAGE4.NUM_CHANNELS = [6, 12, 24, 48]
    cfg.MODEL.EXTRA.STAGE3.NUM_CHANNELS = [6, 12, 24]
    report = load_pretrained(make(seed=2), save(plain(build_model(cfg)), tmp_path))
    assert {"layer1", "stage2"} <= report.loaded.keys()
    assert "stage4" in report.mismatched


def test_a_small_network_can_start_a_deeper_one(tmp_path):
    deep = build_model(hrnet_cfg(4, 5, modules=(1, 4, 9), blocks=4))
    report = load_pretrained(deep, save(plain(make(seed=1)), tmp_path))
    assert sum(report.loaded.values()) == len(plain(make()))
    assert "stage4" in report.unfilled


def test_a_file_that_shares_only_one_entry_is_refused(tmp_path):
    state = {f"encoder.{number}": torch.zeros(2) for number in range(9)}
    path = save({**state, "conv1.weight": plain(make())["conv1.weight"]}, tmp_path)
    with pytest.raises(InputError, match=r"different network; only 1 of 10 entries match"):
        load_pretrained(make(), path)


def test_a_backbone_of_a_different_width_is_refused(tmp_path):
    target = make()
    before = plain(target)
    cfg = tiny_hrnet_cfg()
    for number in (2, 3, 4):
        stage = cfg.MODEL.EXTRA[f"STAGE{number}"]
        stage.NUM_CHANNELS = [6 * 2**branch for branch in range(number)]
    path = save(plain(build_model(cfg)), tmp_path)
    with pytest.raises(InputError, match=r"MODEL\.PRETRAINED.*different network.*transition1\.0"):
        load_pretrained(target, path)
    assert_same_state(target, before)


def test_a_file_of_a_different_network_is_refused_although_some_entries_match(tmp_path):
    target = make("resnet")
    before = plain(target)
    path = save(plain(make()), tmp_path)  # bn1 and more have ResNet's names and shapes
    with pytest.raises(InputError, match=r"MODEL\.PRETRAINED.*different network.*conv1\.weight"):
        load_pretrained(target, path)
    assert_same_state(target, before)


def test_a_backbone_with_nothing_in_common_is_refused(tmp_path):
    path = save({"encoder.weight": torch.zeros(2)}, tmp_path)
    with pytest.raises(InputError, match=r"no entries for PoseHRNet.*encoder\.weight"):
        load_pretrained(make(), path)


def test_a_missing_backbone_is_an_error_that_says_what_to_do(tmp_path):
    with pytest.raises(InputError, match=r"MODEL\.PRETRAINED.*absent\.pth.*from scratch"):
        load_pretrained(make(), tmp_path / "absent.pth")


def test_half_weights_are_float16_and_load_like_any_file(tmp_path):
    source, target = make(seed=1), make(seed=2)
    state = half_state_dict(source)
    assert {value.dtype for value in state.values()} == {torch.float16}
    assert not any(key.endswith("num_batches_tracked") for key in state)
    load_checkpoint(target, save(state, tmp_path))
    loaded, expected = target.state_dict(), source.state_dict()
    for key in state:
        assert loaded[key].dtype == torch.float32
        torch.testing.assert_close(loaded[key], expected[key], rtol=1e-3, atol=1e-6)


def test_half_weights_keep_values_beyond_float16_in_float32():
    source = make(seed=1)
    source.state_dict()["bn1.running_var"][0] = 1e5
    state = half_state_dict(source)
    assert state["bn1.running_var"].dtype == torch.float32
    assert state["bn1.running_var"][0] == 1e5
    assert state["bn1.running_mean"].dtype == torch.float16


def test_half_weights_with_nan_are_refused():
    source = make(seed=1)
    source.state_dict()["final_layer.bias"][0] = float("nan")
    with pytest.raises(InputError, match=r"NaN or infinite values: final_layer\.bias"):
        half_state_dict(source)


def error_of(network: nn.Module, source: object) -> str:
    """Return the error message for ``source``; check that the network is unchanged."""
    before = plain(network)
    with pytest.raises(InputError) as caught:
        load_checkpoint(network, source)
    assert_same_state(network, before)
    message = str(caught.value)
    assert "\n" not in message
    assert message.startswith(str(source) if isinstance(source, Path) else "the state dict")
    return message


def assert_same_state(network: nn.Module, expected: dict) -> None:
    state = network.state_dict()
    assert state.keys() == expected.keys()
    assert all(torch.equal(state[key], expected[key]) for key in expected)


def save(content: dict, folder: Path) -> Path:
    path = folder / "backbone.pth"
    torch.save(content, path)
    return path


def test_a_sparse_tensor_is_refused():
    network = nn.Conv2d(1, 1, 1)
    state = network.state_dict()
    state["weight"] = state["weight"].to_sparse()
    with pytest.raises(InputError, match="weight is sparse or quantized"):
        load_checkpoint(network, state)
