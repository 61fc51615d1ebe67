"""SimCC: where a joint is along x and along y, each as a distribution over bins.

Li et al.: SimCC: a Simple Coordinate Classification Perspective for Human Pose Estimation. ECCV
2022. Numbers: lib/dataset/JointsDataset.py, lib/core/loss.py and lib/core/function.py of
leeyegy/SimCC. mmpose's own: mmpose/codecs/simcc_label.py and
mmpose/models/losses/classification_loss.py of mmpose 1.x; of these RTMPose's is Jiang et al.:
RTMPose: Real-Time Multi-Person Pose Estimation based on MMPose. arXiv:2303.07399.

Outputs are (N, K, bins along x) and (N, K, bins along y): logits, but for RTMPose heights.
"""

import math
from typing import NamedTuple

import torch
from torch.nn import functional
from yacs.config import CfgNode

from lib.core.codecs.codec import Codec, Outputs, RawOutputs, as_outputs, permute_joints
from lib.core.codecs.heatmap import nearest_pixel
from lib.core.codecs.refinement import chosen_blur, dark_step_1d
from lib.keypoints.geometry import flip_permutation
from lib.keypoints.metrics import pck
from lib.keypoints.skeletons import Skeleton
from lib.utils.errors import InputError


class Bins(NamedTuple):
    """Target distributions along each axis, and the weight (N, K) of each joint in the loss."""

    x: torch.Tensor
    y: torch.Tensor
    weight: torch.Tensor

    @property
    def heatmaps(self) -> torch.Tensor:
        """(N, K, h, w), small, with the peak 1."""
        return _product(self.x, self.y)


class SimCCCodec(Codec):
    """A distribution for each axis.

    Args:
        image_size: (width, height) of the crop.
        ratio: bins to a pixel.
        sigma: of the target's Gaussian along x and y, in bins; None for whole bins.
        on_bins: Gaussians are centred on the joint's nearest bin, not on the joint.
        beta: Gaussians have the height 1, not the area 1, and outputs learn these heights: the loss
            compares the softmax of both times ``beta``. None for logits.
        smoothing: of whole bins: what all bins but the joint's share.
        is_mean: of whole bins: mean over bins and joints, not the sum.
        shift: in the flip test, move mirrored distributions along x one bin to the left.
        blur: widths of the blurs along x and y of DARK's step between bins; None for no step.
    """

    def __init__(
        self,
        image_size: tuple[int, int],
        ratio: float,
        sigma: tuple[float, float] | None,
        flip_pairs: tuple[tuple[int, int], ...],
        on_bins: bool = False,
        beta: float | None = None,
        smoothing: float = 0.1,
        is_mean: bool = False,
        shift: bool = True,
        blur: tuple[int, int] | None = None,
        joint_weights: tuple[float, ...] | None = None,
        uses_weight: bool = True,
    ) -> None:
        self.image_size = tuple(image_size)
        self.ratio = ratio
        self.bins = (int(image_size[0] * ratio), int(image_size[1] * ratio))
        self.sigma = sigma
        self.on_bins = on_bins
        self.beta = beta
        self.smoothing = smoothing
        self.is_mean = is_mean or sigma is not None
        self.shift = shift
        self.blur = blur
        self._flip_pairs = flip_pairs
        self._joint_weights = joint_weights
        self._uses_weight = uses_weight

    def encode(self, joints: torch.Tensor, visible: torch.Tensor) -> Bins:
        """Distributions for joints (N, K, 2) in crop pixels and flags (N, K).

        A joint weighs nothing where it lies outside the crop, or its Gaussian does.
        """
        along = self._whole_bin if self.sigma is None else self._gaussian
        (is_near_x, x), (is_near_y, y) = (along(joints[..., i], i) for i in (0, 1))
        weight = visible * is_near_x * is_near_y
        is_there = (weight > 0.5)[..., None]
        if self._joint_weights is not None:
            weight = weight * weight.new_tensor(self._joint_weights)
        return Bins(x * is_there, y * is_there, weight)

    def _gaussian(self, coords: torch.Tensor, i: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Along axis ``i``: whether any of it lies inside (N, K), and (N, K, bins)."""
        sigma, bins = self.sigma[i], self.bins[i]
        center = coords * self.ratio
        if self.on_bins:
            center = center.round()
            is_near = (center - 3 * sigma < bins) & (center + 3 * sigma + 1 >= 0)
        else:
            reach = 3 * sigma  # in pixels, though sigma is in bins: as published
            is_near = (coords - reach).trunc() < self.image_size[i]
            is_near &= (coords + reach + 1).trunc() >= 0
        distance = torch.arange(bins, device=coords.device) - center[..., None]
        height = 1 / (sigma * math.sqrt(2 * math.pi)) if self.beta is None else 1
        return is_near, height * torch.exp(-distance.square() / (2 * sigma**2))

    def _whole_bin(self, coords: torch.Tensor, i: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Along axis ``i``: whether it lies inside (N, K), and (N, K, bins), most of it in the
        joint's bin, the rest spread evenly."""
        length, bins = self.image_size[i], self.bins[i]
        inside = torch.where(coords >= length, length - 1, coords).clamp(min=0)
        index = nearest_pixel(inside * self.ratio).clamp(max=bins - 1)
        is_bin = torch.arange(bins, device=coords.device) == index[..., None]
        share = torch.where(is_bin, 1 - self.smoothing, self.smoothing / (bins - 1))
        return (coords >= 0) & (coords < length), share.to(coords.dtype)

    def loss(self, outputs: RawOutputs, target: Bins) -> torch.Tensor:
        """The Kullback-Leibler divergence of both axes, added: the mean over bins, people and
        joints, or the sum over bins and joints and the mean over people."""
        self._check(outputs)
        total = 0
        for logits, share in zip(outputs, target[:2], strict=True):
            if self.beta is not None:
                logits, share = self.beta * logits, (self.beta * share).softmax(2)
            divergence = functional.kl_div(logits.log_softmax(2), share, reduction="none")
            joint = divergence.mean(2) if self.is_mean else divergence.sum(2)
            if self._uses_weight:
                joint = joint * target.weight
            total = total + (joint.mean() if self.is_mean else joint.sum() / len(joint))
        return total

    def flip(self, outputs: RawOutputs) -> Outputs:
        """Logits for mirrored crops, mirrored back."""
        order = flip_permutation(outputs[0].shape[1], self._flip_pairs)
        x, y = (permute_joints(logits, order) for logits in outputs)
        x = x.flip(2)
        if self.shift:
            x = torch.cat([x[..., 1:], x[..., -1:]], dim=2)
        return x, y

    def average(self, outputs: RawOutputs, flipped: RawOutputs) -> Outputs:
        """Gaussian targets: the mean of the logits. Whole bins: the logits of the mean
        distribution."""
        pairs = zip(outputs, flipped, strict=True)
        if self.sigma is not None:
            return tuple((a + b) * 0.5 for a, b in pairs)
        # Of the shares' logarithms: some shares are too small for a float.
        return tuple(
            torch.logaddexp(a.log_softmax(2), b.log_softmax(2)) - math.log(2) for a, b in pairs
        )

    def decode(self, outputs: RawOutputs) -> tuple[torch.Tensor, torch.Tensor]:
        """Keypoints (N, K, 2) in crop pixels, and the smaller of the two largest shares or heights
        (N, K)."""
        self._check(outputs)
        axes = [self._values(axis.float()) for axis in outputs]
        best = [axis.max(2) for axis in axes]
        coords = [axis.indices.float() for axis in best]
        if self.blur is not None:
            highest = [axis.values for axis in best]
            coords = list(map(dark_step_1d, axes, coords, highest, self.blur))
        scores = torch.minimum(best[0].values, best[1].values)
        return torch.stack(coords, dim=-1) / self.ratio, scores

    def accuracy(self, outputs: RawOutputs, target: Bins) -> tuple[torch.Tensor, torch.Tensor]:
        """PCK, see ``lib.keypoints.metrics.pck``, in bins."""
        coords, ground_truth = (
            torch.stack([axis.argmax(2) for axis in axes], dim=-1).float()
            for axes in (outputs, target[:2])
        )
        return pck(coords, ground_truth, self.bins)

    def maps(self, outputs: RawOutputs) -> torch.Tensor:
        return _product(*(self._values(axis).clamp(min=0) for axis in outputs))

    def _values(self, axis: torch.Tensor) -> torch.Tensor:
        return axis.softmax(2) if self.beta is None else axis

    def _check(self, outputs: RawOutputs) -> None:
        outputs = as_outputs(outputs)
        found = tuple(logits.shape[2] for logits in outputs) if len(outputs) == 2 else None
        if found != self.bins:
            raise InputError(
                f"MODEL.SIMDR_SPLIT_RATIO: asks for {self.bins[0]} and {self.bins[1]} bins, but "
                f"the network's outputs have {found or 'no bins; MODEL.HEAD simcc makes them'}"
            )


def _product(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """(N, K, bins / 8) along both axes -> (N, K, h, w) with the peak 1."""
    small = [functional.adaptive_max_pool1d(axis, max(axis.shape[2] // 8, 1)) for axis in (x, y)]
    across, down = (axis / axis.amax(2, keepdim=True).clamp(min=1e-9) for axis in small)
    return down[..., :, None] * across[..., None, :]


def build(cfg: CfgNode, skeleton: Skeleton) -> SimCCCodec:
    """The codec of an experiment. MODEL.TARGET_TYPE simcc: whole bins; sa_simcc: Gaussians around
    joints; mm_simcc: around their nearest bins; rtm_simcc: the same with height 1."""
    kind = cfg.MODEL.TARGET_TYPE
    ratio, smoothing = cfg.MODEL.SIMDR_SPLIT_RATIO, cfg.LOSS.LABEL_SMOOTHING
    if cfg.LOSS.USE_OHKM:
        raise InputError("LOSS.USE_OHKM: is for heatmaps; simcc has no such loss")
    if not 0 <= smoothing < 1:
        raise InputError(f"LOSS.LABEL_SMOOTHING: must be from 0 to below 1, not {smoothing}")
    if cfg.TEST.REFINE not in (("", "dark") if kind == "rtm_simcc" else ("",)):
        right = "'' or dark" if kind == "rtm_simcc" else "'': outputs are not heights"
        raise InputError(f"TEST.REFINE: for {kind} must be {right}, not {cfg.TEST.REFINE}")
    sigma = tuple(cfg.MODEL.SIMDR_SIGMA) or (cfg.MODEL.SIGMA, cfg.MODEL.SIGMA)
    has_step = kind == "rtm_simcc" and cfg.TEST.POST_PROCESS
    return SimCCCodec(
        cfg.MODEL.IMAGE_SIZE,
        ratio,
        None if kind == "simcc" else sigma,
        skeleton.flip_pairs,
        on_bins=kind in ("mm_simcc", "rtm_simcc"),
        beta=cfg.LOSS.BETA if kind == "rtm_simcc" else None,
        smoothing=smoothing,
        is_mean=cfg.LOSS.MEAN_OVER_BINS,
        shift=cfg.TEST.SHIFT_HEATMAP,
        blur=tuple(chosen_blur(cfg, s) for s in sigma) if has_step else None,
        joint_weights=skeleton.joint_weights if cfg.LOSS.USE_DIFFERENT_JOINTS_WEIGHT else None,
        uses_weight=cfg.LOSS.USE_TARGET_WEIGHT,
    )
