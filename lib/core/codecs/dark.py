"""DARK: Gaussians that are centred between pixels, and decoded there.

Zhang et al.: Distribution-Aware Coordinate Representation for Human Pose Estimation. CVPR 2020.
Numbers: ``MSRAHeatmap(unbiased=True)`` of mmpose 1.x.
"""

import torch
from yacs.config import CfgNode

from lib.core.codecs import heatmap
from lib.core.codecs.heatmap import HeatmapCodec, distances
from lib.keypoints.skeletons import Skeleton


class DarkCodec(HeatmapCodec):
    """As its base, with Gaussians centred on the joint itself, and without an end."""

    def _reaches(self, coords: torch.Tensor, length: int) -> torch.Tensor:
        reach = 3 * self.sigma
        return (coords - reach < length) & (coords + reach + 1 >= 0)

    def _gaussian(self, coords: torch.Tensor, length: int) -> torch.Tensor:
        return torch.exp(-distances(coords, length).square() / (2 * self.sigma**2))


def build(cfg: CfgNode, skeleton: Skeleton) -> HeatmapCodec:
    """The codec of an experiment; it refines by DARK unless TEST.REFINE says otherwise."""
    return heatmap.build(cfg, skeleton, DarkCodec, "dark")
