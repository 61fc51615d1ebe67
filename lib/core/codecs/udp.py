"""UDP: crops, mirrored crops and heatmaps that lie exactly on each other.

Huang et al.: The Devil Is in the Details: Delving Into Unbiased Data Processing for Human Pose
Estimation. CVPR 2020. Numbers: ``UDPHeatmap`` of mmpose 1.x, except that its ``decode`` takes the
first pixel's middle to the last one's for one pixel more than ``encode`` does; here both are the
same. The crop's part is in lib/keypoints/geometry.py.
"""

import torch
from yacs.config import CfgNode

from lib.core.codecs import heatmap
from lib.core.codecs.heatmap import HeatmapCodec, distances, nearest_pixel
from lib.keypoints.skeletons import Skeleton
from lib.utils.errors import InputError


class UdpCodec(HeatmapCodec):
    """As its base, with Gaussians centred on the joint itself, and sizes counted from the
    middle of the first pixel to the middle of the last. Mirrored heatmaps need no shift."""

    def __init__(self, image_size, heatmap_size, sigma, flip_pairs, shift=False, **rest) -> None:
        super().__init__(image_size, heatmap_size, sigma, flip_pairs, shift=shift, **rest)
        self.stride = tuple(
            (image - 1) / (length - 1)
            for image, length in zip(image_size, heatmap_size, strict=True)
        )

    def _gaussian(self, coords: torch.Tensor, length: int) -> torch.Tensor:
        value = torch.exp(-distances(coords, length).square() / (2 * self.sigma**2))
        return value * (distances(nearest_pixel(coords), length).abs() <= int(3 * self.sigma))


def build(cfg: CfgNode, skeleton: Skeleton) -> HeatmapCodec:
    """The codec of an experiment; it refines by UDP's step unless TEST.REFINE says otherwise, and
    TEST.SHIFT_HEATMAP has no effect."""
    if min(cfg.MODEL.HEATMAP_SIZE) < 2:
        raise InputError("MODEL.HEATMAP_SIZE: must be 2 pixels or more each way for udp")
    return heatmap.build(cfg, skeleton, UdpCodec, "udp", shift=False)
