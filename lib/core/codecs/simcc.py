"""SimCC: keypoints as one distribution over bins along x and one along y.

Li et al.: SimCC: a Simple Coordinate Classification Perspective for Human Pose Estimation. ECCV
2022. Numerically equivalent to lib/dataset/JointsDataset.py, lib/core/loss.py and
lib/core/function.py of leeyegy/SimCC. ``mm_simcc`` and ``rtm_simcc`` follow
mmpose/codecs/simcc_label.py and mmpose/models/losses/classification_loss.py of mmpose 1.x. RTMPose:
Jiang et al.: RTMPose: Real-Time Multi-Person Pose Estimation based on MMPose. arXiv:2303.07399.

Outputs are (N, K, bins along x) and (N, K, bins along y). They are logits, except for RTMPose,
whose outputs are the values of a Gaussian with a peak of 1.
"""

import math
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional
from yacs.config import CfgNode

from lib.core.codecs.codec import Codec, Outputs, RawOutputs, as_outputs, permute_joints
from lib.core.codecs.heatmap import nearest_pixel
from lib.core.codecs.refinement import configured_kernel, dark_step_1d
from lib.keypoints.geometry import flip_permutation
from lib.keypoints.metrics import pck
from lib.keypoints.skeletons import Skeleton
from lib.utils.devices import to_like
from lib.utils.errors import InputError


class Target(NamedTuple):
    """Target distributions (N, K, bins) along each axis, and loss weights (N, K)."""

    x: Tensor
    y: Tensor
    weight: Tensor

    @property
    def heatmaps(self) -> Tensor:
        """Small heatmaps (N, K, h, w) with a peak of 1, for drawing."""
        return _outer_product(self.x, self.y)


@dataclass(eq=False)
class SimCCCodec(Codec):
    """Codec with one distribution for each axis.

    Attributes:
        image_size: (width, height) of the crop.
        ratio: number of bins per pixel.
        sigma: standard deviations of the target's Gaussians along x and y, in bins. None: one-hot
            targets.
        round_centers: centre Gaussians on the bin nearest to the joint, not on the joint.
        beta: RTMPose's factor for outputs and targets before the softmax in the loss. With it,
            target Gaussians have a peak of 1 instead of an area of 1. None: outputs are logits.
        smoothing: label smoothing of one-hot targets.
        mean_over_bins: for one-hot targets, average the loss over bins and joints instead of
            summing it.
        shift: in the flip test, shift flipped distributions along x one bin to the left.
        blur: kernel sizes along x and y of the DARK refinement. None: no refinement.
        joint_weights: loss weights of the K joints; None for equal weights.
        uses_weight: weight the loss of the joints by the target's weights.
        bins: numbers of bins along x and y.
    """

    image_size: tuple[int, int]
    ratio: float
    sigma: tuple[float, float] | None
    flip_pairs: tuple[tuple[int, int], ...]
    round_centers: bool = False
    beta: float | None = None
    smoothing: float = 0.1
    mean_over_bins: bool = False
    shift: bool = True
    blur: tuple[int, int] | None = None
    joint_weights: tuple[float, ...] | None = None
    uses_weight: bool = True

    def __post_init__(self) -> None:
        self.bins = (int(self.image_size[0] * self.ratio), int(self.image_size[1] * self.ratio))
        self.mean_over_bins = self.mean_over_bins or self.sigma is not None

    def encode(self, joints: Tensor, visible: Tensor) -> Target:
        """Return distributions for joints (N, K, 2) in crop pixels and visibility flags (N, K).

        One-hot targets: a joint outside the crop has weight 0. Gaussian targets: a joint whose
        whole Gaussian lies outside has weight 0.
        """
        encode_axis = self._one_hot if self.sigma is None else self._gaussian
        (is_inside_x, x), (is_inside_y, y) = (encode_axis(joints[..., i], i) for i in (0, 1))
        weight = visible * is_inside_x * is_inside_y
        has_target = (weight > 0.5)[..., None]
        if self.joint_weights is not None:
            weight = weight * to_like(torch.tensor(self.joint_weights), weight)
        return Target(x * has_target, y * has_target, weight)

    def _gaussian(self, coords: Tensor, i: int) -> tuple[Tensor, Tensor]:
        """Return a mask (N, K) and Gaussians (N, K, bins) along axis ``i``.

        The mask is True if a part of the Gaussian lies inside the crop.
        """
        sigma, bins = self.sigma[i], self.bins[i]
        center = coords * self.ratio
        # The + 1 comes from the published code: Gaussians that end just before the first pixel or
        # bin also count.
        if self.round_centers:
            center = center.round()
            is_inside = (center - 3 * sigma < bins) & (center + 3 * sigma + 1 >= 0)
        else:
            radius = 3 * sigma  # used as pixels although sigma is in bins, as published
            is_inside = (coords - radius).trunc() < self.image_size[i]
            is_inside &= (coords + radius + 1).trunc() >= 0
        distance = torch.arange(bins, device=coords.device) - center[..., None]
        peak = 1 / (sigma * math.sqrt(2 * math.pi)) if self.beta is None else 1
        return is_inside, peak * torch.exp(-distance.square() / (2 * sigma**2))

    def _one_hot(self, coords: Tensor, i: int) -> tuple[Tensor, Tensor]:
        """Return a mask (N, K) and one-hot targets (N, K, bins) with label smoothing.

        The mask is True if the joint lies inside the crop.
        """
        length, bins = self.image_size[i], self.bins[i]
        inside = torch.where(coords >= length, length - 1, coords).clamp(min=0)
        index = nearest_pixel(inside * self.ratio).clamp(max=bins - 1)
        is_joint = torch.arange(bins, device=coords.device) == index[..., None]
        target = torch.where(is_joint, 1 - self.smoothing, self.smoothing / (bins - 1))
        return (coords >= 0) & (coords < length), target.to(coords.dtype)

    def loss(self, outputs: RawOutputs, target: Target) -> Tensor:
        """Return the sum of the Kullback-Leibler divergences of both axes.

        They are averaged over people. Over bins and joints, they are averaged if targets are
        Gaussian or ``mean_over_bins`` is set; if not, they are summed.
        """
        self._check_bins(outputs)
        total = 0
        for logits, expected in zip(outputs, target[:2], strict=True):
            if self.beta is not None:
                logits, expected = self.beta * logits, (self.beta * expected).softmax(2)
            divergence = functional.kl_div(logits.log_softmax(2), expected, reduction="none")
            joint = divergence.mean(2) if self.mean_over_bins else divergence.sum(2)
            if self.uses_weight:
                joint = joint * target.weight
            total = total + (joint.mean() if self.mean_over_bins else joint.sum() / len(joint))
        return total

    def flip(self, outputs: RawOutputs) -> Outputs:
        order = flip_permutation(outputs[0].shape[1], self.flip_pairs)
        x, y = (permute_joints(logits, order) for logits in outputs)
        x = x.flip(2)
        if self.shift:
            x = torch.cat([x[..., 1:], x[..., -1:]], dim=2)
        return x, y

    def average(self, outputs: RawOutputs, flipped: RawOutputs) -> Outputs:
        """Average the probabilities for one-hot targets, and the outputs for Gaussian targets.

        Averaged probabilities are returned as their logarithms.
        """
        pairs = zip(outputs, flipped, strict=True)
        if self.sigma is not None:
            return tuple((a + b) * 0.5 for a, b in pairs)
        # Logarithms, because some probabilities underflow.
        return tuple(
            torch.logaddexp(a.log_softmax(2), b.log_softmax(2)) - math.log(2) for a, b in pairs
        )

    def decode(self, outputs: RawOutputs) -> tuple[Tensor, Tensor]:
        """Return keypoints (N, K, 2) in crop pixels and scores (N, K).

        A score is the smaller of the maxima along x and y.
        """
        self._check_bins(outputs)
        values = [self._values(output.float()) for output in outputs]
        best = [value.max(2) for value in values]
        coords = [maximum.indices.float() for maximum in best]
        if self.blur is not None:
            highest = [maximum.values for maximum in best]
            coords = list(map(dark_step_1d, values, coords, highest, self.blur))
        scores = torch.minimum(best[0].values, best[1].values)
        return torch.stack(coords, dim=-1) / self.ratio, scores

    def accuracy(self, outputs: RawOutputs, target: Target) -> tuple[Tensor, Tensor]:
        """Return the PCK, computed in bins, and the number of annotated joint types."""
        coords, ground_truth = (
            torch.stack([axis.argmax(2) for axis in axes], dim=-1).float()
            for axes in (outputs, target[:2])
        )
        return pck(coords, ground_truth, self.bins)

    def maps(self, outputs: RawOutputs) -> Tensor:
        return _outer_product(*(self._values(axis).clamp(min=0) for axis in outputs))

    def _values(self, output: Tensor) -> Tensor:
        """Convert logits to probabilities; RTMPose's outputs are returned unchanged."""
        return output.softmax(2) if self.beta is None else output

    def _check_bins(self, outputs: RawOutputs) -> None:
        outputs = as_outputs(outputs)
        found = tuple(logits.shape[2] for logits in outputs) if len(outputs) == 2 else None
        if found != self.bins:
            raise InputError(
                f"MODEL.SIMDR_SPLIT_RATIO: requires {self.bins[0]} and {self.bins[1]} bins, but "
                f"the network's outputs have {found or 'none; use MODEL.HEAD simcc'}"
            )


def _outer_product(x: Tensor, y: Tensor) -> Tensor:
    """Combine (N, K, bins) of both axes into heatmaps (N, K, bins / 8, bins / 8)."""
    small = [functional.adaptive_max_pool1d(axis, max(axis.shape[2] // 8, 1)) for axis in (x, y)]
    across, down = (axis / axis.amax(2, keepdim=True).clamp(min=1e-9) for axis in small)
    return down[..., :, None] * across[..., None, :]


def build(cfg: CfgNode, skeleton: Skeleton) -> SimCCCodec:
    """Build the codec of an experiment.

    MODEL.TARGET_TYPE sets the targets:

    - ``simcc``: one-hot;
    - ``sa_simcc``: Gaussians centred on the joint;
    - ``mm_simcc``: Gaussians centred on the bin nearest to the joint;
    - ``rtm_simcc``: as ``mm_simcc``, but with a peak of 1.
    """
    target_type = cfg.MODEL.TARGET_TYPE
    is_rtm = target_type == "rtm_simcc"
    ratio, smoothing = cfg.MODEL.SIMDR_SPLIT_RATIO, cfg.LOSS.LABEL_SMOOTHING
    if cfg.LOSS.USE_OHKM:
        raise InputError("LOSS.USE_OHKM is for heatmaps only, not for simcc")
    if not 0 <= smoothing < 1:
        raise InputError(f"LOSS.LABEL_SMOOTHING: must be at least 0 and below 1, not {smoothing}")
    if cfg.TEST.REFINE not in (("", "dark") if is_rtm else ("",)):
        valid = "'' or dark" if is_rtm else "''"
        raise InputError(f"TEST.REFINE: must be {valid} for {target_type}, not {cfg.TEST.REFINE}")
    sigma = tuple(cfg.MODEL.SIMDR_SIGMA) or (cfg.MODEL.SIGMA, cfg.MODEL.SIGMA)
    refines = is_rtm and cfg.TEST.POST_PROCESS
    return SimCCCodec(
        cfg.MODEL.IMAGE_SIZE,
        ratio,
        None if target_type == "simcc" else sigma,
        skeleton.flip_pairs,
        round_centers=target_type in ("mm_simcc", "rtm_simcc"),
        beta=cfg.LOSS.BETA if is_rtm else None,
        smoothing=smoothing,
        mean_over_bins=cfg.LOSS.MEAN_OVER_BINS,
        shift=cfg.TEST.SHIFT_HEATMAP,
        blur=tuple(configured_kernel(cfg, s) for s in sigma) if refines else None,
        joint_weights=skeleton.joint_weights if cfg.LOSS.USE_DIFFERENT_JOINTS_WEIGHT else None,
        uses_weight=cfg.LOSS.USE_TARGET_WEIGHT,
    )
