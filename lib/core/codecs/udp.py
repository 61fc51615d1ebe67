"""UDP: unbiased heatmaps, which align exactly with the crop and stay aligned when mirrored.

Huang et al.: The Devil Is in the Details: Delving Into Unbiased Data Processing for Human Pose
Estimation. CVPR 2020. Results match ``UDPHeatmap`` of mmpose 1.x, except for one difference. For a
crop of width W and a heatmap of width w, mmpose encodes with the stride (W - 1) / (w - 1) but
decodes with W / (w - 1), and likewise for the height. Here both use (W - 1) / (w - 1). UDP's crop
transform is in lib/keypoints/geometry.py.
"""

import torch
from torch import Tensor
from yacs.config import CfgNode

from lib.core.codecs import heatmap
from lib.core.codecs.heatmap import HeatmapCodec, distances, nearest_pixel
from lib.keypoints.skeletons import Skeleton
from lib.utils.errors import InputError


class UdpCodec(HeatmapCodec):
    """``HeatmapCodec`` with Gaussians centred on the exact joint.

    Sizes are measured from the centre of the first pixel to the centre of the last. Flipped
    heatmaps need no shift.
    """

    def __post_init__(self) -> None:
        (width, height), (columns, rows) = self.image_size, self.heatmap_size
        self.stride = ((width - 1) / (columns - 1), (height - 1) / (rows - 1))
        self.shift = False

    def _gaussian(self, coords: Tensor, length: int) -> Tensor:
        value = torch.exp(-distances(coords, length).square() / (2 * self.sigma**2))
        return value * (distances(nearest_pixel(coords), length).abs() <= int(3 * self.sigma))


def build(cfg: CfgNode, skeleton: Skeleton) -> HeatmapCodec:
    """Build the codec of an experiment, with UDP's refinement unless TEST.REFINE is set.

    TEST.SHIFT_HEATMAP has no effect.
    """
    if min(cfg.MODEL.HEATMAP_SIZE) < 2:
        raise InputError("MODEL.HEATMAP_SIZE: width and height must be at least 2 for udp")
    return heatmap.build(cfg, skeleton, UdpCodec, "udp")
