"""Validation of the arguments of ``lib.nms``."""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

KEYPOINTS_MEANING = "x, y, score of each joint; sigmas has one value per joint"  # for errors


def check_threshold(threshold: float, above_zero: bool = False) -> float:
    """Return ``threshold`` as a float.

    Raises:
        ValueError: if it is negative or not finite, or if it is 0 and ``above_zero`` is set.
    """
    value = float(threshold)
    if not math.isfinite(value) or value < 0 or (above_zero and value == 0):
        expected = "above 0" if above_zero else "0 or more"
        raise ValueError(f"threshold is {threshold}; it must be a finite number, {expected}")
    return value


def check_array(
    name: str,
    values: ArrayLike,
    shape: tuple[int | str, ...],
    meaning: str,
    dtype: type | None = np.float64,
) -> np.ndarray:
    """Return ``values`` as a contiguous array, of the given dtype if it is not None.

    Raises:
        ValueError: if the shape is not ``shape``, in which a string allows any length, or the
            values are not real numbers. The message describes the values with ``meaning``.
    """
    array = np.asarray(values)
    if array.ndim != len(shape) or any(
        isinstance(length, int) and size != length
        for size, length in zip(array.shape, shape, strict=True)
    ):
        expected = ", ".join(map(str, shape))
        raise ValueError(f"{name} has shape {array.shape}; it must be ({expected}): {meaning}")
    if array.dtype.kind not in "fiub":
        raise ValueError(f"{name} has dtype {array.dtype}; it must contain real numbers")
    return np.asarray(array, dtype, order="C")


def check_boxes(dets: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    """Return boxes, float32 (N, 4), and scores (N,), from detections (N, 5)."""
    if np.shape(dets)[:1] == (0,):
        dets = np.zeros((0, 5))
    array = check_array("dets", dets, ("N", 5), "x1, y1, x2, y2, score of each box", dtype=None)
    return array[:, :4].astype(np.float32), array[:, 4]


@dataclass(frozen=True)
class People:
    """Validated arguments of the OKS functions; all arrays are float64 and contiguous."""

    keypoints: np.ndarray  # (N, K, 3)
    scores: np.ndarray  # (N,), with -inf in place of NaN
    areas: np.ndarray  # (N,)
    variances: np.ndarray  # (K,): (2 * sigma) ** 2
    min_score: float | None  # use only joints with a higher score; None: all joints


def check_people(
    keypoints: ArrayLike,
    scores: ArrayLike,
    areas: ArrayLike,
    sigmas: ArrayLike,
    in_vis_thre: float | None,
    name: str = "keypoints",
) -> People:
    """Convert the arguments of the OKS functions; raise ValueError if one is invalid.

    ``name`` is the caller's name for ``keypoints``, for errors.
    """
    sigmas = check_array("sigmas", sigmas, ("K",), "one per joint")
    if not len(sigmas) or not (np.isfinite(sigmas) & (sigmas > 0)).all():
        raise ValueError(f"sigmas is {sigmas.tolist()}; it must contain finite numbers above 0")
    joints = len(sigmas)
    if np.shape(keypoints)[:1] == (0,):
        keypoints = np.zeros((0, joints, 3))
    keypoints = check_array(name, keypoints, ("N", joints, 3), KEYPOINTS_MEANING)
    count = len(keypoints)
    scores = check_array("scores", scores, (count,), f"one per person in {name}")
    meaning = f"one per person in {name}, in square pixels"
    areas = check_array("areas", areas, (count,), meaning)
    check_areas(areas)
    scores = np.where(np.isnan(scores), -np.inf, scores)
    min_score = None if in_vis_thre is None else float(in_vis_thre)
    return People(keypoints, scores, areas, (sigmas * 2) ** 2, min_score)


def check_areas(areas: np.ndarray) -> None:
    """Raise ValueError if an area is negative. NaN is allowed; it suppresses nothing."""
    if (areas < 0).any():
        row = int(np.argmax(areas < 0))
        raise ValueError(f"areas[{row}] is {areas[row]}; an area must not be negative")


def check_groups(groups: ArrayLike, count: int) -> np.ndarray:
    """Return ``groups`` as an array (count,); raise ValueError unless it contains integers."""
    array = check_array("groups", groups, (count,), "the image of each person", dtype=None)
    if count and array.dtype.kind not in "iu":
        raise ValueError(f"groups has dtype {array.dtype}; it must be an integer type")
    return array
