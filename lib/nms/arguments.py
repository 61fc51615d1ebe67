"""Checks of the arguments of ``lib.nms``: what is wrong, and what would be right."""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike


def check_threshold(threshold: float, above_zero: bool = False) -> float:
    """``threshold`` as a float; ValueError unless it is finite and not negative (or above 0)."""
    value = float(threshold)
    if not math.isfinite(value) or value < 0 or (above_zero and value == 0):
        right = "above 0" if above_zero else "0 or above"
        raise ValueError(f"threshold is {threshold}; it must be a finite number, {right}")
    return value


def check_boxes(dets: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    """Boxes float32 (N, 4) and scores (N,), from dets (N, 5); ValueError for another shape."""
    array = np.asarray(dets)
    if array.shape[:1] == (0,):
        array = np.zeros((0, 5), np.float32)
    if array.ndim != 2 or array.shape[1] != 5:
        raise ValueError(
            f"dets has shape {array.shape}; it must be (N, 5): x1, y1, x2, y2, score for each box"
        )
    check_numbers("dets", array)
    return array[:, :4].astype(np.float32), array[:, 4]


def check_numbers(name: str, array: np.ndarray) -> None:
    """ValueError unless ``array`` holds real numbers."""
    if array.dtype.kind not in "fiub":
        raise ValueError(f"{name} has dtype {array.dtype}; it must hold real numbers")


def floats(name: str, values: ArrayLike, shape: tuple[int | None, ...], meaning: str) -> np.ndarray:
    """``values`` as a contiguous float64 array of ``shape`` (None: any length), or ValueError."""
    array = np.asarray(values)
    fits = array.ndim == len(shape) and all(
        want is None or have == want for have, want in zip(array.shape, shape, strict=False)
    )
    if not fits:
        wanted = ", ".join("any" if want is None else str(want) for want in shape)
        raise ValueError(f"{name} has shape {array.shape}; it must be ({wanted}): {meaning}")
    check_numbers(name, array)
    return np.asarray(array, dtype=np.float64, order="C")


@dataclass(frozen=True)
class People:
    """Checked arguments of the OKS functions, all float64 and contiguous.

    keypoints (N, K, 3); scores (N,), NaN made -inf; areas (N,); variances (K,).
    """

    keypoints: np.ndarray
    scores: np.ndarray
    areas: np.ndarray
    variances: np.ndarray
    visible: float | None


def check_people(
    keypoints: ArrayLike,
    scores: ArrayLike,
    areas: ArrayLike,
    sigmas: ArrayLike,
    in_vis_thre: float | None,
) -> People:
    """Check shapes and values against each other; ValueError names the argument that is wrong."""
    variances = check_sigmas(sigmas)
    joints = len(variances)
    if np.shape(keypoints)[:1] == (0,):
        keypoints = np.zeros((0, joints, 3))
    points = floats("keypoints", keypoints, (None, joints, 3), "x, y, score for each joint's sigma")
    count = len(points)
    falling = floats("scores", scores, (count,), "one for each person in keypoints")
    sizes = floats("areas", areas, (count,), "one for each person in keypoints, pixels squared")
    check_areas(sizes)
    falling = np.where(np.isnan(falling), -np.inf, falling)
    visible = None if in_vis_thre is None else float(in_vis_thre)
    return People(points, falling, sizes, variances, visible)


def check_sigmas(sigmas: ArrayLike) -> np.ndarray:
    """(2 * sigma) ** 2, float64 (K,); ValueError unless every sigma is finite and above 0."""
    array = floats("sigmas", sigmas, (None,), "one for each joint")
    if not len(array) or not (np.isfinite(array) & (array > 0)).all():
        raise ValueError(f"sigmas is {array.tolist()}; it must hold finite numbers above 0")
    return (array * 2) ** 2


def check_areas(areas: np.ndarray) -> None:
    """ValueError where an area is negative; NaN passes, it then suppresses nobody."""
    if (areas < 0).any():
        row = int(np.argmax(areas < 0))
        raise ValueError(f"areas[{row}] is {areas[row]}; an area must not be negative")


def check_groups(groups: ArrayLike, count: int) -> np.ndarray:
    """``groups`` as an integer array (count,), or ValueError."""
    array = np.asarray(groups)
    if array.size == 0 and count == 0:
        return np.zeros(0, np.int64)
    if array.shape != (count,):
        raise ValueError(
            f"groups has shape {array.shape}; it must be ({count},): the image of each person"
        )
    if array.dtype.kind not in "iu":
        raise ValueError(f"groups has dtype {array.dtype}; it must hold integers: image numbers")
    return array
