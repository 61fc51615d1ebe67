"""Non-maximum suppression of boxes (NumPy, Cython and CUDA) and poses (NumPy and Cython).

``make`` builds the Cython and CUDA versions, which are optional and give the same results. The CUDA
version is for scripts that used ``gpu_nms`` of the original HRNet code. No tool uses it:
torchvision's detectors have their own NMS, and boxes from ONNX Runtime are few and already on the
CPU.

All versions follow these rules:

- Higher scores come first. Among equal scores the later row comes first, as with a stable
  ``argsort()[::-1]``. (In the published code the order of ties depends on the machine.)
- A box or person is removed if its overlap with a kept box or person of a higher score is *above*
  the threshold. The overlap is the intersection over union of boxes, or the OKS of people.
- A NaN score counts as the lowest. A NaN overlap suppresses nothing, so that one invalid detection
  cannot remove all others.

Source: leoxiaobin/deep-high-resolution-net.pytorch, lib/nms. Its ``cpu_nms.pyx`` also removes a
box whose overlap equals the threshold. Its Python and CUDA versions do not; nor does this package.
"""

import numpy as np
from numpy.typing import ArrayLike

from lib.nms import arguments, gpu
from lib.nms.arguments import People
from lib.nms.backend import kernels

__all__ = ["box_nms", "oks_iou", "oks_nms", "oks_nms_groups", "soft_oks_nms"]

SOFT_NMS_LIMIT = 20  # people kept per image by soft NMS, as published


def box_nms(dets: ArrayLike, threshold: float, device: str = "cpu") -> np.ndarray:
    """Suppress overlapping boxes greedily by intersection over union, in float32.

    As published, pixels are counted inclusively: a box is x2 - x1 + 1 wide.

    Args:
        dets: (N, 5): x1, y1, x2, y2 in pixels, score.
        threshold: remove a box if its overlap with a kept box of a higher score is above this.
        device: "cpu", "cuda" or "cuda:<index>". The CPU is used if the CUDA version was not built
            or there is no such GPU.

    Returns:
        int64 (M,), the rows of ``dets`` that are kept, highest score first.

    Raises:
        ValueError: if a shape, a dtype, the threshold or the device is invalid.
        lib.nms.gpu.CudaError: if CUDA fails.
    """
    limit = arguments.check_threshold(threshold)
    gpu_index = gpu.parse_device(device)
    with np.errstate(all="ignore"):
        boxes, scores = arguments.check_boxes(dets)
        order = descending_order(scores)
        sorted_boxes = np.ascontiguousarray(boxes[order].T)
        keep = np.empty(len(order), np.uint8)
        if gpu_index is not None and len(order) and gpu.is_available(gpu_index):
            gpu.box_keep(sorted_boxes, limit, keep, gpu_index)
        else:
            kernels().box_keep(sorted_boxes, limit, keep)
    return order[keep.astype(bool)]


def descending_order(scores: np.ndarray) -> np.ndarray:
    """Return the row indices, int64 (N,), by descending score; among ties, later rows first."""
    if scores.dtype.kind == "f":
        scores = np.where(np.isnan(scores), -np.inf, scores)
    return np.argsort(scores, kind="stable")[::-1].astype(np.int64)


def oks_iou(
    person: ArrayLike,
    others: ArrayLike,
    area: float,
    areas: ArrayLike,
    sigmas: ArrayLike,
    in_vis_thre: float | None = None,
) -> np.ndarray:
    """Compute the object keypoint similarity (OKS) of one person with each of the others.

    OKS is the mean over joints of exp(-d ** 2 / (2 * sigma) ** 2 / (2 * mean of both areas)), where
    d is the distance in pixels.

    Args:
        person: (K, 3): x, y in pixels, score.
        others: (N, K, 3).
        area: area of the person in square pixels.
        areas: (N,), areas of the others.
        sigmas: (K,), the OKS constants of the joints.
        in_vis_thre: if given, use only joints whose score in the *other* person is above it. As
            published, the scores of ``person`` are ignored. OKS is 0 if no joint is left.

    Returns:
        float64 (N,), 0 to 1.

    Raises:
        ValueError: if a shape, dtype or value is invalid.
    """
    people = arguments.check_people(
        others, np.zeros(len(others)), areas, sigmas, in_vis_thre, name="others"
    )
    shape = (len(people.variances), 3)
    keypoints = arguments.check_array("person", person, shape, arguments.KEYPOINTS_MEANING)
    person_area = arguments.check_array("area", area, (), "one number, in square pixels")
    arguments.check_areas(person_area.reshape(1))
    row = np.empty(len(people.areas))
    with np.errstate(all="ignore"):
        kernels().oks_row(
            keypoints,
            people.keypoints,
            float(person_area),
            people.areas,
            people.variances,
            people.min_score,
            row,
        )
    return row


def oks_nms(
    keypoints: ArrayLike,
    scores: ArrayLike,
    areas: ArrayLike,
    threshold: float,
    sigmas: ArrayLike,
    in_vis_thre: float | None = None,
) -> np.ndarray:
    """Suppress duplicate poses in one image greedily by OKS.

    Args:
        keypoints: (N, K, 3): x, y in pixels, score.
        scores: (N,).
        areas: (N,), in square pixels, not negative.
        threshold: remove a person if the OKS with a kept person of a higher score is above this.
        sigmas: (K,), the OKS constants of the joints.
        in_vis_thre: see ``oks_iou``.

    Returns:
        int64 (M,), the rows that are kept, highest score first.

    Raises:
        ValueError: if a shape, dtype or value is invalid.
    """
    people = arguments.check_people(keypoints, scores, areas, sigmas, in_vis_thre)
    return suppress(people, np.zeros(len(people.scores)), threshold, soft=False)


def soft_oks_nms(
    keypoints: ArrayLike,
    scores: ArrayLike,
    areas: ArrayLike,
    threshold: float,
    sigmas: ArrayLike,
    in_vis_thre: float | None = None,
) -> np.ndarray:
    """Select at most 20 poses in one image by soft NMS.

    Each time a person is kept, all other scores are multiplied by exp(-OKS ** 2 / threshold). As
    published, the lowered scores are not returned. Arguments and errors are those of ``oks_nms``,
    but ``threshold`` must be above 0.

    Returns:
        int64 (M,), M <= 20, rows in the order in which they were kept.
    """
    people = arguments.check_people(keypoints, scores, areas, sigmas, in_vis_thre)
    return suppress(people, np.zeros(len(people.scores)), threshold, soft=True)


def oks_nms_groups(
    keypoints: ArrayLike,
    scores: ArrayLike,
    areas: ArrayLike,
    groups: ArrayLike,
    threshold: float,
    sigmas: ArrayLike,
    in_vis_thre: float | None = None,
    soft: bool = False,
) -> np.ndarray:
    """Run ``oks_nms`` or ``soft_oks_nms`` on all images of a data set in one call.

    Args:
        groups: int (N,), the image of each person, in any order.
        soft: use ``soft_oks_nms``.
        keypoints, scores, areas, threshold, sigmas, in_vis_thre: as in ``oks_nms``.

    Returns:
        int64 (M,), the rows that are kept, in ascending order.

    Raises:
        ValueError: if a shape, dtype or value is invalid.
    """
    people = arguments.check_people(keypoints, scores, areas, sigmas, in_vis_thre)
    images = arguments.check_groups(groups, len(people.scores))
    return np.sort(suppress(people, images, threshold, soft))


def suppress(people: People, images: np.ndarray, threshold: float, soft: bool) -> np.ndarray:
    """Return the rows that are kept, image by image, best first."""
    limit = arguments.check_threshold(threshold, above_zero=soft)
    kept = np.empty(len(images), np.int64)
    if not len(images):
        return kept
    order = descending_order(people.scores)
    order = order[np.argsort(images[order], kind="stable")]
    borders = np.flatnonzero(np.diff(images[order])) + 1
    starts = np.concatenate([[0], borders, [len(order)]])
    common = (people.areas, people.variances, people.min_score, order, starts, limit)
    with np.errstate(all="ignore"):
        if soft:
            scores = people.scores.copy()
            count = kernels().soft_oks_groups(
                people.keypoints, scores, *common, SOFT_NMS_LIMIT, kept
            )
        else:
            count = kernels().oks_groups(people.keypoints, *common, kept)
    return kept[:count].copy()
