"""Interface and shared functions of all codecs."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

Outputs = tuple[Tensor, ...]
RawOutputs = Tensor | Sequence[Tensor]  # return types of the published networks


class Codec(ABC):
    """Interface for converting between keypoints and network outputs.

    All methods work on batches, on the device of the batch. They accept outputs as the network
    returns them (``RawOutputs``). All other code uses tuples of tensors (``Outputs``).
    """

    @abstractmethod
    def encode(self, joints: Tensor, visible: Tensor) -> Any:
        """Return the target for joints (N, K, 2) in crop pixels and visibility flags (N, K).

        Every target has the attributes ``weight`` (N, K) and ``heatmaps`` (N, K, h, w). Some
        codecs use ``heatmaps`` only for drawing.
        """

    @abstractmethod
    def loss(self, outputs: RawOutputs, target: Any) -> Tensor:
        """Return the loss, a scalar."""

    @abstractmethod
    def flip(self, outputs: RawOutputs) -> RawOutputs:
        """Flip back the outputs of mirrored crops, and swap left and right joints."""

    @abstractmethod
    def average(self, outputs: RawOutputs, flipped: RawOutputs) -> RawOutputs:
        """Average the outputs with those that ``flip`` returned."""

    @abstractmethod
    def decode(self, outputs: RawOutputs) -> tuple[Tensor, Tensor]:
        """Return keypoints (N, K, 2) in crop pixels and scores (N, K)."""

    @abstractmethod
    def accuracy(self, outputs: RawOutputs, target: Any) -> tuple[Tensor, Tensor]:
        """Return the PCK and the number of joint types, as ``lib.keypoints.metrics.pck`` does."""

    @abstractmethod
    def maps(self, outputs: RawOutputs) -> Tensor:
        """Return heatmaps (N, K, h, w) of the outputs for drawing."""


def as_outputs(raw: RawOutputs) -> Outputs:
    """Convert one tensor or several to a tuple."""
    return (raw,) if isinstance(raw, Tensor) else tuple(raw)


def as_float(raw: RawOutputs) -> Outputs:
    """Convert outputs to float32, because losses sum many small numbers."""
    return tuple(output.float() for output in as_outputs(raw))


def permute_joints(maps: Tensor, order: list[int]) -> Tensor:
    """Reorder the joints of (N, K, ...) by the indices ``order``."""
    # On a CPU this is twice as fast as indexing with a list.
    return torch.stack([maps[:, joint] for joint in order], dim=1)
