"""Distances between the keypoints of a backend and those of a reference, on the same images."""

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor
from yacs.config import CfgNode

from lib.config import is_bottom_up, skeleton_of
from lib.core import build_task
from lib.core.backends import Backend
from lib.core.inference import PERSON_THRESHOLD
from lib.dataset.loading import Batch
from lib.deploy.parity import real_crops, real_scenes
from lib.keypoints.geometry import PIXEL_STD
from lib.keypoints.poses import Poses
from lib.nms import oks_iou

SAME_PERSON = 0.5  # minimum OKS


class Comparison(NamedTuple):
    """Comparison of the people in one image.

    Attributes:
        distances: (J,), distances of all joints of the reference's people, in pixels of the
            network's input; infinite for people and joints that the backend does not find.
        expected, found, common: numbers of people found by the reference, the backend, and both.
    """

    distances: Tensor
    expected: int
    found: int
    common: int


class CropDistances:
    """Comparison on ``count`` crops of the test set.

    Attributes:
        inputs: the crops, uint8 (1, 3, H, W) each.
        source: the name of the test set.
    """

    unit = "crops"
    ranking_size = 32  # inputs that decide which layers are switched back to float32 first

    def __init__(self, cfg: CfgNode, reference: Backend, count: int) -> None:
        self._crops, self.source = real_crops(cfg, count)
        self.inputs = self._crops.split(1)
        self._keypoints, _ = reference(self._crops)

    def compare(self, backend: Backend, rows: Iterable[int]) -> list[Comparison]:
        """Compare a backend with the reference on the inputs ``rows``."""
        rows = list(rows)
        keypoints, _ = backend(self._crops[rows])
        distances = torch.linalg.vector_norm(keypoints - self._keypoints[rows], dim=-1)
        return [Comparison(distance, 1, 1, 1) for distance in distances]


class SceneDistances:
    """Comparison of a bottom-up network's people on ``count`` whole images of the test set.

    A person of the backend is the same as a person of the reference if their OKS is at least
    ``SAME_PERSON``. People with a score below ``PERSON_THRESHOLD`` are ignored.

    Attributes: as in ``CropDistances``.
    """

    unit = "images"
    ranking_size = 8  # an image takes as long as many crops

    def __init__(self, cfg: CfgNode, reference: Backend, count: int) -> None:
        self._cfg = cfg
        self._sigmas = skeleton_of(cfg).sigmas
        self._batches, self.source = real_scenes(cfg, count)
        self.inputs = [batch["image0"] for batch in self._batches]
        self._people = [self._find(reference, batch) for batch in self._batches]

    def compare(self, backend: Backend, rows: Iterable[int]) -> list[Comparison]:
        """Compare a backend with the reference on the inputs ``rows``."""
        return [self._compare(backend, self._batches[row], self._people[row]) for row in rows]

    def _find(self, backend: Backend, batch: Batch) -> Poses:
        task = build_task(self._cfg, backend)
        poses = task.predict(task.forward(batch), batch)
        return poses[poses.score >= PERSON_THRESHOLD]

    def _compare(self, backend: Backend, batch: Batch, expected: Poses) -> Comparison:
        found = self._find(backend, batch)
        distances = np.full(expected.scores.shape, np.inf, np.float32)
        pairs = match_people(expected, found, self._sigmas)
        zoom = batch["image0"].shape[3] / (float(batch["scale"][0, 0]) * PIXEL_STD)
        for row, column in pairs:
            moved = expected.keypoints[row] - found.keypoints[column]
            apart = zoom * np.linalg.norm(moved, axis=1)
            distances[row] = np.where(found.scores[column] > 0, apart, np.inf)
        is_joint = expected.scores > 0
        return Comparison(
            torch.from_numpy(distances[is_joint]), len(expected), len(found), len(pairs)
        )


def match_people(expected: Poses, found: Poses, sigmas: tuple[float, ...]) -> list[tuple[int, int]]:
    """Return the rows of the same people in two ``Poses`` of one image, with the highest OKS."""
    if not len(expected) or not len(found):
        return []
    areas = found.box[:, 2] * found.box[:, 3]
    keypoints = found.keypoints_with_scores()
    oks = np.stack(
        [
            oks_iou(points, keypoints, box[2] * box[3], areas, sigmas, in_vis_thre=0)
            for points, box in zip(expected.keypoints_with_scores(), expected.box, strict=True)
        ]
    )
    pairs = zip(*linear_sum_assignment(-oks), strict=True)
    return [(int(row), int(column)) for row, column in pairs if oks[row, column] >= SAME_PERSON]


def build_distances(cfg: CfgNode, reference: Backend, count: int) -> CropDistances | SceneDistances:
    """Build the comparison that fits an experiment."""
    kind = SceneDistances if is_bottom_up(cfg) else CropDistances
    return kind(cfg, reference, count)
