"""Keypoints as Gaussian heatmaps: the representation of SimpleBaseline and HRNet.

Formulas: lib/dataset/JointsDataset.py, lib/core/inference.py and lib/core/evaluate.py of
leoxiaobin/deep-high-resolution-net.pytorch.
"""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import torch
from yacs.config import CfgNode

from lib.core.codecs.codec import Codec, RawOutputs, as_outputs, permute_joints, scaled
from lib.core.codecs.losses import joints_mse, joints_ohkm_mse
from lib.core.codecs.refinement import Refine, build_refine, quarter_step
from lib.keypoints.geometry import flip_permutation
from lib.keypoints.metrics import pck
from lib.keypoints.skeletons import Skeleton
from lib.utils.errors import InputError

Loss = Callable[[torch.Tensor, torch.Tensor, torch.Tensor | None], torch.Tensor]


class Target(NamedTuple):
    """Target heatmaps (N, K, H, W), and the weight (N, K) of each in the loss."""

    heatmaps: torch.Tensor
    weight: torch.Tensor


class HeatmapCodec(Codec):
    """A Gaussian for each joint, decoded at its maximum; of several outputs the last is decoded.

    Args:
        image_size, heatmap_size: (width, height) of the network's input and output.
        sigma: of the Gaussian, in heatmap pixels.
        flip_pairs: joints that a mirror exchanges.
        refine: what moves maxima between pixels, from lib.core.codecs.refinement; None leaves them
            on their pixels.
        shift: move mirrored heatmaps one pixel to the right, where they fit the others better.
        joint_weights: K weights in the loss, None for 1.
        loss: of heatmaps, target heatmaps and weight.
    """

    def __init__(
        self,
        image_size: tuple[int, int],
        heatmap_size: tuple[int, int],
        sigma: float,
        flip_pairs: tuple[tuple[int, int], ...],
        refine: Refine | None = quarter_step,
        shift: bool = True,
        joint_weights: tuple[float, ...] | None = None,
        loss: Loss = joints_mse,
    ) -> None:
        self.heatmap_size = tuple(heatmap_size)
        self.stride = (image_size[0] / heatmap_size[0], image_size[1] / heatmap_size[1])
        self.sigma = sigma
        self.refine = refine
        self.shift = shift
        self._flip_pairs = flip_pairs
        self._joint_weights = joint_weights
        self._loss = loss

    def encode(self, joints: torch.Tensor, visible: torch.Tensor) -> Target:
        """Heatmaps for joints (N, K, 2) in crop pixels and flags (N, K).

        A Gaussian sits on a whole pixel, has the peak 1 and ends at three sigma. A joint that is
        not visible has an empty map, and one whose Gaussian lies outside weighs nothing.
        """
        width, height = self.heatmap_size
        # Axis by axis: a tensor made of Python numbers would have to be copied to a GPU each time.
        x, y = joints[..., 0] / self.stride[0], joints[..., 1] / self.stride[1]
        weight = visible * self._reaches(x, width) * self._reaches(y, height)
        rows = self._gaussian(y, height)
        columns = self._gaussian(x, width) * (weight > 0.5)[..., None]
        heatmaps = rows[..., :, None] * columns[..., None, :]
        if self._joint_weights is not None:
            weight = weight * weight.new_tensor(self._joint_weights)
        return Target(heatmaps, weight)

    def _reaches(self, coords: torch.Tensor, length: int) -> torch.Tensor:
        """(N, K): whether the Gaussian at ``coords`` touches a map of that length."""
        reach = int(3 * self.sigma)
        pixel = nearest_pixel(coords)
        return (pixel - reach < length) & (pixel + reach + 1 >= 0)

    def _gaussian(self, coords: torch.Tensor, length: int) -> torch.Tensor:
        """(N, K, length): the Gaussian's share along one axis, 0 beyond its reach."""
        distance = distances(nearest_pixel(coords), length)
        value = torch.exp(-distance.square() / (2 * self.sigma**2))
        return value * (distance.abs() <= int(3 * self.sigma))

    def loss(self, outputs: RawOutputs, target: Target) -> torch.Tensor:
        """The sum of the losses of all outputs."""
        outputs = as_outputs(outputs)
        for output in outputs:
            self._check(output)
        return sum(self._loss(output, target.heatmaps, target.weight) for output in outputs)

    def flip(self, outputs: RawOutputs) -> torch.Tensor:
        """Heatmaps (N, K, H, W) for mirrored crops, mirrored back."""
        heatmaps = last_output(outputs)
        order = flip_permutation(heatmaps.shape[1], self._flip_pairs)
        heatmaps = heatmaps.flip(3)
        if self.shift:
            heatmaps = torch.cat([heatmaps[..., :1], heatmaps[..., :-1]], dim=3)
        return permute_joints(heatmaps, order)

    def average(self, outputs: RawOutputs, flipped: torch.Tensor) -> torch.Tensor:
        """The flip test's result: the mean of the heatmaps and of what ``flip`` returned."""
        return (last_output(outputs) + flipped) * 0.5

    def decode(self, outputs: RawOutputs) -> tuple[torch.Tensor, torch.Tensor]:
        """Keypoints (N, K, 2) in crop pixels and scores (N, K); a map without a positive value
        gives (0, 0)."""
        heatmaps = last_output(outputs).float()  # half precision cannot count to 512
        self._check(heatmaps)
        coords, scores = maxima(heatmaps)
        if self.refine is not None:
            coords = self.refine(heatmaps, coords, scores)
        return scaled(coords, *self.stride), scores

    def _check(self, heatmaps: torch.Tensor) -> None:
        width, height = self.heatmap_size
        if heatmaps.shape[2:] != (height, width):
            raise InputError(
                f"MODEL.HEATMAP_SIZE: is [{width}, {height}], but the network's heatmaps have "
                f"[{heatmaps.shape[3]}, {heatmaps.shape[2]}]"
            )

    def accuracy(self, outputs: RawOutputs, target: Target) -> tuple[torch.Tensor, torch.Tensor]:
        """PCK between the maxima of outputs and target, see ``lib.keypoints.metrics.pck``."""
        coords, _ = maxima(last_output(outputs))
        ground_truth, _ = maxima(target.heatmaps)
        return pck(coords, ground_truth, self.heatmap_size)

    def maps(self, outputs: RawOutputs) -> torch.Tensor:
        return last_output(outputs)


def maxima(heatmaps: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The maxima of heatmaps (N, K, H, W): coords (N, K, 2) as x, y, and values (N, K); the coords
    are (0, 0) where the value is not above 0."""
    width = heatmaps.shape[3]
    scores, index = heatmaps.flatten(2).max(dim=2)
    coords = torch.stack([index % width, index // width], dim=-1).to(heatmaps.dtype)
    return coords * (scores > 0)[..., None], scores


def nearest_pixel(coords: torch.Tensor) -> torch.Tensor:
    """The whole number that published code takes for the nearest; below 0 it is another."""
    return (coords + 0.5).trunc()


def distances(coords: torch.Tensor, length: int) -> torch.Tensor:
    """(..., length): signed distances of an axis' pixels from ``coords`` (...)."""
    return torch.arange(length, device=coords.device) - coords[..., None]


def last_output(outputs: RawOutputs) -> torch.Tensor:
    """The finest of several outputs, or the only one."""
    return as_outputs(outputs)[-1]


def build(
    cfg: CfgNode,
    skeleton: Skeleton,
    kind: type[HeatmapCodec] = HeatmapCodec,
    step: str = "quarter",
    shift: bool | None = None,
) -> HeatmapCodec:
    """The codec of an experiment: MODEL.*, LOSS.* and the settings of tests in TEST.*.

    Args:
        step: the TEST.REFINE that belongs to ``kind``.
        shift: None takes TEST.SHIFT_HEATMAP.
    """
    if cfg.LOSS.USE_OHKM and not 0 < cfg.LOSS.TOPK <= len(skeleton):
        raise InputError(f"LOSS.TOPK: must be between 1 and the {len(skeleton)} joints")
    loss: Loss = partial(joints_ohkm_mse, topk=cfg.LOSS.TOPK) if cfg.LOSS.USE_OHKM else joints_mse
    if not cfg.LOSS.USE_TARGET_WEIGHT:
        loss = partial(_unweighted, loss)
    return kind(
        cfg.MODEL.IMAGE_SIZE,
        cfg.MODEL.HEATMAP_SIZE,
        cfg.MODEL.SIGMA,
        skeleton.flip_pairs,
        refine=build_refine(cfg, step),
        shift=cfg.TEST.SHIFT_HEATMAP if shift is None else shift,
        joint_weights=skeleton.joint_weights if cfg.LOSS.USE_DIFFERENT_JOINTS_WEIGHT else None,
        loss=loss,
    )


def _unweighted(
    loss: Loss, heatmaps: torch.Tensor, target: torch.Tensor, _: torch.Tensor
) -> torch.Tensor:
    return loss(heatmaps, target, None)
