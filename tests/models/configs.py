"""Configurations for tests of networks."""

import copy
from typing import Any

from yacs.config import CfgNode

from lib.config.default import default_config
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
        return network_cfg(light, **options)
    return hrnet_cfg(width, **options) if width else resnet_cfg(depth, **options)


def resnet_cfg(depth: int, num_joints: int = 17, **extra: Any) -> CfgNode:
    return network_cfg("pose_resnet", num_joints, **{"NUM_LAYERS": depth, **extra})


def hrnet_cfg(
    width: int,
    num_joints: int = 17,
    modules: tuple[int, int, int] = (1, 4, 3),
    blocks: int = 4,
    block: str = "BASIC",
) -> CfgNode:
    cfg = network_cfg("pose_hrnet", num_joints)
    for branches, num_modules in zip((2, 3, 4), modules, strict=True):
        stage = cfg.MODEL.EXTRA[f"STAGE{branches}"]
        stage.NUM_MODULES, stage.BLOCK = num_modules, block
        stage.NUM_BLOCKS = [blocks] * branches
        stage.NUM_CHANNELS = [width * 2**i for i in range(branches)]
    return cfg


def network_cfg(name: str, num_joints: int = 17, **extra: Any) -> CfgNode:
    """Configure a network with its default settings, overridden by ``extra``."""
    cfg = default_config()
    cfg.MODEL.NAME, cfg.MODEL.NUM_JOINTS = name, num_joints
    cfg.MODEL.EXTRA = copy.deepcopy(EXTRA[name])
    cfg.MODEL.EXTRA.update(extra)
    return cfg


def tiny_light_cfg(name: str, num_joints: int = 5, **extra: Any) -> CfgNode:
    """Configure a narrow lightweight network with one module per stage, two in the second."""
    small = {"NUM_MODULES": [1, 2, 1], "NUM_CHANNELS": [16, 32, 64, 64]}
    return network_cfg(name, num_joints, **{**small, **extra})


def tiny_hrnet_cfg(num_joints: int = 5, **options: Any) -> CfgNode:
    """Configure a tiny HRNet that runs in milliseconds."""
    return hrnet_cfg(4, num_joints, modules=(1, 2, 2), blocks=1, **options)


def with_head(name: str, head: str = "heatmap", size=(192, 256), **extra) -> CfgNode:
    """Configure a network with its default settings, overridden by ``extra``, and a head."""
    cfg = network_cfg(name, **extra)
    cfg.MODEL.HEAD, cfg.MODEL.IMAGE_SIZE = head, list(size)
    return cfg


def tiny(name: str, head: str) -> CfgNode:
    """Configure a small network with a head, for crops of 64 x 96 pixels."""
    if name == "pose_hrnet":
        cfg = tiny_hrnet_cfg()
    elif name in LIGHT:
        cfg = tiny_light_cfg(name)
    elif name == "pose_resnet":
        cfg = resnet_cfg(18, NUM_DECONV_FILTERS=[8, 8, 8])
    elif name == "hrformer":
        small = {"NUM_CHANNELS": [8, 8, 16, 16], "NUM_MODULES": [1, 1, 1], "NUM_BLOCKS": 1}
        cfg = network_cfg(name, **small)
    else:
        small = {"DIM_MODEL": 16, "DIM_FEEDFORWARD": 16, "N_HEAD": 2, "ENCODER_LAYERS": 1}
        cfg = network_cfg(name, **small)
    cfg.MODEL.update({"HEAD": head, "IMAGE_SIZE": [64, 96], "SIMDR_SPLIT_RATIO": 1.5})
    cfg.MODEL.NUM_JOINTS = 5
    return cfg
