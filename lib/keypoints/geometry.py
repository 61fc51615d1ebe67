"""Geometry of boxes and crops, mirroring, and normalisation of crops.

Files named below are in leoxiaobin/deep-high-resolution-net.pytorch.
"""

from dataclasses import dataclass

import numpy as np
import torch

PIXEL_STD = 200.0  # pixels per unit of scale
MIN_BOX_SIDE = 1e-3  # image pixels; shorter sides are lengthened, to avoid division by zero
BOX_PADDING = 1.25  # factor by which boxes are enlarged
HALF_BODY_PADDING = 1.5  # the same for half-body boxes
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class Crop:
    """Transform from images to crops of ``size`` (width, height) pixels, and back.

    The box that a crop shows is given by its center in image pixels, its ``scale`` (width and
    height in image pixels, divided by 200), and a rotation in degrees. A positive rotation turns
    the contents of the crop counterclockwise. As in HRNet, the height in ``scale`` is ignored,
    because boxes have the crop's aspect ratio.

    With ``is_udp`` the crop follows UDP (Huang et al.: The Devil Is in the Details: Delving Into
    Unbiased Data Processing for Human Pose Estimation. CVPR 2020). The box then extends from the
    center of the first pixel of the crop to the center of the last, so it spans ``size`` - 1 pixels
    of the crop. This exactly aligns a crop with its mirror image and its heatmaps. The height in
    ``scale`` is then used too.
    """

    size: tuple[int, int]
    is_udp: bool = False

    @property
    def aspect_ratio(self) -> float:
        """Width / height."""
        return self.size[0] / self.size[1]

    def matrix(self, center: np.ndarray, scale: np.ndarray, rotation: float = 0.0) -> np.ndarray:
        """Return the (2, 3) float64 matrix from image to crop pixels.

        Sources: ``get_affine_transform`` in lib/utils/transforms.py; for UDP,
        ``get_udp_warp_matrix`` of mmpose 1.x with the opposite sign of the rotation.
        """
        extent = np.array(self.size, np.float64)
        box_size = np.asarray(scale, np.float64) * PIXEL_STD
        if self.is_udp:
            extent -= 1
            zoom = extent / np.maximum(box_size, MIN_BOX_SIDE)
        else:
            zoom = np.full(2, extent[0] / max(box_size[0], MIN_BOX_SIDE))
        radians = np.deg2rad(float(rotation))
        cosine, sine = np.cos(radians), np.sin(radians)
        linear = zoom[:, None] * np.array([[cosine, sine], [-sine, cosine]])
        shift = extent * 0.5 - linear @ np.asarray(center, np.float64)
        return np.column_stack([linear, shift])

    def to_image(
        self, keypoints: torch.Tensor, center: torch.Tensor, scale: torch.Tensor
    ) -> torch.Tensor:
        """Map keypoints (N, K, 2) from crop to image pixels, for crops without rotation.

        ``center`` and ``scale``, (N, 2), are the boxes that the crops show. Source:
        ``transform_preds`` in lib/utils/transforms.py.
        """
        extents = [side - self.is_udp for side in self.size]
        # One axis at a time, because a tensor of both extents would be copied to the GPU on every
        # call.
        coords = []
        for axis in (0, 1):
            # Without UDP, the width determines the pixel size along both axes.
            scale_axis = axis if self.is_udp else 0
            pixel_size = scale[:, scale_axis, None] * (PIXEL_STD / extents[scale_axis])
            offset = keypoints[..., axis] - extents[axis] * 0.5
            coords.append(offset * pixel_size + center[:, axis, None])
        return torch.stack(coords, dim=-1)


def is_valid_box(boxes: np.ndarray) -> np.ndarray:
    """Return a mask (N,), True for boxes (N, 4) with a positive width and height.

    All values must also be finite and below 1e6 in magnitude.
    """
    return (np.abs(boxes) < 1e6).all(1) & (boxes[:, 2:] > 0).all(1)


def box_to_center_scale(
    boxes: np.ndarray, aspect_ratio: float, padding: float = BOX_PADDING
) -> tuple[np.ndarray, np.ndarray]:
    """Convert boxes to crop centers and scales.

    Boxes are made wider or higher to match the aspect ratio of the crop, and then enlarged by
    ``padding``. As in the published code, a box whose center has x = -1 is not enlarged by
    ``padding``. Source: ``_box2cs`` in lib/dataset/coco.py.

    Args:
        boxes: (N, 4) x, y, width, height in pixels.
        aspect_ratio: width / height of the crop.
        padding: factor for both sides.

    Returns:
        (N, 2) float32 centers in pixels and (N, 2) float32 scales.
    """
    boxes = np.asarray(boxes, np.float64).reshape(-1, 4)
    center = (boxes[:, :2] + boxes[:, 2:] * 0.5).astype(np.float32)
    width = np.maximum(boxes[:, 2], boxes[:, 3] * aspect_ratio)
    scale = (np.stack([width, width / aspect_ratio], 1) / PIXEL_STD).astype(np.float32)
    return center, np.where(center[:, :1] != -1, scale * np.float32(padding), scale)


def mirror_matrix(matrix: np.ndarray, width: int) -> np.ndarray:
    """Return a (2, 3) matrix that mirrors an image and then applies ``matrix``.

    ``width`` is the width of the image in pixels.
    """
    mirror = np.array([[-1.0, 0.0, width - 1.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]])
    return matrix @ mirror


def transform_points(points: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    """Apply a (2, 3) affine matrix to (..., 2) points."""
    return points @ matrix[:, :2].T + matrix[:, 2]


def mirror_joints(
    joints: np.ndarray, visible: np.ndarray, width: int, flip_pairs: tuple[tuple[int, int], ...]
) -> tuple[np.ndarray, np.ndarray]:
    """Mirror joints (K, 2) and their visibility flags (K,) in an image ``width`` pixels wide.

    Left and right joints are swapped.
    """
    order = flip_permutation(len(joints), flip_pairs)
    mirrored = joints[order]
    mirrored[:, 0] = width - 1 - mirrored[:, 0]
    return mirrored, visible[order]


def flip_permutation(count: int, flip_pairs: tuple[tuple[int, int], ...]) -> list[int]:
    """Return the permutation of ``count`` joints that swaps the flip pairs."""
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
    """Return center (2,) and scale (2,) of a box for the upper or lower half of the body.

    The center is the mean of the visible joints in that half. The scale is that of their bounding
    box, fitted to the aspect ratio and enlarged by ``HALF_BODY_PADDING``.

    The upper half is chosen if it is preferred and has at least three visible joints, or if the
    lower half has fewer than three. Returns None if the chosen half has fewer than two visible
    joints. Source: ``half_body_transform`` in lib/dataset/JointsDataset.py.
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


def normalize(images: torch.Tensor, is_rgb: bool = True) -> torch.Tensor:
    """Convert uint8 RGB crops (N, 3, H, W) to float32, normalised by ImageNet's mean and std.

    If ``is_rgb`` is False, the channels are reordered to BGR and then normalised as if they were
    RGB, because the published ResNets were trained this way.
    """
    if not is_rgb:
        images = images.flip(1)
    # Without non_blocking, the CPU would wait for all previous work of a GPU.
    mean, std = (
        255 * torch.tensor(values).view(3, 1, 1).to(images.device, non_blocking=True)
        for values in (IMAGENET_MEAN, IMAGENET_STD)
    )
    # In place: allocating temporaries would cost more than the arithmetic.
    return images.float().sub_(mean).div_(std)


def corners_to_boxes(
    corners: np.ndarray, scores: np.ndarray, image: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Convert corners to boxes that are clipped to the image and sorted by descending score.

    Empty boxes are dropped.

    Args:
        corners: (N, 4) x1, y1, x2, y2 in pixels.
        scores: (N,).
        image: (H, W, 3); only its size is used.

    Returns:
        Boxes (M, 4) x, y, width, height in pixels, and scores (M,).
    """
    limits = np.array([*image.shape[1::-1], *image.shape[1::-1]], np.float64)
    corners = np.clip(np.asarray(corners, np.float64), 0, limits)
    boxes = np.concatenate([corners[:, :2], corners[:, 2:] - corners[:, :2]], axis=1)
    rows = np.argsort(-scores, kind="stable")
    rows = rows[is_valid_box(boxes[rows])]
    return boxes[rows], np.asarray(scores, np.float64)[rows]
