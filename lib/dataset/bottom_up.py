"""Bottom-up samples, called scenes: whole images with everybody in them.

Geometry as in lib/dataset/transforms and lib/utils/transforms.py of
HRNet/HigherHRNet-Human-Pose-Estimation.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import torch
from torch.utils.data import Dataset

from lib.dataset.broken import read_or_replace
from lib.dataset.image import read_image
from lib.dataset.scenes import label_mask
from lib.dataset.source import Source
from lib.dataset.top_down import crop_image
from lib.keypoints.geometry import PIXEL_STD, Crop, flip_permutation, transform_points
from lib.utils.errors import InputError

SIZE_STEP = 64  # sides of test inputs are rounded up to multiples of this (see ``scene_size``)
MAX_ASPECT = 16  # maximum aspect ratio; longer images would need too much memory

Sample = dict[str, torch.Tensor]


@dataclass(frozen=True)
class SceneAugmentation:
    """Random square crops of whole images."""

    flip: bool = True  # mirror half of the samples
    max_rotation: float = 30.0  # degrees
    min_scale: float = 0.75  # minimum side of the crop, relative to the image's shorter side
    max_scale: float = 1.5  # maximum side of the crop, also relative to the shorter side
    relative_to_long: bool = False  # if True, both are relative to the image's longer side
    max_shift: float = 0.2  # maximum shift of the crop, as a fraction of its side


class SceneDataset(Dataset):
    """Dataset of the images of ``source``.

    With ``augmentation``, images without annotations are left out, and ``dataset[epoch, n]`` is a
    training sample, a dict of tensors:

        image: uint8 (3, H, W), RGB.
        joints: float32 (S, P, K, 2), x, y in pixels of each of the S outputs. P is the largest
            number of people in an image.
        visible: float32 (P, K), 1 if the joint is annotated.
        mask0, mask1, ...: float32 (h, w) for each output, 0 where people are not labelled and
            outside the image.
        index, image_index: int64, both the index of the image in ``source.table.paths``.
        broken: int64, index of image n, if it is broken and another sample was returned instead;
            otherwise -1.

    A training sample depends only on (seed, epoch, image). Without augmentation, ``dataset[n]`` is
    the result of ``scene_batch``.

    Args:
        size: side of the network's input in training; in tests, its shorter side.
        output_sizes: (width, height) of the network's outputs in training.
        scales: sizes at which an image is tested, relative to ``size``.
    """

    def __init__(
        self,
        source: Source,
        size: int,
        output_sizes: Sequence[tuple[int, int]],
        augmentation: SceneAugmentation | None = None,
        seed: int = 0,
        scales: Sequence[float] = (1.0,),
    ) -> None:
        self.source = source
        self.skeleton = source.skeleton
        self.table = source.table
        self.size = size
        self.output_sizes = tuple(output_sizes)
        self.augmentation = augmentation
        self.seed = seed
        self.scales = tuple(scales)
        count = len(self.table.paths)
        self.images = np.arange(count)
        if augmentation:
            self.images = np.flatnonzero(source.scenes.is_annotated)
        self._starts = np.searchsorted(self.table.image, np.arange(count + 1))
        self.max_people = int(np.diff(self._starts).max(initial=1))

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, key: int | tuple[int, int]) -> Sample:
        epoch, number = key if isinstance(key, tuple) else (0, key)
        index = int(self.images[number])
        if self.augmentation is None:
            path = self.table.paths[index].decode()
            return scene_batch(read_image(path), index, self.size, self.scales, path)
        paths = self.table.paths
        image, used = read_or_replace(lambda n: paths[self.images[n]].decode(), number, len(self))
        sample = self._sample(image, int(self.images[used]), epoch)
        return {**sample, "broken": torch.tensor(-1 if used == number else index)}

    def image_files(self, indices: Sequence[int]) -> list[str]:
        """Return the files of the images ``indices``."""
        return [self.table.paths[index].decode() for index in indices]

    def _sample(self, image: np.ndarray, index: int, epoch: int) -> Sample:
        # Four numbers, so that the seed differs from those of top-down samples.
        rng = np.random.default_rng((self.seed, epoch, index, 2))
        height, width = image.shape[:2]
        center, scale, rotation, is_mirrored = self._random_crop(rng, width, height)
        rows = slice(self._starts[index], self._starts[index + 1])
        joints, visible = self.table.joints[rows], self.table.visible[rows]
        order = flip_permutation(
            len(self.skeleton), self.skeleton.flip_pairs if is_mirrored else ()
        )
        labels = label_mask(
            self.source.scenes.unlabelled[index], height, width, self.source.annotation_file
        )
        sample = {"image": _cut(image, center, scale, rotation, (self.size,) * 2, is_mirrored)}
        output_joints = np.zeros(
            (len(self.output_sizes), self.max_people, len(order), 2), np.float32
        )
        for number, size in enumerate(self.output_sizes):
            matrix = Crop(size).matrix(center, scale, rotation)
            points = transform_points(joints[:, order], matrix)
            if is_mirrored:
                points[..., 0] = size[0] - 1 - points[..., 0]
            output_joints[number, : len(points)] = points
            mask = cv2.warpAffine(labels * 255, matrix, size) > 127.5
            mask = mask[:, ::-1] if is_mirrored else mask
            sample[f"mask{number}"] = torch.from_numpy(mask.astype(np.float32))
        flags = np.zeros((self.max_people, len(order)), np.float32)
        flags[: len(visible)] = visible[:, order] > 0
        sample["joints"] = torch.from_numpy(output_joints)
        sample["visible"] = torch.from_numpy(flags)
        sample["index"] = sample["image_index"] = torch.tensor(index, dtype=torch.int64)
        return sample

    def _random_crop(
        self, rng: np.random.Generator, width: int, height: int
    ) -> tuple[np.ndarray, np.ndarray, float, bool]:
        """Return the center in pixels, scale, rotation in degrees and mirror flag of a crop."""
        settings = self.augmentation
        side = max(width, height) if settings.relative_to_long else min(width, height)
        side *= rng.uniform(settings.min_scale, settings.max_scale)
        rotation = settings.max_rotation * rng.uniform(-1, 1)
        limit = int(settings.max_shift * side)
        shift = rng.integers(-limit, limit, 2) if limit else np.zeros(2)
        center = np.array([width / 2, height / 2]) + shift
        is_mirrored = settings.flip and rng.random() < 0.5
        return center, np.full(2, side / PIXEL_STD), rotation, is_mirrored


def _cut(
    image: np.ndarray,
    center: np.ndarray,
    scale: np.ndarray,
    rotation: float,
    size: tuple[int, int],
    is_mirrored: bool,
) -> torch.Tensor:
    """Cut a rotated box out of a BGR image and mirror it if needed; returns uint8 (3, H, W) RGB."""
    crop = crop_image(image, Crop(size).matrix(center, scale, rotation), size)
    return torch.from_numpy(np.ascontiguousarray(crop[..., ::-1]) if is_mirrored else crop)


def is_too_long(width: int, height: int) -> bool:
    """Return True if an image is too long and narrow for one pass through the network."""
    return max(width, height) > MAX_ASPECT * min(width, height)


def scene_size(
    width: int, height: int, size: int, scale: float = 1.0, min_scale: float = 1.0
) -> tuple[tuple[int, int], np.ndarray, np.ndarray]:
    """Return the size of a network's input for a whole image, and the box that the input covers.

    The shorter side of the input is about ``size * scale``. At ``min_scale``, the smallest scale in
    use, both sides are rounded up to multiples of 64; at other scales the input is proportionally
    larger. Source: ``get_multi_scale_size`` in lib/utils/transforms.py.

    Returns:
        (width, height) of the input in pixels, and the center (2,) and scale (2,) of the box, as in
        ``lib.keypoints.geometry.Crop``.
    """
    center = np.array([int(width / 2 + 0.5), int(height / 2 + 0.5)])
    smallest = _round_up(min_scale * size)
    short, long = sorted((width, height))
    # The order of operations is the published one; it matters because the results are truncated.
    resized_short = int(smallest * scale / min_scale)
    resized_long = int(_round_up(smallest / short * long) * scale / min_scale)
    box_long = resized_long / resized_short * short
    if width < height:
        return (resized_short, resized_long), center, np.array([short, box_long]) / PIXEL_STD
    return (resized_long, resized_short), center, np.array([box_long, short]) / PIXEL_STD


def _round_up(length: float) -> int:
    return int((length + SIZE_STEP - 1) // SIZE_STEP * SIZE_STEP)


def scene_batch(
    image: np.ndarray, index: int, size: int, scales: Sequence[float] = (1.0,), name: str = "image"
) -> Sample:
    """Return a batch of one image (H, W, 3) BGR, for ``BottomUp.forward``, with these tensors:

    image0, image1, ...: uint8 (1, 3, h, w), RGB, for each of the S ``scales``, in descending order.
    is_tagged: bool (S,), True for the image whose tags are used.
    base_size: int64 (2,), width and height at scale 1.
    center, scale: float32 (1, 2), the box that these images show.
    index, image_index: int64 (1,), both ``index``.

    Raises:
        InputError: if the image is too long and narrow; the message begins with ``name``.
    """
    height, width = image.shape[:2]
    if is_too_long(width, height):
        raise InputError(
            f"{name}: an image of {width}x{height} pixels is too long and narrow for one pass "
            "through the network; cut it into parts with an aspect ratio of at most "
            f"{MAX_ASPECT}:1"
        )
    batch: Sample = {}
    descending = sorted(scales, reverse=True)
    for number, scale in enumerate(descending):
        resized, center, extent = scene_size(width, height, size, scale, min(scales))
        batch[f"image{number}"] = _cut(image, center, extent, 0.0, resized, False)[None]
    base, *_ = scene_size(width, height, size, 1.0, min(scales))
    batch["is_tagged"] = torch.tensor([s == 1 or len(scales) == 1 for s in descending])
    batch["base_size"] = torch.tensor(base)
    batch["center"] = torch.tensor(center[None], dtype=torch.float32)
    batch["scale"] = torch.tensor(extent[None], dtype=torch.float32)
    batch["index"] = batch["image_index"] = torch.tensor([index])
    return batch
