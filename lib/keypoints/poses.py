"""Poses: people and their keypoints. All predictions have this form."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from typing import NamedTuple

import numpy as np
import torch

from lib.utils.errors import InputError

Array = np.ndarray | torch.Tensor


class Pose(NamedTuple):
    """One person of a ``Poses``, with the same fields.

    The arrays are views, so writing to them changes the ``Poses``.
    """

    image: int
    keypoints: np.ndarray  # (K, 2)
    scores: np.ndarray  # (K,)
    score: float
    box: np.ndarray  # (4,)
    box_score: float
    row: int


@dataclass
class Poses:
    """P people with K keypoints each, as flat arrays.

    ``poses[3]`` is one person, a ``Pose``; with a slice, indices or a mask the result is a
    ``Poses``. A task (lib/core/task.py) may return tensors on its device; ``numpy()`` converts them
    to arrays. In the comments, ``Table`` is the data set's table of people
    (lib/dataset/table.py).
    """

    image: Array  # (P,) int64, index of the image in ``Table.paths``, or among the inputs
    keypoints: Array  # (P, K, 2) float32, x and y in image pixels
    scores: Array  # (P, K) float32, keypoint scores
    score: Array  # (P,) float32, person scores; for top-down networks the means of ``scores``
    box: Array  # (P, 4) float32, x, y, width, height in pixels
    box_score: Array  # (P,) float32, score of the box from a detector, a file or the user; or 1
    row: Array  # (P,) int64, row of the person in the data set's ``Table``; -1 if there is none

    @classmethod
    def empty(cls, joints: int) -> "Poses":
        """Return a ``Poses`` without people, for ``joints`` keypoints."""
        return cls(
            image=np.zeros(0, np.int64),
            keypoints=np.zeros((0, joints, 2), np.float32),
            scores=np.zeros((0, joints), np.float32),
            score=np.zeros(0, np.float32),
            box=np.zeros((0, 4), np.float32),
            box_score=np.zeros(0, np.float32),
            row=np.zeros(0, np.int64),
        )

    @classmethod
    def concatenate(cls, parts: Sequence["Poses"]) -> "Poses":
        """Concatenate one or more ``Poses`` of NumPy arrays."""
        return cls(*(np.concatenate([getattr(p, f.name) for p in parts]) for f in fields(cls)))

    def __len__(self) -> int:
        return len(self.image)

    def __getitem__(self, rows: int | slice | np.ndarray | list[int]) -> "Pose | Poses":
        values = [getattr(self, field.name)[rows] for field in fields(self)]
        if not isinstance(rows, (int, np.integer)):
            return Poses(*values)
        image, keypoints, scores, score, box, box_score, row = values
        return Pose(int(image), keypoints, scores, float(score), box, float(box_score), int(row))

    def __iter__(self) -> Iterator[Pose]:
        return (self[row] for row in range(len(self)))

    def numpy(self) -> "Poses":
        """Convert tensors to NumPy arrays."""
        values = (getattr(self, field.name) for field in fields(self))
        return Poses(*(v.cpu().numpy() if isinstance(v, torch.Tensor) else v for v in values))

    def keypoints_with_scores(self) -> np.ndarray:
        """Return x, y and score of each keypoint: (P, K, 3) float32."""
        return np.concatenate([self.keypoints, self.scores[..., None]], axis=2)

    def sorted_unique(self) -> "Poses":
        """Sort by ``row`` and drop duplicate rows; people without a row come first, by image.

        A person whom several processes predicted therefore counts once.
        """
        order = np.lexsort((self.image, self.row))
        row = self.row[order]
        is_repeated = np.zeros(len(row), bool)
        is_repeated[1:] = (row[1:] == row[:-1]) & (row[1:] >= 0)
        return self[order[~is_repeated]]

    def check_finite(self) -> None:
        """Raise an InputError if a keypoint or score is NaN or Inf."""
        if not (np.isfinite(self.keypoints).all() and np.isfinite(self.scores).all()):
            raise InputError("network output contains NaN or Inf; check the weights")
