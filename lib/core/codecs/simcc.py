"""SimCC: where a joint is along x and along y, each as a distribution over bins.

Li et al.: SimCC: a Simple Coordinate Classification Perspective for Human Pose Estimation. ECCV
2022. Numbers: lib/dataset/JointsDataset.py, lib/core/loss.py and lib/core/function.py of
leeyegy/SimCC. Outputs are logits: (N, K, bins along x) and (N, K, bins along y).
"""

import math
from typing import NamedTuple

import torch
from torch.nn import functional
from yacs.config import CfgNode

from lib.core.codecs.codec import Codec, Outputs, exchanged, pck
from lib.core.codecs.heatmap import nearest_pixel
from lib.dataset.skeletons import Skeleton
from lib.dataset.transforms import mirror_order
from lib.utils.errors import InputError


class Bins(NamedTuple):
    """What a network should say: a distribution along each axis, and the weight (N, K) of each
    joint in the loss."""

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
        sigma: of the target's Gaussian, in bins; None for whole bins.
        smoothing: of whole bins: what all bins but the joint's share.
        is_mean: of whole bins: mean over bins and joints, not the sum.
        shift: in the flip test, move mirrored distributions along x one bin to the left.
    """

    def __init__(
        self,
        image_size: tuple[int, int],
        ratio: float,
        sigma: float | None,
        flip_pairs: tuple[tuple[int, int], ...],
        smoothing: float = 0.1,
        is_mean: bool = False,
        shift: bool = True,
        joint_weights: tuple[float, ...] | None = None,
        uses_weight: bool = True,
    ) -> None:
        self.image_size = tuple(image_size)
        self.ratio = ratio
        self.bins = (int(image_size[0] * ratio), int(image_size[1] * ratio))
        self.sigma = sigma
        self.smoothing = smoothing
        self.is_mean = is_mean or sigma is not None
        self.shift = shift
        self._flip_pairs = flip_pairs
        self._joint_weights = joint_weights
        self._uses_weight = uses_weight

    def encode(self, joints: torch.Tensor, visible: torch.Tensor) -> Bins:
        """Distributions for joints (N, K, 2) in crop pixels and flags (N, K).

        A joint weighs nothing where it lies outside the crop, or its Gaussian does.
        """
        axes = [(joints[..., i], self.image_size[i], self.bins[i]) for i in (0, 1)]
        if self.sigma is None:
            weight = visible
            for place, length, _ in axes:
                weight = weight * ((place >= 0) & (place < length))
            x, y = (self._whole_bin(*axis) for axis in axes)
        else:
            reach = 3 * self.sigma  # in pixels, though sigma is in bins: as published
            weight = visible
            for place, length, _ in axes:
                ends = (place - reach).trunc(), (place + reach + 1).trunc()
                weight = weight * ((ends[0] < length) & (ends[1] >= 0))
            x, y = (self._gaussian(place, bins) for place, _, bins in axes)
        is_there = (weight > 0.5)[..., None]
        if self._joint_weights is not None:
            weight = weight * weight.new_tensor(self._joint_weights)
        return Bins(x * is_there, y * is_there, weight)

    def _gaussian(self, place: torch.Tensor, bins: int) -> torch.Tensor:
        """(N, K, bins): a Gaussian of area 1 around the joint's own place."""
        center = (place * self.ratio)[..., None]
        distance = torch.arange(bins, device=place.device) - center
        height = 1 / (self.sigma * math.sqrt(2 * math.pi))
        return height * torch.exp(-distance.square() / (2 * self.sigma**2))

    def _whole_bin(self, place: torch.Tensor, length: int, bins: int) -> torch.Tensor:
        """(N, K, bins): most of it in the joint's bin, the rest spread evenly."""
        inside = torch.where(place >= length, length - 1, place).clamp(min=0)
        index = nearest_pixel(inside * self.ratio).clamp(max=bins - 1)
        is_bin = torch.arange(bins, device=place.device) == index[..., None]
        return torch.where(is_bin, 1 - self.smoothing, self.smoothing / (bins - 1)).to(place.dtype)

    def loss(self, outputs: Outputs, target: Bins) -> torch.Tensor:
        """The Kullback-Leibler divergence of both axes, added: the mean over bins, people and
        joints, or the sum over bins and joints and the mean over people."""
        self._check(outputs)
        total = 0
        for logits, share in zip(outputs, target[:2], strict=True):
            divergence = functional.kl_div(logits.log_softmax(2), share, reduction="none")
            joint = divergence.mean(2) if self.is_mean else divergence.sum(2)
            if self._uses_weight:
                joint = joint * target.weight
            total = total + (joint.mean() if self.is_mean else joint.sum() / len(joint))
        return total

    def flip(self, outputs: Outputs) -> list[torch.Tensor]:
        """The logits that outputs for mirrored crops stand for."""
        order = mirror_order(outputs[0].shape[1], self._flip_pairs)
        x, y = (exchanged(logits, order) for logits in outputs)
        x = x.flip(2)
        if self.shift:
            x = torch.cat([x[..., 1:], x[..., -1:]], dim=2)
        return [x, y]

    def average(self, outputs: Outputs, flipped: Outputs) -> list[torch.Tensor]:
        """Gaussian targets: the mean of the logits. Whole bins: the logits of the mean
        distribution."""
        pairs = zip(outputs, flipped, strict=True)
        if self.sigma is not None:
            return [(a + b) * 0.5 for a, b in pairs]
        # Of the shares' logarithms: some shares are too small for a float.
        return [torch.logaddexp(a.log_softmax(2), b.log_softmax(2)) - math.log(2) for a, b in pairs]

    def decode(self, outputs: Outputs) -> tuple[torch.Tensor, torch.Tensor]:
        """Keypoints (N, K, 2) in crop pixels, and the smaller of the two largest shares (N, K)."""
        self._check(outputs)
        best = [logits.float().softmax(2).max(2) for logits in outputs]
        place = torch.stack([axis.indices for axis in best], dim=-1).float()
        return place / self.ratio, torch.minimum(best[0].values, best[1].values)

    def accuracy(self, outputs: Outputs, target: Bins) -> tuple[torch.Tensor, torch.Tensor]:
        """PCK, see ``lib.core.codecs.codec.pck``, in bins."""
        place, truth = (
            torch.stack([axis.argmax(2) for axis in axes], dim=-1).float()
            for axes in (outputs, target[:2])
        )
        return pck(place, truth, self.bins)

    def maps(self, outputs: Outputs) -> torch.Tensor:
        return _product(*(logits.softmax(2) for logits in outputs))

    def _check(self, outputs: Outputs) -> None:
        is_pair = isinstance(outputs, (list, tuple)) and len(outputs) == 2
        found = tuple(logits.shape[2] for logits in outputs) if is_pair else None
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
    """The codec of an experiment: whole bins for MODEL.TARGET_TYPE simcc, else Gaussians."""
    ratio, smoothing = cfg.MODEL.SIMDR_SPLIT_RATIO, cfg.LOSS.LABEL_SMOOTHING
    if cfg.LOSS.USE_OHKM:
        raise InputError("LOSS.USE_OHKM: is for heatmaps; simcc has no such loss")
    if not 0 <= smoothing < 1:
        raise InputError(f"LOSS.LABEL_SMOOTHING: must be from 0 to below 1, not {smoothing}")
    return SimCCCodec(
        cfg.MODEL.IMAGE_SIZE,
        ratio,
        None if cfg.MODEL.TARGET_TYPE == "simcc" else cfg.MODEL.SIGMA,
        skeleton.flip_pairs,
        smoothing=smoothing,
        is_mean=cfg.LOSS.MEAN_OVER_BINS,
        shift=cfg.TEST.SHIFT_HEATMAP,
        joint_weights=skeleton.joint_weights if cfg.LOSS.USE_DIFFERENT_JOINTS_WEIGHT else None,
        uses_weight=cfg.LOSS.USE_TARGET_WEIGHT,
    )
