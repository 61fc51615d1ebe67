"""The interface of all codecs, and what they share."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

Outputs = tuple[Tensor, ...]
RawOutputs = Tensor | Sequence[Tensor]  # as published networks return them


class Codec(ABC):
    """Keypoints <-> a network's outputs. All methods work on a batch, on its device.

    ``Outputs`` is the type of a network's outputs everywhere. The methods also take them as the
    network returns them, so that ``codec.decode(network(images))`` works.
    """

    @abstractmethod
    def encode(self, joints: Tensor, visible: Tensor) -> Any:
        """The target for joints (N, K, 2) in crop pixels and flags (N, K).

        Every target has ``heatmaps`` (N, K, h, w), if only to be drawn, and ``weight`` (N, K).
        """

    @abstractmethod
    def loss(self, outputs: RawOutputs, target: Any) -> Tensor:
        """The loss of outputs, a scalar."""

    @abstractmethod
    def flip(self, outputs: RawOutputs) -> RawOutputs:
        """Outputs for mirrored crops, mirrored back."""

    @abstractmethod
    def average(self, outputs: RawOutputs, flipped: RawOutputs) -> RawOutputs:
        """The flip test's result: the mean of outputs and of what ``flip`` returned."""

    @abstractmethod
    def decode(self, outputs: RawOutputs) -> tuple[Tensor, Tensor]:
        """Keypoints (N, K, 2) in crop pixels and scores (N, K)."""

    @abstractmethod
    def accuracy(self, outputs: RawOutputs, target: Any) -> tuple[Tensor, Tensor]:
        """PCK between outputs and target, as in ``lib.keypoints.metrics.pck``."""

    @abstractmethod
    def maps(self, outputs: RawOutputs) -> Tensor:
        """Heatmaps (N, K, h, w) of outputs, to be drawn."""


def as_outputs(raw: RawOutputs) -> Outputs:
    """A network's outputs as a tuple, whether it returned one tensor or several."""
    return (raw,) if isinstance(raw, Tensor) else tuple(raw)


def as_float(raw: RawOutputs) -> Outputs:
    """A network's outputs in float32, for losses that add up many small numbers."""
    return tuple(output.float() for output in as_outputs(raw))


def scaled(points: Tensor, x: float, y: float) -> Tensor:
    """Points (..., 2) with each axis multiplied by a number."""
    return torch.stack([points[..., 0] * x, points[..., 1] * y], dim=-1)


def permute_joints(maps: Tensor, order: list[int]) -> Tensor:
    """(N, K, ...) with the joints in that order."""
    # Twice as fast on a CPU as indexing the second axis by a list.
    return torch.stack([maps[:, joint] for joint in order], dim=1)
