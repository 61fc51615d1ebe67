"""Validation of the arguments of ``lib.nms``."""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike


def check_threshold(threshold: float, above_zero: bool = False) -> float:
    """Return ``threshold`` as a float.

    Raises:
        ValueError: if it is not finite, negative or, with ``above_zero``, 0.
    """
    value = float(threshold)
    if not math.isfinite(value) or value < 0 or (above_zero and value == 0):
        expected = "above 0" if above_zero else "0 or more"
        raise ValueError(f"threshold is {threshold}; it must be a finite number, {expected}")
    return value


def check_boxes(dets: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    """Return boxes, float32 (N, 4), and scores (N,), from detections (N, 5).

    Raises:
        ValueError: if the shape or dtype is invalid.
    """
    array = np.asarray(dets)
    if array.shape[:1] == (0,):
        array = np.zeros((0, 5), np.float32)
    if array.ndim != 2 or array.shape[1] != 5:
        raise ValueError(
            f"dets has shape {array.shape}; it must be (N, 5): x1, y1, x2, y2, score of each box"
        )
    check_numbers("dets", array)
    return array[:, :4].astype(np.float32), array[:, 4]


def check_numbers(name: str, array: np.ndarray) -> None:
    """Raise ValueError unless ``array`` contains real numbers."""
    if array.dtype.kind not in "fiub":
        raise ValueError(f"{name} has dtype {array.dtype}; it must contain real numbers")


def check_floats(
    name: str, values: ArrayLike, shape: tuple[int | None, ...], meaning: str
) -> np.ndarray:
    """Return ``values`` as a contiguous float64 array.

    Raises:
        ValueError: if the shape is not ``shape``, where None allows any length, or the dtype is
            invalid. The message explains the expected content with ``meaning``.
    """
    array = np.asarray(values)
    matches = array.ndim == len(shape) and all(
        length is None or size == length for size, length in zip(array.shape, shape, strict=False)
    )
    if not matches:
        expected = ", ".join("any" if length is None else str(length) for length in shape)
        raise ValueError(f"{name} has shape {array.shape}; it must be ({expected}): {meaning}")
    check_numbers(name, array)
    return np.asarray(array, dtype=np.float64, order="C")


@dataclass(frozen=True)
class People:
    """Validated arguments of the OKS functions; all arrays are float64 and contiguous.

    keypoints: (N, K, 3). scores: (N,), with -inf in place of NaN. areas: (N,). variances: (K,).
    min_score: use only joints with a higher score, or all joints if None.
    """

    keypoints: np.ndarray
    scores: np.ndarray
    areas: np.ndarray
    variances: np.ndarray
    min_score: float | None


def check_people(
    keypoints: ArrayLike,
    scores: ArrayLike,
    areas: ArrayLike,
    sigmas: ArrayLike,
    in_vis_thre: float | None,
) -> People:
    """Check the arguments of the OKS functions.

    Raises:
        ValueError: if shapes or values are invalid. The message names the argument.
    """
    variances = check_sigmas(sigmas)
    joints = len(variances)
    if np.shape(keypoints)[:1] == (0,):
        keypoints = np.zeros((0, joints, 3))
    meaning = "x, y, score of each joint in sigmas"
    keypoints = check_floats("keypoints", keypoints, (None, joints, 3), meaning)
    count = len(keypoints)
    scores = check_floats("scores", scores, (count,), "one per person in keypoints")
    meaning = "one per person in keypoints, in square pixels"
    areas = check_floats("areas", areas, (count,), meaning)
    check_areas(areas)
    scores = np.where(np.isnan(scores), -np.inf, scores)
    min_score = None if in_vis_thre is None else float(in_vis_thre)
    return People(keypoints, scores, areas, variances, min_score)


def check_sigmas(sigmas: ArrayLike) -> np.ndarray:
    """Return (2 * sigma) ** 2, float64 (K,).

    Raises:
        ValueError: unless every sigma is finite and above 0.
    """
    array = check_floats("sigmas", sigmas, (None,), "one per joint")
    if not len(array) or not (np.isfinite(array) & (array > 0)).all():
        raise ValueError(f"sigmas is {array.tolist()}; it must contain finite numbers above 0")
    return (array * 2) ** 2


def check_areas(areas: np.ndarray) -> None:
    """Raise ValueError if an area is negative; NaN is allowed and suppresses nothing."""
    if (areas < 0).any():
        row = int(np.argmax(areas < 0))
        raise ValueError(f"areas[{row}] is {areas[row]}; an area must not be negative")


def check_groups(groups: ArrayLike, count: int) -> np.ndarray:
    """Return ``groups`` as an integer array (count,).

    Raises:
        ValueError: if the shape or dtype is invalid.
    """
    array = np.asarray(groups)
    if array.size == 0 and count == 0:
        return np.zeros(0, np.int64)
    if array.shape != (count,):
        raise ValueError(
            f"groups has shape {array.shape}; it must be ({count},): the image of each person"
        )
    if array.dtype.kind not in "iu":
        raise ValueError(f"groups has dtype {array.dtype}; it must be an integer type")
    return array
