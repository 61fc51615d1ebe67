"""Heatmaps of the size of the crop, as predicted by SRPose's heads.

Numerically equivalent to TopDownSRPoseHead of haonanwang0522/SRPose, except for the flip test. The
published flip test shifts the mirrored heatmaps by copying between overlapping slices of one
tensor, so that columns repeat at random. Here the shift is exact.
"""

from torch import Tensor
from torch.nn import functional
from yacs.config import CfgNode

from lib.core.codecs import heatmap
from lib.core.codecs.codec import RawOutputs, as_outputs
from lib.core.codecs.heatmap import HeatmapCodec, Target, joints_mse
from lib.keypoints.skeletons import Skeleton
from lib.utils.errors import InputError

COARSEST_WEIGHT = 1e-4  # loss weight of the first of several outputs


class FullCodec(HeatmapCodec):
    """``HeatmapCodec`` whose target has the size of the crop and is pooled for smaller outputs."""

    def loss(self, outputs: RawOutputs, target: Target) -> Tensor:
        """Return the sum of the mean squared errors of all outputs.

        The first of several outputs, the coarsest, has the weight ``COARSEST_WEIGHT``.
        """
        outputs = as_outputs(outputs)
        self._check_size(outputs[-1])
        joint_weight = target.weight if self.uses_weight else None
        pooled = {target.heatmaps.shape[2:]: target.heatmaps}
        total = 0
        for index, output in enumerate(outputs):
            weight = COARSEST_WEIGHT if index == 0 and len(outputs) > 1 else 1.0
            size = output.shape[2:]
            if size not in pooled:
                pooled[size] = functional.adaptive_avg_pool2d(target.heatmaps, size)
            # joints_mse returns half the mean squared error.
            total = total + 2 * weight * joints_mse(output, pooled[size], joint_weight, self.topk)
        return total


def build(cfg: CfgNode, skeleton: Skeleton) -> HeatmapCodec:
    """Build the codec of an experiment, with quarter-pixel refinement unless TEST.REFINE is set."""
    if list(cfg.MODEL.HEATMAP_SIZE) != list(cfg.MODEL.IMAGE_SIZE):
        raise InputError(
            f"MODEL.HEATMAP_SIZE: must equal MODEL.IMAGE_SIZE, {list(cfg.MODEL.IMAGE_SIZE)}, for "
            f"MODEL.TARGET_TYPE full, not {list(cfg.MODEL.HEATMAP_SIZE)}"
        )
    return heatmap.build(cfg, skeleton, FullCodec)
