"""Heads, which turn backbone features into heatmaps or into two vectors per joint.

- ``heatmap``: a convolution, after deconvolutions if MODEL.EXTRA.NUM_DECONV_LAYERS is set
  (SimpleBaseline, HRNet).
- ``sr``: heatmaps at input resolution from a single map.
- ``srpose``: heatmaps at input resolution from a feature pyramid, with an output at every level in
  training.
- ``simcc``: two vectors per joint, one for x and one for y.
- ``higher``: heatmaps of several resolutions, for bottom-up networks.

With MODEL.TARGET_TYPE ``tags``, for bottom-up networks, ``heatmap``, ``sr`` and ``higher`` also
output a tag map (associative embedding) for each joint, after the heatmaps: (N, 2K, H, W).
With ``higher``, only the first output contains tags.

``sr`` and ``srpose`` are from Wang, Liu, Tang, Wu: Lightweight Super-Resolution Head for Human Pose
Estimation (ACM MM 2023), haonanwang0522/SRPose, where ``sr`` exists only for bottom-up networks.
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
    name = settings.choice(cfg, "MODEL.HEAD", HEADS)
    return HEADS[name](cfg, network)


def _build_deconvolutions(cfg: CfgNode, network: PoseNetwork) -> Deconvolutions:
    extra = "MODEL.EXTRA"
    length_key = f"{extra}.NUM_DECONV_LAYERS"
    if not cfg.MODEL.EXTRA.get("NUM_DECONV_LAYERS"):
        return Deconvolutions(network, (), (), bias=False)
    length = settings.positive_int(cfg, length_key)
    kernels = _deconvolution_kernels(cfg, f"{extra}.NUM_DECONV_KERNELS", length, length_key)
    filters = settings.positive_ints(cfg, f"{extra}.NUM_DECONV_FILTERS", length, length_key)
    stride = network.feature_strides[network.main_level]
    settings.require(stride >> length, length_key, f"at most {stride.bit_length() - 1}", length)
    return Deconvolutions(network, filters, kernels, cfg.MODEL.EXTRA.DECONV_WITH_BIAS)


def _deconvolution_kernels(cfg: CfgNode, key: str, length: int, source: str) -> tuple[int, ...]:
    kernels = settings.positive_ints(cfg, key, length, source)
    settings.require(
        set(kernels) <= set(DECONV_PADDING), key, "a list of kernel sizes (2, 3 or 4)", kernels
    )
    return kernels


def _final_kernel(cfg: CfgNode) -> int:
    kernel = cfg.MODEL.EXTRA.get("FINAL_CONV_KERNEL", 1)
    settings.require(kernel in (1, 3), "MODEL.EXTRA.FINAL_CONV_KERNEL", "one of 1, 3", kernel)
    return kernel


def _num_joints(cfg: CfgNode) -> int:
    return settings.positive_int(cfg, "MODEL.NUM_JOINTS")


def _build_heatmap(cfg: CfgNode, network: PoseNetwork) -> HeatmapHead:
    layers = _build_deconvolutions(cfg, network)
    return HeatmapHead(layers, (1 + uses_tags(cfg)) * _num_joints(cfg), _final_kernel(cfg))


def _build_simcc(cfg: CfgNode, network: PoseNetwork) -> SimCCHead:
    layers = _build_deconvolutions(cfg, network)
    width, height = cfg.MODEL.IMAGE_SIZE
    ratio = cfg.MODEL.SIMDR_SPLIT_RATIO
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
    if "DECONV" not in cfg.MODEL.EXTRA:
        raise InputError(
            f"MODEL.HEAD: higher works only with pose_hrnet, not with {cfg.MODEL.NAME}"
        )
    source = f"{key}.NUM_DECONVS"
    count = settings.positive_int(cfg, source)
    uses_output = cfg.MODEL.EXTRA.DECONV.CAT_OUTPUT
    expected = f"a list of {count} values, true or false"
    settings.require(len(uses_output) == count, f"{key}.CAT_OUTPUT", expected, uses_output)
    return HigherHead(
        network.feature_channels[network.main_level],
        _num_joints(cfg),
        channels=settings.positive_ints(cfg, f"{key}.NUM_CHANNELS", count, source),
        kernels=_deconvolution_kernels(cfg, f"{key}.KERNEL_SIZE", count, source),
        uses_output=uses_output,
        num_blocks=settings.positive_int(cfg, f"{key}.NUM_BASIC_BLOCKS"),
        final_kernel=_final_kernel(cfg),
    )


def _build_srpose(cfg: CfgNode, network: PoseNetwork) -> SRPoseHead:
    channels, strides = network.feature_channels, network.feature_strides
    if len(strides) == 1 or strides[0] != TARGET_STRIDE:
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
    """Return True if the network also predicts tags, as bottom-up networks do."""
    return cfg.MODEL.TARGET_TYPE == "tags"


def uses_all_levels(cfg: CfgNode) -> bool:
    """Return True if the head uses all maps of the backbone, not only one."""
    return cfg.MODEL.HEAD == "srpose"
