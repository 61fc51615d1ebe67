"""Configurations for tests of networks."""

import copy
from typing import Any

from yacs.config import CfgNode

from lib.config.networks import EXTRA

# Networks with golden files.
GOLDEN_CONFIGS: dict[str, dict[str, Any]] = {
    "pose_resnet_50": {"depth": 50},
    "pose_hrnet_w32": {"width": 32},
    "pose_hrnet_w32_mpii": {"width": 32, "num_joints": 16},
    "pose_hrnet_w48": {"width": 48},
    "lite_hrnet_18": {"light": "lite_hrnet"},
    "dite_hrnet_18": {"light": "dite_hrnet"},
    "wide_hrnet_18": {"light": "wide_hrnet", "num_joints": 16, "WITH_SE": False},
    "wide_hrnet_18_se": {"light": "wide_hrnet"},
}
LIGHT = ("lite_hrnet", "dite_hrnet", "wide_hrnet")


def model_cfg(width: int = 0, depth: int = 0, light: str = "", **options: Any) -> CfgNode:
    """Configure an HRNet of ``width``, a SimpleBaseline of ``depth`` or a lightweight network."""
    if light:
        return light_cfg(light, **options)
    return hrnet_cfg(width, **options) if width else resnet_cfg(depth, **options)


def resnet_cfg(depth: int, num_joints: int = 17, **extra: Any) -> CfgNode:
    settings = {
        "FINAL_CONV_KERNEL": 1,
        "DECONV_WITH_BIAS": False,
        "NUM_DECONV_LAYERS": 3,
        "NUM_DECONV_FILTERS": [256, 256, 256],
        "NUM_DECONV_KERNELS": [4, 4, 4],
        "NUM_LAYERS": depth,
    }
    return _cfg("pose_resnet", num_joints, {**settings, **extra})


def hrnet_cfg(
    width: int,
    num_joints: int = 17,
    modules: tuple[int, int, int] = (1, 4, 3),
    blocks: int = 4,
    block: str = "BASIC",
) -> CfgNode:
    extra: dict[str, Any] = {"PRETRAINED_LAYERS": ["*"], "FINAL_CONV_KERNEL": 1}
    extra["STAGE1"] = {
        "NUM_MODULES": 1,
        "NUM_BRANCHES": 1,
        "BLOCK": "BOTTLENECK",
        "NUM_BLOCKS": [4],
        "NUM_CHANNELS": [64],
        "FUSE_METHOD": "SUM",
    }
    for branches, num_modules in zip((2, 3, 4), modules, strict=True):
        extra[f"STAGE{branches}"] = {
            "NUM_MODULES": num_modules,
            "NUM_BRANCHES": branches,
            "BLOCK": block,
            "NUM_BLOCKS": [blocks] * branches,
            "NUM_CHANNELS": [width * 2**i for i in range(branches)],
            "FUSE_METHOD": "SUM",
        }
    return _cfg("pose_hrnet", num_joints, extra)


def light_cfg(name: str, num_joints: int = 17, **extra: Any) -> CfgNode:
    """Configure the -18 network of a family; ``extra`` overrides MODEL.EXTRA."""
    return _cfg(name, num_joints, {**EXTRA[name], **extra})


def tiny_light_cfg(name: str, num_joints: int = 5, **extra: Any) -> CfgNode:
    """Configure a narrow lightweight network with one module per stage, two in the second."""
    small = {"NUM_MODULES": [1, 2, 1], "NUM_CHANNELS": [16, 32, 64, 64]}
    return light_cfg(name, num_joints, **{**small, **extra})


def tiny_hrnet_cfg(num_joints: int = 5, **options: Any) -> CfgNode:
    """Configure a tiny HRNet that runs in milliseconds."""
    return hrnet_cfg(4, num_joints, modules=(1, 2, 2), blocks=1, **options)


def with_head(name: str, head: str = "heatmap", size=(192, 256), **extra) -> CfgNode:
    """Configure a network with its paper's settings, overridden by ``extra``, and a head."""
    model = {
        "NAME": name,
        "HEAD": head,
        "NUM_JOINTS": 17,
        "IMAGE_SIZE": list(size),
        "SIMDR_SPLIT_RATIO": 2.0,
        "INIT_WEIGHTS": True,
        "EXTRA": {**copy.deepcopy(EXTRA[name]), **extra},
    }
    return CfgNode({"MODEL": model})


def tiny(name: str, head: str) -> CfgNode:
    """Configure a small network with a head, for crops of 64 x 96 pixels."""
    if name == "pose_hrnet":
        cfg = tiny_hrnet_cfg()
        cfg.MODEL.EXTRA.DECONV = copy.deepcopy(EXTRA[name].DECONV)
    elif name in LIGHT:
        cfg = tiny_light_cfg(name)
    elif name == "pose_resnet":
        cfg = with_head(name, NUM_LAYERS=18, NUM_DECONV_FILTERS=[8, 8, 8])
    elif name == "hrformer":
        small = {"NUM_CHANNELS": [8, 8, 16, 16], "NUM_MODULES": [1, 1, 1], "NUM_BLOCKS": 1}
        cfg = with_head(name, **small)
    else:
        small = {"DIM_MODEL": 16, "DIM_FEEDFORWARD": 16, "N_HEAD": 2, "ENCODER_LAYERS": 1}
        cfg = with_head(name, **small)
    cfg.MODEL.update({"HEAD": head, "IMAGE_SIZE": [64, 96], "SIMDR_SPLIT_RATIO": 1.5})
    cfg.MODEL.NUM_JOINTS = 5
    return cfg


def _cfg(name: str, num_joints: int, extra: dict[str, Any]) -> CfgNode:
    model = {
        "NAME": name,
        "NUM_JOINTS": num_joints,
        "INIT_WEIGHTS": True,
        "PRETRAINED": "",
        "EXTRA": extra,
    }
    return CfgNode({"MODEL": model})
