"""Heatmaps as large as the crop, as SRPose's heads make them.

Numbers: TopDownSRPoseHead of haonanwang0522/SRPose. Its flip test shifts a tensor by copying
overlapping slices of one memory, so that columns repeat at random; here it is the plain shift.
"""

import torch
from torch.nn import functional
from yacs.config import CfgNode

from lib.core.codecs import heatmap
from lib.core.codecs.codec import RawOutputs, as_outputs
from lib.core.codecs.heatmap import HeatmapCodec, Target
from lib.keypoints.skeletons import Skeleton
from lib.utils.errors import InputError

COARSEST_WEIGHT = 1e-4  # of the first of several outputs in the loss


class FullCodec(HeatmapCodec):
    """One target of the crop's size, pooled for outputs that are smaller."""

    def loss(self, outputs: RawOutputs, target: Target) -> torch.Tensor:
        """Twice ``joints_mse`` of each output, added; of several the first, the coarsest, counts
        for next to nothing."""
        outputs = as_outputs(outputs)
        self._check(outputs[-1])
        pooled = {target.heatmaps.shape[2:]: target.heatmaps}
        total = 0
        for number, output in enumerate(outputs):
            share = COARSEST_WEIGHT if number == 0 and len(outputs) > 1 else 1.0
            size = output.shape[2:]
            if size not in pooled:
                pooled[size] = functional.adaptive_avg_pool2d(target.heatmaps, size)
            total = total + 2 * share * self._loss(output, pooled[size], target.weight)
        return total


def build(cfg: CfgNode, skeleton: Skeleton) -> HeatmapCodec:
    """The codec of an experiment; it refines by a quarter of a pixel."""
    if list(cfg.MODEL.HEATMAP_SIZE) != list(cfg.MODEL.IMAGE_SIZE):
        raise InputError(
            f"MODEL.HEATMAP_SIZE: must be MODEL.IMAGE_SIZE, {list(cfg.MODEL.IMAGE_SIZE)}, for "
            f"MODEL.TARGET_TYPE full, not {list(cfg.MODEL.HEATMAP_SIZE)}"
        )
    return heatmap.build(cfg, skeleton, FullCodec)
