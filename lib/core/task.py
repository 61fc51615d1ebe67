"""The interface between a way of finding people and the loops that train and evaluate it."""

from abc import ABC, abstractmethod
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from lib.core.codecs.codec import Outputs
from lib.dataset.loading import Batch
from lib.keypoints.poses import Poses
from lib.keypoints.skeletons import Skeleton


@dataclass
class Losses:
    """The loss and accuracy of one batch, as scalar tensors.

    total: the loss to minimise.
    accuracy: PCK, averaged over the joint types annotated in the batch.
    joints: the number of these joint types.
    """

    total: torch.Tensor
    accuracy: torch.Tensor
    joints: torch.Tensor


class Task(ABC):
    """From batches to outputs, losses and ``Poses``. Training and evaluation know nothing else.

    skeleton: of the people that it finds.
    device: where its batches belong.
    """

    skeleton: Skeleton
    device: torch.device

    @abstractmethod
    def train(self, mode: bool = True) -> None:
        """Switch to training, or with ``mode`` False to evaluation, as ``nn.Module.train`` does."""

    def eval(self) -> None:
        """Switch to evaluation."""
        self.train(False)

    @abstractmethod
    def forward(self, batch: Batch) -> Outputs:
        """The network's outputs for a batch on ``device``, in evaluation with the flip test."""

    @abstractmethod
    def loss(self, outputs: Outputs, batch: Batch) -> Losses | None:
        """The outputs' loss and accuracy; None if an exported file hides the network's outputs."""

    @abstractmethod
    def predict(self, outputs: Outputs, batch: Batch) -> Poses:
        """Everybody in a batch, in image pixels, as tensors on ``device``."""

    @abstractmethod
    def draw(self, batch: Batch, outputs: Outputs, kinds: Collection[str]) -> dict[str, np.ndarray]:
        """RGB pictures of a batch: ``gt`` and ``pred`` show annotated and predicted keypoints,
        ``hm_gt`` and ``hm_pred`` heatmaps, ``gt_pred`` pairs. A kind that the outputs do not allow
        is left out."""

    @abstractmethod
    def batches(
        self,
        images: Sequence[np.ndarray],
        boxes: Sequence[np.ndarray],
        box_scores: Sequence[np.ndarray],
        batch_size: int,
    ) -> Iterator[Batch]:
        """Batches for ``forward`` and ``predict``, of (H, W, 3) uint8 BGR images and for each the
        boxes (N, 4) of its people and their scores (N,)."""
