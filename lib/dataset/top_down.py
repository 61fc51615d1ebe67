"""Top-down samples: a crop around one person, with random geometric augmentation in training."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import cv2
import numpy as np
import torch
from torch.utils.data import Dataset, get_worker_info

from lib.dataset.broken import read_or_replace
from lib.dataset.image import read_image
from lib.dataset.source import Source
from lib.keypoints.geometry import (
    Crop,
    half_body_box,
    mirror_joints,
    mirror_matrix,
    transform_points,
)


@dataclass(frozen=True)
class Augmentation:
    """Geometric augmentation with the distributions of HRNet's lib/dataset/JointsDataset.py.

    Shifts are from mmpose.
    """

    flip: bool = True  # mirror half of the samples
    scale_factor: float = 0.25  # standard deviation and maximum change of the relative scale
    # Standard deviation in degrees, clipped at twice this. 60 % of the samples are rotated.
    rotation_factor: float = 30.0
    half_body_probability: float = 0.0
    half_body_joints: int = 8  # only people with more visible joints are cropped to half the body
    shift_probability: float = 0.0  # boxes are shifted by up to a fifth of their size


class TopDownDataset(Dataset):
    """Dataset of the people of ``source``.

    ``dataset[row]`` and ``dataset[epoch, row]`` return a sample, a dict of tensors:

        image: uint8 (3, H, W), RGB.
        joints: float32 (K, 2), x, y in crop pixels; 0 if not annotated.
        visible: float32 (K,), 1 if the joint is annotated.
        center, scale: float32 (2,), the cropped box: its center in pixels, and its size in units
            of 200 pixels. In a mirrored sample, they refer to the mirrored image.
        rotation: float32, degrees.
        box: float32 (4,), annotated or detected x, y, width, height in image pixels.
        box_score: float32, detection score of the box; 1 if it is annotated.
        index: int64, row in ``source.table``.
        image_index: int64, index of the image in ``source.table.paths``.
        broken: int64, only in training: ``row``, if its image is broken and another sample was
            returned instead; otherwise -1.

    A training sample depends only on (seed, epoch, row). The order of samples, the number of
    workers and resuming a run do not change it. ``augmentation`` is None for evaluation.
    """

    def __init__(
        self, source: Source, crop: Crop, augmentation: Augmentation | None = None, seed: int = 0
    ) -> None:
        self.source = source
        self.skeleton = source.skeleton
        self.table = source.table
        self.crop = crop
        self.augmentation = augmentation
        self.seed = seed

    def __len__(self) -> int:
        return len(self.table)

    def __getitem__(self, key: int | tuple[int, int]) -> dict[str, torch.Tensor]:
        epoch, row = key if isinstance(key, tuple) else (0, key)
        if self.augmentation is None:
            return self._sample(row, read_image(self.table.path(row)), epoch)
        image, used = read_or_replace(self.table.path, row, len(self))
        sample = self._sample(used, image, epoch)
        return {**sample, "broken": torch.tensor(-1 if used == row else row)}

    def __getitems__(self, keys: Sequence[int | tuple[int, int]]) -> list[dict[str, torch.Tensor]]:
        """Return the samples of a batch; the main process loads them on all of its threads."""
        threads = 1 if get_worker_info() else torch.get_num_threads()
        if threads == 1:
            return [self[key] for key in keys]
        with ThreadPoolExecutor(threads) as pool:
            return list(pool.map(self.__getitem__, keys))

    def image_files(self, rows: Sequence[int]) -> list[str]:
        """Return the image files of the samples ``rows``."""
        return [self.table.path(row) for row in rows]

    def people_in_one_image(self, rows: np.ndarray) -> dict[str, torch.Tensor]:
        """Return a batch of the samples ``rows``, which must share one image; it is read once."""
        image = read_image(self.table.path(rows[0]))
        samples = [self._sample(row, image) for row in rows]
        return {name: torch.stack([s[name] for s in samples]) for name in samples[0]}

    def _sample(self, row: int, image: np.ndarray, epoch: int = 0) -> dict[str, torch.Tensor]:
        table = self.table
        joints, visible = table.joints[row], table.visible[row]
        center, scale, rotation, is_mirrored = table.center[row], table.scale[row], 0.0, False
        width = image.shape[1]
        if self.augmentation is not None:
            rng = np.random.default_rng((self.seed, epoch, row))
            center = center + self._shift(row)
            center, scale, rotation, is_mirrored = self._augment(
                center, scale, joints, visible, width, rng
            )
        matrix = image_matrix = self.crop.matrix(center, scale, rotation)
        if is_mirrored:
            joints, visible = mirror_joints(joints, visible, width, self.skeleton.flip_pairs)
            image_matrix = mirror_matrix(matrix, width)
        is_visible = visible > 0
        crop_joints = np.where(is_visible[:, None], transform_points(joints, matrix), 0)
        return {
            "image": torch.from_numpy(crop_image(image, image_matrix, self.crop.size)),
            "joints": torch.from_numpy(crop_joints.astype(np.float32)),
            "visible": torch.from_numpy(is_visible.astype(np.float32)),
            "center": torch.from_numpy(np.array(center, np.float32)),
            "scale": torch.from_numpy(np.array(scale, np.float32)),
            "rotation": torch.tensor(rotation, dtype=torch.float32),
            "box": torch.from_numpy(table.box(row)),
            "box_score": torch.tensor(table.score[row]),
            "index": torch.tensor(row, dtype=torch.int64),
            "image_index": torch.tensor(table.image[row], dtype=torch.int64),
        }

    def _shift(self, row: int) -> np.ndarray:
        """Return the random shift (2,) of a box in pixels; the same in every epoch."""
        rng = np.random.default_rng((self.seed, row))
        if rng.random() >= self.augmentation.shift_probability:
            return np.zeros(2, np.float32)
        return (0.4 * (rng.random(2) - 0.5) * self.table.size[row]).astype(np.float32)

    def _augment(
        self,
        center: np.ndarray,
        scale: np.ndarray,
        joints: np.ndarray,
        visible: np.ndarray,
        width: int,
        rng: np.random.Generator,
    ) -> tuple[np.ndarray, np.ndarray, float, bool]:
        """Sample the center and scale of a box, its rotation in degrees, and whether to mirror it.

        ``width`` is the width of the image. If the sample is mirrored, the center is in the
        mirrored image.
        """
        settings = self.augmentation
        has_enough_joints = visible.sum() > settings.half_body_joints
        if has_enough_joints and rng.random() < settings.half_body_probability:
            # Normally distributed, as in the published code, so True in 69 % of cases.
            prefers_upper = rng.standard_normal() < 0.5
            upper_body, aspect_ratio = self.skeleton.upper_body, self.crop.aspect_ratio
            half = half_body_box(joints, visible, upper_body, prefers_upper, aspect_ratio)
            center, scale = half or (center, scale)
        spread, turn = settings.scale_factor, settings.rotation_factor
        zoom = np.clip(rng.standard_normal() * spread + 1, 1 - spread, 1 + spread)
        rotation = np.clip(rng.standard_normal() * turn, -2 * turn, 2 * turn)
        rotation = rotation if rng.random() <= 0.6 else 0.0
        is_mirrored = settings.flip and rng.random() <= 0.5
        if is_mirrored:
            center = np.array([width - 1 - center[0], center[1]], np.float32)
        return center, scale * np.float32(zoom), float(rotation), is_mirrored


def crop_image(image: np.ndarray, matrix: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Return a (3, H, W) uint8 RGB crop of a (H, W, 3) BGR image.

    Bilinear interpolation; pixels outside the image are black.

    Args:
        matrix: (2, 3) affine matrix from image to crop pixels.
        size: (width, height) of the crop.
    """
    patch = cv2.warpAffine(image, matrix, size, flags=cv2.INTER_LINEAR)
    planes = np.empty((3, size[1], size[0]), np.uint8)
    cv2.split(patch, [planes[2], planes[1], planes[0]])
    return planes
