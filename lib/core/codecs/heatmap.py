"""Gaussian heatmaps, the representation of SimpleBaseline and HRNet.

Formulas: lib/dataset/JointsDataset.py, lib/core/loss.py, lib/core/inference.py and
lib/core/evaluate.py of leoxiaobin/deep-high-resolution-net.pytorch.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import torch
from yacs.config import CfgNode

from lib.core.codecs.codec import Codec, RawOutputs, as_outputs, permute_joints, scaled
from lib.core.codecs.refinement import Refine, build_refine, quarter_step
from lib.keypoints.geometry import flip_permutation
from lib.keypoints.metrics import pck
from lib.keypoints.skeletons import Skeleton
from lib.utils.errors import InputError

Loss = Callable[[torch.Tensor, torch.Tensor, torch.Tensor | None], torch.Tensor]


class Target(NamedTuple):
    """Target heatmaps (N, K, H, W) and their loss weights (N, K)."""

    heatmaps: torch.Tensor
    weight: torch.Tensor


def joints_mse(
    heatmaps: torch.Tensor, target: torch.Tensor, weight: torch.Tensor | None
) -> torch.Tensor:
    """Return half the mean squared error of heatmaps.

    Args:
        heatmaps, target: (N, K, H, W).
        weight: (N, K), factors for both heatmaps and target; None for equal weights.
    """
    return 0.5 * _squared_error(heatmaps, target, weight).mean()


def joints_ohkm_mse(
    heatmaps: torch.Tensor, target: torch.Tensor, weight: torch.Tensor | None, topk: int
) -> torch.Tensor:
    """Return ``joints_mse`` over each person's ``topk`` joints with the highest loss."""
    per_joint = 0.5 * _squared_error(heatmaps, target, weight).mean(dim=(2, 3))
    return per_joint.topk(topk, dim=1).values.mean()


def _squared_error(
    heatmaps: torch.Tensor, target: torch.Tensor, weight: torch.Tensor | None
) -> torch.Tensor:
    difference = heatmaps - target
    if weight is not None:
        difference = difference * weight[:, :, None, None]
    return difference.square()


@dataclass(eq=False)
class HeatmapCodec(Codec):
    """Codec with a Gaussian heatmap for each joint, decoded at the maximum of the last output.

    Attributes:
        image_size, heatmap_size: (width, height) of the network's input and output.
        sigma: standard deviation of the Gaussian in heatmap pixels.
        flip_pairs: pairs of left and right joints.
        refine: sub-pixel refinement of the maxima, from lib.core.codecs.refinement, or None.
        shift: in the flip test, shift flipped heatmaps one pixel to the right, for alignment.
        joint_weights: loss weights of the K joints; None for equal weights.
        criterion: loss function of heatmaps, target heatmaps and weights.
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
    criterion: Loss = joints_mse
    uses_weight: bool = True

    def __post_init__(self) -> None:
        (width, height), (columns, rows) = self.image_size, self.heatmap_size
        self.stride = (width / columns, height / rows)

    def encode(self, joints: torch.Tensor, visible: torch.Tensor) -> Target:
        """Return heatmaps for joints (N, K, 2) in crop pixels and visibility flags (N, K).

        A Gaussian is centred on the nearest pixel, has a peak of 1 and is truncated at 3 sigma. The
        heatmap of a joint that is not visible is 0. A joint whose Gaussian lies outside the
        heatmap has weight 0.
        """
        width, height = self.heatmap_size
        # Dividing axis by axis avoids a tensor of strides, which would be copied to the GPU.
        x, y = joints[..., 0] / self.stride[0], joints[..., 1] / self.stride[1]
        weight = visible * self._overlaps(x, width) * self._overlaps(y, height)
        rows = self._gaussian(y, height)
        columns = self._gaussian(x, width) * (weight > 0.5)[..., None]
        heatmaps = rows[..., :, None] * columns[..., None, :]
        if self.joint_weights is not None:
            weight = weight * weight.new_tensor(self.joint_weights)
        return Target(heatmaps, weight)

    def _overlaps(self, coords: torch.Tensor, length: int) -> torch.Tensor:
        """Return (N, K), True if the Gaussian at ``coords`` overlaps an axis of that length."""
        radius = int(3 * self.sigma)
        pixel = nearest_pixel(coords)
        return (pixel - radius < length) & (pixel + radius + 1 >= 0)

    def _gaussian(self, coords: torch.Tensor, length: int) -> torch.Tensor:
        """Return the truncated Gaussian along one axis, (N, K, length)."""
        distance = distances(nearest_pixel(coords), length)
        value = torch.exp(-distance.square() / (2 * self.sigma**2))
        return value * (distance.abs() <= int(3 * self.sigma))

    def loss(self, outputs: RawOutputs, target: Target) -> torch.Tensor:
        """Return the sum of the losses of all outputs."""
        outputs = as_outputs(outputs)
        for output in outputs:
            self._check_size(output)
        weight = target.weight if self.uses_weight else None
        return sum(self.criterion(output, target.heatmaps, weight) for output in outputs)

    def flip(self, outputs: RawOutputs) -> torch.Tensor:
        """Flip back heatmaps (N, K, H, W) of mirrored crops."""
        heatmaps = last_output(outputs)
        order = flip_permutation(heatmaps.shape[1], self.flip_pairs)
        heatmaps = heatmaps.flip(3)
        if self.shift:
            heatmaps = torch.cat([heatmaps[..., :1], heatmaps[..., :-1]], dim=3)
        return permute_joints(heatmaps, order)

    def average(self, outputs: RawOutputs, flipped: torch.Tensor) -> torch.Tensor:
        """Average the heatmaps with those that ``flip`` returned."""
        return (last_output(outputs) + flipped) * 0.5

    def decode(self, outputs: RawOutputs) -> tuple[torch.Tensor, torch.Tensor]:
        """Return keypoints (N, K, 2) in crop pixels and scores (N, K).

        A heatmap without a positive value gives the keypoint (0, 0).
        """
        heatmaps = last_output(outputs).float()  # bfloat16 cannot represent all coordinates
        self._check_size(heatmaps)
        coords, scores = maxima(heatmaps)
        if self.refine is not None:
            coords = self.refine(heatmaps, coords, scores)
        return scaled(coords, *self.stride), scores

    def _check_size(self, heatmaps: torch.Tensor) -> None:
        width, height = self.heatmap_size
        if heatmaps.shape[2:] != (height, width):
            raise InputError(
                f"MODEL.HEATMAP_SIZE is [{width}, {height}], but the network's heatmaps are "
                f"[{heatmaps.shape[3]}, {heatmaps.shape[2]}]"
            )

    def accuracy(self, outputs: RawOutputs, target: Target) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the PCK between the maxima of outputs and target."""
        coords, _ = maxima(last_output(outputs))
        ground_truth, _ = maxima(target.heatmaps)
        return pck(coords, ground_truth, self.heatmap_size)

    def maps(self, outputs: RawOutputs) -> torch.Tensor:
        return last_output(outputs)


def maxima(heatmaps: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Find the maxima of heatmaps (N, K, H, W).

    Returns:
        Coordinates (N, K, 2) as x, y, and values (N, K). The coordinates of a maximum that is not
        positive are (0, 0).
    """
    width = heatmaps.shape[3]
    scores, index = heatmaps.flatten(2).max(dim=2)
    coords = torch.stack([index % width, index // width], dim=-1).to(heatmaps.dtype)
    return coords * (scores > 0)[..., None], scores


def nearest_pixel(coords: torch.Tensor) -> torch.Tensor:
    """Round as the published code does, by ``int(x + 0.5)``.

    ``int`` truncates toward zero, so this differs from rounding for negative x.
    """
    return (coords + 0.5).trunc()


def distances(coords: torch.Tensor, length: int) -> torch.Tensor:
    """Return signed distances (..., length) of the pixels of an axis from ``coords`` (...)."""
    return torch.arange(length, device=coords.device) - coords[..., None]


def last_output(outputs: RawOutputs) -> torch.Tensor:
    """Return the last output, the finest of several."""
    return as_outputs(outputs)[-1]


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
        refine=build_refine(cfg, default_refine),
        shift=cfg.TEST.SHIFT_HEATMAP,
        joint_weights=skeleton.joint_weights if cfg.LOSS.USE_DIFFERENT_JOINTS_WEIGHT else None,
        criterion=partial(joints_ohkm_mse, topk=cfg.LOSS.TOPK) if uses_ohkm else joints_mse,
        uses_weight=cfg.LOSS.USE_TARGET_WEIGHT,
    )
