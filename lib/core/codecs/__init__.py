"""Codecs between keypoints and network outputs, one file for each representation."""

from collections.abc import Callable

from yacs.config import CfgNode

from lib.core.codecs import dark, full, heatmap, simcc, tags, udp
from lib.core.codecs.codec import Codec
from lib.core.codecs.tags import TagCodec
from lib.keypoints.skeletons import Skeleton
from lib.utils.errors import InputError

# MODEL.TARGET_TYPE -> builder
CODECS: dict[str, Callable[[CfgNode, Skeleton], Codec | TagCodec]] = {
    "gaussian": heatmap.build,
    "dark": dark.build,
    "udp": udp.build,
    "full": full.build,
    "simcc": simcc.build,
    "sa_simcc": simcc.build,
    "mm_simcc": simcc.build,
    "rtm_simcc": simcc.build,
    "tags": tags.build,
}

# MODEL.HEAD -> supported MODEL.TARGET_TYPE
HEAD_TARGET_TYPES = {
    "heatmap": ("gaussian", "dark", "udp", "tags"),
    "higher": ("tags",),
    "sr": ("full", "tags"),
    "srpose": ("full",),
    "simcc": ("simcc", "sa_simcc", "mm_simcc", "rtm_simcc"),
}


def build_codec(cfg: CfgNode, skeleton: Skeleton) -> Codec | TagCodec:
    """Build the codec named by MODEL.TARGET_TYPE for the joints of ``skeleton``.

    Raises:
        InputError: the name is unknown or not supported by MODEL.HEAD, or a setting is invalid.
    """
    name = cfg.MODEL.TARGET_TYPE
    if name not in CODECS:
        raise InputError(
            f"MODEL.TARGET_TYPE: unknown target type {name!r}; choose from {', '.join(CODECS)}"
        )
    # build_model reports an unknown head.
    supported = HEAD_TARGET_TYPES.get(cfg.MODEL.HEAD, (name,))
    if name not in supported:
        raise InputError(
            f"MODEL.TARGET_TYPE: must be {' or '.join(supported)} for MODEL.HEAD {cfg.MODEL.HEAD}, "
            f"not {name}"
        )
    if cfg.LOSS.USE_DIFFERENT_JOINTS_WEIGHT and not skeleton.joint_weights:
        raise InputError(
            "LOSS.USE_DIFFERENT_JOINTS_WEIGHT: needs DATASET.JOINT_WEIGHTS, one for each joint"
        )
    return CODECS[name](cfg, skeleton)
