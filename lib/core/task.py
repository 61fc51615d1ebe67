"""Interface through which the training and evaluation loops use a pose-estimation task."""

from abc import ABC, abstractmethod
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch

from lib.core.backends import Backend
from lib.core.codecs.codec import Outputs
from lib.dataset.loading import Batch
from lib.keypoints.poses import Poses
from lib.keypoints.skeletons import Skeleton
from lib.utils.drawing import draw_person, heatmap_rows, image_grid

Arrays = Sequence[np.ndarray]

MAX_PAIRS = 8  # pairs of annotated and predicted images in one grid


@dataclass
class Losses:
    """Loss and accuracy of one batch, as scalar tensors.

    Attributes:
        accuracy: for top-down networks, PCK averaged over the joint types annotated in the batch;
            for bottom-up networks, share of the annotated joints that the heatmaps detect.
        joints: number of joint types, or of annotated joints, over which ``accuracy`` is averaged.
    """

    total: torch.Tensor
    accuracy: torch.Tensor
    joints: torch.Tensor


class Task(ABC):
    """Interface of a task, which computes outputs, losses and ``Poses`` from batches.

    Args:
        backend: runs the network.
        skeleton: joints of the predicted people.
        autocast: type for training with autocast; None to train in float32.

    Attributes:
        uses_boxes: False if a task finds people without boxes.
        device: device of the batches.
        grid_columns: number of columns of the grids that ``draw`` returns.
    """

    uses_boxes: ClassVar[bool]
    grid_columns: ClassVar[int]

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

    def loss(self, outputs: Outputs, batch: Batch) -> Losses | None:
        """Return the loss and accuracy, or None if they cannot be computed.

        They cannot be computed for an exported file that includes decoding, or for a batch without
        joints, as in the evaluation of bottom-up networks.
        """
        if self.backend.outputs_are_decoded or "joints" not in batch:
            return None
        target = self._target(batch)
        total = self.codec.loss(outputs, target)
        with torch.no_grad():
            accuracy, joints = self.codec.accuracy(outputs, target)
        return Losses(total, accuracy, joints)

    @abstractmethod
    def _target(self, batch: Batch) -> Any:
        """Encode the joints of a batch as the codec's target."""

    @abstractmethod
    def predict(self, outputs: Outputs, batch: Batch) -> Poses:
        """Return the people of a batch, in pixels of their images, as tensors or NumPy arrays."""

    @abstractmethod
    def draw(self, batch: Batch, outputs: Outputs, kinds: Collection[str]) -> dict[str, np.ndarray]:
        """Draw RGB images of a batch.

        Args:
            kinds: ``gt`` and ``pred`` for annotated and predicted keypoints, ``gt_pred`` for both,
                side by side, ``hm_gt`` and ``hm_pred`` for heatmaps.

        Returns:
            A (H, W, 3) uint8 image for each of ``kinds`` that can be drawn from the outputs.
        """

    def _draw_people(
        self, images: np.ndarray, people: Iterable[np.ndarray], visible: Iterable[np.ndarray]
    ) -> list[np.ndarray]:
        """Draw the people of each image: keypoints (P, K, 2) in pixels and flags (P, K)."""
        drawn = [image.copy() for image in images]
        for image, keypoints, flags in zip(drawn, people, visible, strict=True):
            for person, is_visible in zip(keypoints, flags, strict=True):
                draw_person(
                    image, person, is_visible, self.skeleton.limbs, self.skeleton.flip_pairs
                )
        return drawn

    def _grids(
        self, annotated: Arrays, predicted: Arrays, kinds: Collection[str]
    ) -> dict[str, np.ndarray]:
        """Arrange drawn images in a grid for each of ``kinds``.

        ``annotated`` may be empty. ``gt_pred`` then shows only the predictions.
        """
        pairs = [image for pair in zip(annotated, predicted, strict=False) for image in pair]
        images = {"gt": annotated, "pred": predicted, "gt_pred": pairs[: 2 * MAX_PAIRS]}
        if not annotated:
            images = {"pred": predicted, "gt_pred": predicted}
        return {
            kind: image_grid(drawn, self.grid_columns)
            for kind, drawn in images.items()
            if kind in kinds
        }

    @abstractmethod
    def batches(
        self, images: Arrays, boxes: Arrays, box_scores: Arrays, batch_size: int
    ) -> Iterator[Batch]:
        """Yield batches for ``forward`` and ``predict``.

        Args:
            images: (H, W, 3) uint8 BGR.
            boxes: for each image, the boxes (N, 4) of its people; ignored unless ``uses_boxes``.
            box_scores: for each image, the scores (N,) of its boxes.
        """


def draw_heatmaps(images: np.ndarray, heatmaps: torch.Tensor) -> np.ndarray:
    """Draw the heatmaps (N, K, h, w) of images (M, H, W, 3), with M up to N."""
    return heatmap_rows(images, heatmaps[: len(images)].float().cpu().numpy())
