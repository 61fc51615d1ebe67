"""Keypoints <-> what a network predicts, one file for each representation.

A codec has ``encode`` (joints to targets), ``loss`` and ``accuracy`` (outputs against targets),
``flip`` and ``average`` (the flip test) and ``decode`` (outputs to keypoints in crop pixels and
scores), all on batches, on their device.
"""

from collections.abc import Callable

from yacs.config import CfgNode

from lib.core.codecs import dark, heatmap, udp
from lib.core.codecs.heatmap import HeatmapCodec
from lib.dataset.skeletons import Skeleton
from lib.utils.errors import InputError

__all__ = ["CODECS", "build_codec"]

# MODEL.TARGET_TYPE -> builder
CODECS: dict[str, Callable[[CfgNode, Skeleton], HeatmapCodec]] = {
    "gaussian": heatmap.build,
    "dark": dark.build,
    "udp": udp.build,
}


def build_codec(cfg: CfgNode, skeleton: Skeleton) -> HeatmapCodec:
    """The codec of MODEL.TARGET_TYPE for the joints of ``skeleton``."""
    name = cfg.MODEL.TARGET_TYPE
    if name not in CODECS:
        raise InputError(f"MODEL.TARGET_TYPE: there is no {name!r}; known are {', '.join(CODECS)}")
    return CODECS[name](cfg, skeleton)
