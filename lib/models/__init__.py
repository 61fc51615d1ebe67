"""Networks. A new one needs a file with a ``build(cfg)`` function and an entry in ``MODELS``."""

from collections.abc import Callable

from yacs.config import CfgNode

from lib.models import (
    dite_hrnet,
    heads,
    hrformer,
    lite_hrnet,
    pose_hrnet,
    pose_resnet,
    transpose,
    wide_hrnet,
)
from lib.models.layers.blocks import init_function
from lib.models.network import PoseNetwork
from lib.utils.errors import InputError

__all__ = ["MODELS", "build_model"]

MODELS: dict[str, Callable[[CfgNode], PoseNetwork]] = {
    "dite_hrnet": dite_hrnet.build,
    "hrformer": hrformer.build,
    "lite_hrnet": lite_hrnet.build,
    "pose_hrnet": pose_hrnet.build,
    "pose_resnet": pose_resnet.build,
    "transpose_h": transpose.build_h,
    "transpose_r": transpose.build_r,
    "wide_hrnet": wide_hrnet.build,
}


def build_model(cfg: CfgNode) -> PoseNetwork:
    """Build the network MODEL.NAME, configured by MODEL.EXTRA, with the head MODEL.HEAD.

    Weights are initialised if MODEL.INIT_WEIGHTS is set. MODEL.PRETRAINED is not loaded; use
    ``lib.models.checkpoint.load_pretrained``.

    ``forward`` takes normalised images (N, 3, H, W) and returns the head's outputs. For the
    ``heatmap`` head, these are heatmaps (N, K, H/4, W/4), where K is MODEL.NUM_JOINTS.

    Raises:
        InputError: if the network is unknown or a setting is invalid. The message names the key.
    """
    name = cfg.MODEL.NAME
    if name not in MODELS:
        raise InputError(f"MODEL.NAME: unknown network {name!r}; choose from {', '.join(MODELS)}")
    network = MODELS[name](cfg)
    network.head = heads.build(cfg, network)
    if init := init_function(cfg):
        for part in network.children():
            part.init_weights(init) if part is network.head else init(part)
    return network
