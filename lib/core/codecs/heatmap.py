"""Gaussian heatmaps, the representation of SimpleBaseline and HRNet.

Formulas: lib/dataset/JointsDataset.py, lib/core/loss.py, lib/core/inference.py and
lib/core/evaluate.py of leoxiaobin/deep-high-resolution-net.pytorch.
"""

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor
from yacs.config import CfgNode

from lib.core.codecs.codec import Codec, RawOutputs, as_outputs, permute_joints
from lib.core.codecs.refinement import Refine, build_refinement, quarter_step
from lib.keypoints.geometry import flip_permutation
from lib.keypoints.metrics import pck
from lib.keypoints.skeletons import Skeleton
from lib.utils.devices import to_like
from lib.utils.errors import InputError


class Target(NamedTuple):
    """Target heatmaps (N, K, H, W) and their loss weights (N, K)."""

    heatmaps: Tensor
    weight: Tensor


def joints_mse(
    heatmaps: Tensor, target: Tensor, weight: Tensor | None, topk: int | None = None
) -> Tensor:
    """Return half the mean squared error of heatmaps.

    Args:
        heatmaps, target: (N, K, H, W).
        weight: (N, K), factors for both heatmaps and target; None for equal weights.
        topk: average only over each person's ``topk`` joints with the highest error (online hard
            keypoint mining); None: over all joints.
    """
    difference = heatmaps - target
    if weight is not None:
        difference = difference * weight[:, :, None, None]
    if topk is None:
        return 0.5 * difference.square().mean()
    return 0.5 * difference.square().mean(dim=(2, 3)).topk(topk, dim=1).values.mean()


@dataclass(eq=False)
class HeatmapCodec(Codec):
    """Codec with a Gaussian heatmap for each joint, decoded at the maximum of the last output.

    Attributes:
        image_size, heatmap_size: (width, height) of the network's input and output.
        sigma: standard deviation of the Gaussian in heatmap pixels.
        refine: sub-pixel refinement of the maxima (lib/core/codecs/refinement.py), or None.
        shift: in the flip test, shift flipped heatmaps one pixel to the right to align them.
        joint_weights: loss weights of the K joints; None for equal weights.
        topk: as for ``joints_mse``.
        uses_weight: weight the loss of the joints by the target's weights.
        stride: crop pixels per heatmap pixel along x and y.
    """

    image_size: tuple[int, int]
    heatmap_size: tuple[int, int]
    sigma: float
    flip_pairs: tuple[tuple[int, int], ...]
    refine: Refine | None = quarter_step
    shift: bool = True
    joint_weights: tuple[float, ...] | None = None
    topk: int | None = None
    uses_weight: bool = True

    def __post_init__(self) -> None:
        (width, height), (columns, rows) = self.image_size, self.heatmap_size
        self.stride = (width / columns, height / rows)

    def encode(self, joints: Tensor, visible: Tensor) -> Target:
        """Return heatmaps for joints (N, K, 2) in crop pixels and visibility flags (N, K).

        A Gaussian is centred on the nearest pixel, has a peak of 1 and is truncated at 3 sigma. The
        heatmap of a joint that is not visible is 0. A joint whose whole Gaussian lies outside
        the heatmap has weight 0.
        """
        width, height = self.heatmap_size
        # Dividing axis by axis avoids a tensor of strides, which would be copied to the GPU.
        x, y = joints[..., 0] / self.stride[0], joints[..., 1] / self.stride[1]
        weight = visible * self._overlaps(x, width) * self._overlaps(y, height)
        rows = self._gaussian(y, height)
        columns = self._gaussian(x, width) * (weight > 0.5)[..., None]
        heatmaps = rows[..., :, None] * columns[..., None, :]
        if self.joint_weights is not None:
            weight = weight * to_like(torch.tensor(self.joint_weights), weight)
        return Target(heatmaps, weight)

    def _overlaps(self, coords: Tensor, length: int) -> Tensor:
        """Return (N, K), True if the Gaussian at ``coords`` overlaps pixels 0 to ``length`` - 1.

        As in the published code, a Gaussian that ends at pixel -1 also counts.
        """
        radius = int(3 * self.sigma)
        pixel = nearest_pixel(coords)
        return (pixel - radius < length) & (pixel + radius + 1 >= 0)

    def _gaussian(self, coords: Tensor, length: int) -> Tensor:
        """Return the truncated Gaussian along one axis, (N, K, length)."""
        distance = distances(nearest_pixel(coords), length)
        value = torch.exp(-distance.square() / (2 * self.sigma**2))
        return value * (distance.abs() <= int(3 * self.sigma))

    def loss(self, outputs: RawOutputs, target: Target) -> Tensor:
        """Return the sum of the losses of all outputs."""
        outputs = as_outputs(outputs)
        for output in outputs:
            self._check_size(output)
        weight = target.weight if self.uses_weight else None
        return sum(joints_mse(output, target.heatmaps, weight, self.topk) for output in outputs)

    def flip(self, outputs: RawOutputs) -> Tensor:
        heatmaps = as_outputs(outputs)[-1]
        order = flip_permutation(heatmaps.shape[1], self.flip_pairs)
        heatmaps = heatmaps.flip(3)
        if self.shift:
            heatmaps = torch.cat([heatmaps[..., :1], heatmaps[..., :-1]], dim=3)
        return permute_joints(heatmaps, order)

    def average(self, outputs: RawOutputs, flipped: Tensor) -> Tensor:
        return (as_outputs(outputs)[-1] + flipped) * 0.5

    def decode(self, outputs: RawOutputs) -> tuple[Tensor, Tensor]:
        """Return keypoints (N, K, 2) in crop pixels and scores (N, K).

        A heatmap without a positive value gives the keypoint (0, 0).
        """
        heatmaps = as_outputs(outputs)[-1].float()  # bfloat16 cannot represent all coordinates
        self._check_size(heatmaps)
        coords, scores = maxima(heatmaps)
        if self.refine is not None:
            coords = self.refine(heatmaps, coords, scores)
        x, y = coords.unbind(-1)
        return torch.stack([x * self.stride[0], y * self.stride[1]], dim=-1), scores

    def _check_size(self, heatmaps: Tensor) -> None:
        width, height = self.heatmap_size
        if heatmaps.shape[2:] != (height, width):
            raise InputError(
                f"MODEL.HEATMAP_SIZE is [{width}, {height}], but the network's heatmaps are "
                f"[{heatmaps.shape[3]}, {heatmaps.shape[2]}]"
            )

    def accuracy(self, outputs: RawOutputs, target: Target) -> tuple[Tensor, Tensor]:
        coords, _ = maxima(as_outputs(outputs)[-1])
        ground_truth, _ = maxima(target.heatmaps)
        return pck(coords, ground_truth, self.heatmap_size)

    def maps(self, outputs: RawOutputs) -> Tensor:
        return as_outputs(outputs)[-1]


def maxima(heatmaps: Tensor) -> tuple[Tensor, Tensor]:
    """Return the coordinates (N, K, 2) and values (N, K) of the maxima of heatmaps (N, K, H, W).

    Coordinates are (x, y). They are (0, 0) where the maximum is not positive.
    """
    width = heatmaps.shape[3]
    scores, index = heatmaps.flatten(2).max(dim=2)
    coords = torch.stack([index % width, index // width], dim=-1).to(heatmaps.dtype)
    return coords * (scores > 0)[..., None], scores


def nearest_pixel(coords: Tensor) -> Tensor:
    """Round with ``int(coords + 0.5)``, which truncates toward zero, as in the published code."""
    return (coords + 0.5).trunc()


def distances(coords: Tensor, length: int) -> Tensor:
    """Return signed distances (..., length) of the pixels of an axis from ``coords`` (...)."""
    return torch.arange(length, device=coords.device) - coords[..., None]


def build(
    cfg: CfgNode,
    skeleton: Skeleton,
    codec_class: type[HeatmapCodec] = HeatmapCodec,
    default_refine: str = "quarter",
) -> HeatmapCodec:
    """Build the codec of an experiment from MODEL.*, LOSS.* and TEST.*.

    ``default_refine`` is the refinement used if TEST.REFINE is empty.
    """
    uses_ohkm = cfg.LOSS.USE_OHKM
    if uses_ohkm and not 0 < cfg.LOSS.TOPK <= len(skeleton):
        raise InputError(f"LOSS.TOPK: must be from 1 to {len(skeleton)}, the number of joints")
    return codec_class(
        cfg.MODEL.IMAGE_SIZE,
        cfg.MODEL.HEATMAP_SIZE,
        cfg.MODEL.SIGMA,
        skeleton.flip_pairs,
        refine=build_refinement(cfg, default_refine),
        shift=cfg.TEST.SHIFT_HEATMAP,
        joint_weights=skeleton.joint_weights if cfg.LOSS.USE_DIFFERENT_JOINTS_WEIGHT else None,
        topk=cfg.LOSS.TOPK if uses_ohkm else None,
        uses_weight=cfg.LOSS.USE_TARGET_WEIGHT,
    )
