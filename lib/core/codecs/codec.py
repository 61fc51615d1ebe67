"""What every representation offers, and what they share."""

from abc import ABC, abstractmethod
from typing import Any

import torch

Outputs = torch.Tensor | list[torch.Tensor]


class Codec(ABC):
    """Keypoints <-> a network's outputs. All methods work on a batch, on its device."""

    @abstractmethod
    def encode(self, joints: torch.Tensor, visible: torch.Tensor) -> Any:
        """The target, for joints (N, K, 2) in crop pixels and flags (N, K). Its ``heatmaps``,
        (N, K, h, w), are for pictures at least, and its ``weight`` is (N, K)."""

    @abstractmethod
    def loss(self, outputs: Outputs, target: Any) -> torch.Tensor:
        """How far outputs are from their target, without dimensions."""

    @abstractmethod
    def flip(self, outputs: Outputs) -> Outputs:
        """What outputs for mirrored crops say of the crops themselves."""

    @abstractmethod
    def average(self, outputs: Outputs, flipped: Outputs) -> Outputs:
        """The flip test's answer: the mean of outputs and of what ``flip`` gave, as outputs."""

    @abstractmethod
    def decode(self, outputs: Outputs) -> tuple[torch.Tensor, torch.Tensor]:
        """Keypoints (N, K, 2) in crop pixels and scores (N, K)."""

    @abstractmethod
    def accuracy(self, outputs: Outputs, target: Any) -> tuple[torch.Tensor, torch.Tensor]:
        """PCK between outputs and target as in ``lib.keypoints.metrics.pck``."""

    @abstractmethod
    def maps(self, outputs: Outputs) -> torch.Tensor:
        """Heatmaps (N, K, h, w) that show what outputs say."""


def as_float(outputs: Outputs) -> Outputs:
    """Outputs in float32, for losses that add up many small numbers."""
    if isinstance(outputs, (list, tuple)):
        return [output.float() for output in outputs]
    return outputs.float()


def scaled(points: torch.Tensor, x: float, y: float) -> torch.Tensor:
    """Points (..., 2) with each axis multiplied by a number."""
    return torch.stack([points[..., 0] * x, points[..., 1] * y], dim=-1)


def permute_joints(maps: torch.Tensor, order: list[int]) -> torch.Tensor:
    """(N, K, ...) with the joints in that order."""
    # Twice as fast on a CPU as indexing the second axis by a list.
    return torch.stack([maps[:, joint] for joint in order], dim=1)
