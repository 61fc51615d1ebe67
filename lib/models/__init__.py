"""The networks. A new one is a file here with a ``build(cfg)``, and one line in ``MODELS``."""

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
from lib.models.blocks import init_method
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
    """The network MODEL.NAME as MODEL.EXTRA describes it, with the head MODEL.HEAD, initialised if
    MODEL.INIT_WEIGHTS.

    Its ``forward`` takes normalised images (N, 3, H, W) and returns what the head gives: heatmaps
    (N, K, H/4, W/4), K being MODEL.NUM_JOINTS, for the head ``heatmap``. MODEL.PRETRAINED is
    not read here, but by ``lib.models.checkpoint.load_pretrained``.

    Raises:
        InputError: no network of that name, or a value that cannot be built; it names the key.
    """
    name = cfg.MODEL.NAME
    if name not in MODELS:
        raise InputError(f"MODEL.NAME: there is no network {name!r}; known are {', '.join(MODELS)}")
    network = MODELS[name](cfg)
    network.head = heads.build(cfg, network)
    if init := init_method(cfg):
        for part in network.children():
            part.init_weights(init) if part is network.head else init(part)
    return network
