"""Heads, which turn backbone features into heatmaps or one distribution per axis.

- ``heatmap``: a convolution, after deconvolutions if MODEL.EXTRA.NUM_DECONV_LAYERS is set
  (SimpleBaseline, HRNet).
- ``sr``: heatmaps at input resolution from a single map.
- ``srpose``: heatmaps at input resolution from a feature pyramid, with an output at every level in
  training.
- ``simcc``: two vectors per joint.
- ``higher``: heatmaps of several resolutions, for bottom-up networks.

With MODEL.TARGET_TYPE ``tags``, for bottom-up networks, ``heatmap``, ``sr`` and ``higher`` also
output a tag map for each joint, after the heatmaps: (N, 2K, H, W).

``sr`` and ``srpose`` are from Wang, Liu, Tang, Wu: Lightweight Super-Resolution Head for Human Pose
Estimation (ACM MM 2023), haonanwang0522/SRPose; there, ``sr`` exists only for bottom-up networks.
``simcc`` is from Li et al.: SimCC: a Simple Coordinate Classification Perspective for Human Pose
Estimation (ECCV 2022), leeyegy/SimCC. ``higher`` is HigherHRNet's.

Parameter names are those of the published files.
"""

from collections.abc import Callable

from yacs.config import CfgNode

from lib.models import settings
from lib.models.heads.higher import HigherHead
from lib.models.heads.layers import DECONV_PADDING, Deconvolutions, Head
from lib.models.heads.single import HeatmapHead, SimCCHead, SRHead
from lib.models.heads.srpose import TARGET_STRIDE, SRPoseHead
from lib.models.network import PoseNetwork
from lib.utils.errors import InputError

__all__ = ["HEADS", "build", "uses_all_levels", "uses_tags"]


def build(cfg: CfgNode, network: PoseNetwork) -> Head:
    """Build the head MODEL.HEAD for ``network``.

    Raises:
        InputError: if a setting is invalid or the network lacks the features that the head needs.
            The message names the key.
    """
    name = settings.choice(cfg, "MODEL.HEAD", HEADS, default="heatmap")
    return HEADS[name](cfg, network)


def _build_deconvolutions(cfg: CfgNode, network: PoseNetwork) -> Deconvolutions:
    extra = "MODEL.EXTRA"
    length_key = f"{extra}.NUM_DECONV_LAYERS"
    if not settings.get(cfg, length_key, 0):
        return Deconvolutions(network, (), (), bias=False)
    length = settings.positive_int(cfg, length_key)
    kernels_key = f"{extra}.NUM_DECONV_KERNELS"
    kernels = settings.positive_ints(cfg, kernels_key, length, length_key)
    settings.require(
        set(kernels) <= set(DECONV_PADDING), kernels_key, "a list of 2, 3 or 4", kernels
    )
    filters = settings.positive_ints(cfg, f"{extra}.NUM_DECONV_FILTERS", length, length_key)
    stride = network.feature_strides[network.main_level]
    settings.require(stride >> length, length_key, f"at most {stride.bit_length() - 1}", length)
    bias = bool(settings.get(cfg, f"{extra}.DECONV_WITH_BIAS", False))
    return Deconvolutions(network, filters, kernels, bias)


def _final_kernel(cfg: CfgNode) -> int:
    return settings.choice(cfg, "MODEL.EXTRA.FINAL_CONV_KERNEL", (1, 3), default=1)


def _num_joints(cfg: CfgNode) -> int:
    return settings.positive_int(cfg, "MODEL.NUM_JOINTS")


def _build_heatmap(cfg: CfgNode, network: PoseNetwork) -> HeatmapHead:
    layers = _build_deconvolutions(cfg, network)
    return HeatmapHead(layers, (1 + uses_tags(cfg)) * _num_joints(cfg), _final_kernel(cfg))


def _build_simcc(cfg: CfgNode, network: PoseNetwork) -> SimCCHead:
    layers = _build_deconvolutions(cfg, network)
    width, height = settings.get(cfg, "MODEL.IMAGE_SIZE")
    ratio = settings.get(cfg, "MODEL.SIMDR_SPLIT_RATIO")
    is_valid = ratio <= 8 and min(width, height) * ratio >= 2
    expected = "at most 8 and give at least two bins"
    settings.require(is_valid, "MODEL.SIMDR_SPLIT_RATIO", expected, ratio)
    return SimCCHead(
        layers,
        _num_joints(cfg),
        _final_kernel(cfg),
        num_pixels=(width // layers.stride) * (height // layers.stride),
        bins=(int(width * ratio), int(height * ratio)),
    )


def _build_sr(cfg: CfgNode, network: PoseNetwork) -> SRHead:
    return SRHead(_build_deconvolutions(cfg, network), _num_joints(cfg), uses_tags(cfg))


def _build_higher(cfg: CfgNode, network: PoseNetwork) -> HigherHead:
    key = "MODEL.EXTRA.DECONV"
    if settings.get(cfg, key, None) is None:
        raise InputError(f"MODEL.HEAD: higher works only on pose_hrnet, not on {cfg.MODEL.NAME}")
    count = settings.positive_int(cfg, f"{key}.NUM_DECONVS")
    source = f"{key}.NUM_DECONVS"
    kernels = settings.positive_ints(cfg, f"{key}.KERNEL_SIZE", count, source)
    is_known = set(kernels) <= set(DECONV_PADDING)
    settings.require(is_known, f"{key}.KERNEL_SIZE", "a list of 2, 3 or 4", kernels)
    uses_output = settings.get(cfg, f"{key}.CAT_OUTPUT")
    are_flags = len(uses_output) == count and all(isinstance(flag, bool) for flag in uses_output)
    settings.require(
        are_flags, f"{key}.CAT_OUTPUT", f"a list of {count} values, true or false", uses_output
    )
    return HigherHead(
        network.feature_channels[network.main_level],
        _num_joints(cfg),
        channels=settings.positive_ints(cfg, f"{key}.NUM_CHANNELS", count, source),
        kernels=kernels,
        uses_output=uses_output,
        num_blocks=settings.positive_int(cfg, f"{key}.NUM_BASIC_BLOCKS"),
        final_kernel=_final_kernel(cfg),
    )


def _build_srpose(cfg: CfgNode, network: PoseNetwork) -> SRPoseHead:
    channels, strides = network.feature_channels, network.feature_strides
    is_pyramid = len(strides) > 1 and strides[0] == TARGET_STRIDE
    if not is_pyramid:
        raise InputError(
            f"MODEL.HEAD: srpose needs maps of at least two sizes, the finest at stride "
            f"{TARGET_STRIDE}; {cfg.MODEL.NAME} has strides {', '.join(map(str, strides))}; use sr "
            "for a single map"
        )
    return SRPoseHead(channels, strides, _num_joints(cfg))


HEADS: dict[str, Callable[[CfgNode, PoseNetwork], Head]] = {
    "heatmap": _build_heatmap,
    "higher": _build_higher,
    "simcc": _build_simcc,
    "sr": _build_sr,
    "srpose": _build_srpose,
}


def uses_tags(cfg: CfgNode) -> bool:
    """Return True if the experiment's network also predicts tags, as bottom-up networks do."""
    return settings.get(cfg, "MODEL.TARGET_TYPE", "gaussian") == "tags"


def uses_all_levels(cfg: CfgNode) -> bool:
    """Return True if the experiment's head uses all maps of the backbone, not only one."""
    return settings.get(cfg, "MODEL.HEAD", "heatmap") == "srpose"
