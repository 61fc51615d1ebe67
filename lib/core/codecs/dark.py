"""DARK: heatmaps encoded and decoded with sub-pixel accuracy.

Zhang et al.: Distribution-Aware Coordinate Representation for Human Pose Estimation. CVPR 2020.
Numerically equivalent to ``MSRAHeatmap(unbiased=True)`` of mmpose 1.x.
"""

import torch
from torch import Tensor
from yacs.config import CfgNode

from lib.core.codecs import heatmap
from lib.core.codecs.heatmap import HeatmapCodec, distances
from lib.keypoints.skeletons import Skeleton


class DarkCodec(HeatmapCodec):
    """``HeatmapCodec`` with Gaussians centred on the exact joint and not truncated."""

    def _overlaps(self, coords: Tensor, length: int) -> Tensor:
        radius = 3 * self.sigma
        return (coords - radius < length) & (coords + radius + 1 >= 0)

    def _gaussian(self, coords: Tensor, length: int) -> Tensor:
        return torch.exp(-distances(coords, length).square() / (2 * self.sigma**2))


def build(cfg: CfgNode, skeleton: Skeleton) -> HeatmapCodec:
    """Build the codec of an experiment. If TEST.REFINE is empty, the refinement is ``dark``."""
    return heatmap.build(cfg, skeleton, DarkCodec, "dark")
