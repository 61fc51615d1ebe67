"""Interface through which the training and evaluation loops use a pose-estimation task.

A task is registered in ``TASKS`` of lib/core/__init__.py.
"""

from abc import ABC, abstractmethod
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch

from lib.core.backends import Backend
from lib.core.codecs.codec import Outputs
from lib.dataset.loading import Batch
from lib.keypoints.poses import Poses
from lib.keypoints.skeletons import Skeleton


@dataclass
class Losses:
    """Loss and accuracy of one batch, as scalar tensors.

    Attributes:
        total: the loss to minimise.
        accuracy: PCK, averaged over the joint types annotated in the batch.
        joints: number of these joint types.
    """

    total: torch.Tensor
    accuracy: torch.Tensor
    joints: torch.Tensor


class Task(ABC):
    """Interface of a task, which computes outputs, losses and ``Poses`` from batches.

    Training and evaluation use a network only through this interface.

    Args:
        backend: runs the network.
        skeleton: joints of the predicted people.
        autocast: train in this type where PyTorch considers it safe; None: in float32.

    Attributes:
        uses_boxes: False if a task finds people without boxes.
        device: device of the batches.
    """

    uses_boxes: ClassVar[bool] = True

    def __init__(
        self, backend: Backend, skeleton: Skeleton, autocast: torch.dtype | None = None
    ) -> None:
        self.skeleton = skeleton
        self.device = backend.device
        self.backend = backend
        self.codec = backend.codec
        self._autocast = autocast
        self._is_training = False

    def train(self, mode: bool = True) -> None:
        """Set training mode, or evaluation mode if ``mode`` is False."""
        self._is_training = mode
        self.backend.train(mode)

    def eval(self) -> None:
        """Set evaluation mode."""
        self.train(False)

    @abstractmethod
    def forward(self, batch: Batch) -> Outputs:
        """Return the network's outputs for a batch on ``device``.

        In evaluation mode, they include the flip test if TEST.FLIP_TEST is set.
        """

    @abstractmethod
    def loss(self, outputs: Outputs, batch: Batch) -> Losses | None:
        """Return the loss and accuracy, or None if they cannot be computed.

        This is the case for an exported file that includes decoding, and for a bottom-up network in
        evaluation.
        """

    @abstractmethod
    def predict(self, outputs: Outputs, batch: Batch) -> Poses:
        """Return the people of a batch in image pixels, as tensors on ``device``."""

    @abstractmethod
    def draw(self, batch: Batch, outputs: Outputs, kinds: Collection[str]) -> dict[str, np.ndarray]:
        """Draw RGB images of a batch.

        Args:
            kinds: ``gt`` and ``pred`` for annotated and predicted keypoints, ``hm_gt`` and
                ``hm_pred`` for heatmaps, ``gt_pred`` for both, side by side.

        Returns:
            A (H, W, 3) uint8 image for each of ``kinds`` that can be drawn from the outputs.
        """

    @abstractmethod
    def batches(
        self,
        images: Sequence[np.ndarray],
        boxes: Sequence[np.ndarray],
        box_scores: Sequence[np.ndarray],
        batch_size: int,
    ) -> Iterator[Batch]:
        """Yield batches for ``forward`` and ``predict``.

        Args:
            images: (H, W, 3) uint8 BGR.
            boxes: for each image, the boxes (N, 4) of its people; ignored unless ``uses_boxes``.
            box_scores: for each image, the scores (N,) of its boxes.
        """
