"""Geometry, in one place: boxes, crops, mirror images, and the way back to the image.

A crop shows the box around ``center`` (image pixels) whose size is ``scale`` * 200 pixels, turned
by ``rotation`` degrees, and fills ``size`` (width, height) pixels. Only the width of ``scale``
enters, as in HRNet: boxes come with the crop's aspect ratio. Where a formula is published its file
in leoxiaobin/deep-high-resolution-net.pytorch is named.

A crop that ``is_aligned`` is UDP's (Huang et al.: The Devil Is in the Details: Delving Into
Unbiased Data Processing for Human Pose Estimation. CVPR 2020): the box runs from the middle of the
first pixel to the middle of the last, so it is size - 1 pixels wide, and a crop, its mirror image
and its heatmaps lie exactly on each other.
"""

from dataclasses import dataclass

import numpy as np
import torch

PIXEL_STD = 200.0  # a scale of 1 is this many pixels
MIN_WIDTH = 1e-3  # of a crop, in image pixels: a box without area still gives one
BOX_PADDING = 1.25
HALF_BODY_PADDING = 1.5
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class Crop:
    """The crops of an experiment: ``size`` (width, height) in pixels, cut as UDP does if
    ``is_aligned``."""

    size: tuple[int, int]
    is_aligned: bool = False

    @property
    def aspect_ratio(self) -> float:
        """Width / height."""
        return self.size[0] / self.size[1]

    def matrix(self, center: np.ndarray, scale: np.ndarray, rotation: float = 0.0) -> np.ndarray:
        """See ``crop_matrix``."""
        return crop_matrix(center, scale, rotation, self.size, self.is_aligned)

    def to_image(
        self, keypoints: torch.Tensor, center: torch.Tensor, scale: torch.Tensor
    ) -> torch.Tensor:
        """See ``to_image``."""
        return to_image(keypoints, center, scale, self.size, self.is_aligned)


def is_box(boxes: np.ndarray) -> np.ndarray:
    """(N,) flags: which boxes (N, 4) x, y, width, height have an area and are numbers."""
    return (np.abs(boxes) < 1e6).all(1) & (boxes[:, 2:] > 0).all(1)


def box_to_center_scale(
    boxes: np.ndarray, aspect_ratio: float, padding: float = BOX_PADDING
) -> tuple[np.ndarray, np.ndarray]:
    """Centre and scale of the crops that show boxes (lib/dataset/coco.py, ``_box2cs``).

    Args:
        boxes: (N, 4) x, y, width, height in pixels.
        aspect_ratio: width / height of the crop; the shorter side of a box grows to it.

    Returns:
        (N, 2) float32 centre in pixels and (N, 2) float32 scale. A box whose centre has x = -1
        exactly is not padded, as published.
    """
    boxes = np.asarray(boxes, np.float64).reshape(-1, 4)
    center = (boxes[:, :2] + boxes[:, 2:] * 0.5).astype(np.float32)
    width = np.maximum(boxes[:, 2], boxes[:, 3] * aspect_ratio)
    scale = (np.stack([width, width / aspect_ratio], 1) / PIXEL_STD).astype(np.float32)
    padded = np.where(center[:, :1] != -1, scale * np.float32(padding), scale)
    return center, padded.astype(np.float32)


def crop_matrix(
    center: np.ndarray,
    scale: np.ndarray,
    rotation: float,
    size: tuple[int, int],
    is_aligned: bool = False,
) -> np.ndarray:
    """(2, 3) float64 matrix from image to crop pixels (lib/utils/transforms.py,
    ``get_affine_transform``; aligned: ``get_udp_warp_matrix`` of mmpose 1.x with the rotation's
    sign turned round)."""
    extent, box = np.array(size, np.float64), np.asarray(scale, np.float64) * PIXEL_STD
    if is_aligned:
        extent -= 1
        zoom = extent / np.maximum(box, MIN_WIDTH)
    else:
        zoom = np.full(2, extent[0] / max(box[0], MIN_WIDTH))
    radians = np.deg2rad(float(rotation))
    cosine, sine = np.cos(radians), np.sin(radians)
    turned = zoom[:, None] * np.array([[cosine, sine], [-sine, cosine]])
    shift = extent * 0.5 - turned @ np.asarray(center, np.float64)
    return np.column_stack([turned, shift])


def mirror_matrix(matrix: np.ndarray, width: int) -> np.ndarray:
    """The crop matrix that gives, from an image of that width, what ``matrix`` gives from the
    mirrored image."""
    mirror = np.array([[-1.0, 0.0, width - 1.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]])
    return matrix @ mirror


def transform_points(points: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    """(..., 2) points moved by a (2, 3) matrix."""
    return points @ matrix[:, :2].T + matrix[:, 2]


def mirror_joints(
    joints: np.ndarray, visible: np.ndarray, width: int, flip_pairs: tuple[tuple[int, int], ...]
) -> tuple[np.ndarray, np.ndarray]:
    """Joints (K, 2) and flags (K,) of the mirrored image, left and right exchanged."""
    order = flip_permutation(len(joints), flip_pairs)
    mirrored = joints[order].copy()
    mirrored[:, 0] = width - 1 - mirrored[:, 0]
    return mirrored, visible[order]


def flip_permutation(count: int, flip_pairs: tuple[tuple[int, int], ...]) -> list[int]:
    """For each of ``count`` joints, the joint that takes its place in a mirror."""
    order = list(range(count))
    for left, right in flip_pairs:
        order[left], order[right] = right, left
    return order


def half_body_box(
    joints: np.ndarray,
    visible: np.ndarray,
    upper_body: tuple[int, ...],
    prefers_upper: bool,
    aspect_ratio: float,
) -> tuple[np.ndarray, np.ndarray] | None:
    """Centre and scale around the upper or lower half of a body, None where too little of it can be
    seen.

    The lower half is taken when it has three visible joints, unless the upper one has three too and
    is preferred; else the upper one is, if it has two (lib/dataset/JointsDataset.py,
    ``half_body_transform``).
    """
    is_upper = np.zeros(len(joints), bool)
    is_upper[list(upper_body)] = True
    upper, lower = joints[is_upper & (visible > 0)], joints[~is_upper & (visible > 0)]
    takes_upper = (prefers_upper and len(upper) > 2) or len(lower) <= 2
    half = (upper if takes_upper else lower).astype(np.float32)
    if len(half) < 2:
        return None
    box = np.concatenate([half.min(0), half.max(0) - half.min(0)])
    _, scale = box_to_center_scale(box, aspect_ratio, padding=1.0)
    return half.mean(0), scale[0] * np.float32(HALF_BODY_PADDING)


def to_image(
    keypoints: torch.Tensor,
    center: torch.Tensor,
    scale: torch.Tensor,
    size: tuple[int, int],
    is_aligned: bool = False,
) -> torch.Tensor:
    """Crop pixels to image pixels (``transform_preds``), for crops that were not turned.

    Args:
        keypoints: (N, K, 2) in pixels of crops of ``size`` (width, height).
        center, scale: (N, 2).

    Returns:
        (N, K, 2) in image pixels.
    """
    extents = [side - is_aligned for side in size]
    # Axis by axis: a tensor made of Python numbers would have to be copied to a GPU each time.
    moved = []
    for axis in (0, 1):
        box, extent = (axis, extents[axis]) if is_aligned else (0, extents[0])
        zoom = scale[:, box, None] * (PIXEL_STD / extent)
        offset = keypoints[..., axis] - extents[axis] * 0.5
        moved.append(offset * zoom + center[:, axis, None])
    return torch.stack(moved, dim=-1)


def normalize(images: torch.Tensor, is_rgb: bool = True) -> torch.Tensor:
    """Network input from (N, 3, H, W) uint8 RGB crops: float32, ImageNet's mean and deviation taken
    out.

    With ``is_rgb`` False the channels are put in the order BGR first and then treated as if they
    were RGB: so the published ResNets were trained.
    """
    if not is_rgb:
        images = images.flip(1)
    mean = torch.tensor(IMAGENET_MEAN, device=images.device).view(3, 1, 1) * 255
    std = torch.tensor(IMAGENET_STD, device=images.device).view(3, 1, 1) * 255
    # In place: three large temporaries cost more than the arithmetic.
    return images.float().sub_(mean).div_(std)
