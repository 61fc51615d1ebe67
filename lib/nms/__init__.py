"""Non-maximum suppression of boxes and of people: NumPy, Cython, CUDA; one answer from all.

``make`` builds the Cython and CUDA versions; nothing here needs them. CUDA, which only ``box_nms``
has, replaces the original's ``gpu_nms`` for users' scripts; no command uses it. torchvision's
detectors have their own NMS on the GPU, and ONNX Runtime's boxes lie on the CPU, too few to be
worth a copy. What the versions share:

- The higher score goes first. Of equal scores the later row goes first, as a stable
  ``argsort()[::-1]`` has it (the published code's sort leaves the order of ties to the machine).
- A box or person goes when its overlap with a better one that stays is *above* the threshold.
- A NaN score is the lowest. A NaN overlap suppresses nobody, so that one broken detection cannot
  empty an image.

Source: leoxiaobin/deep-high-resolution-net.pytorch, lib/nms (its ``cpu_nms.pyx`` also drops a box
whose overlap is equal to the threshold; its Python and CUDA versions and this one do not).
"""

import logging

import numpy as np
from numpy.typing import ArrayLike

from lib.nms import arguments, gpu
from lib.nms.arguments import People
from lib.nms.backend import kernels

__all__ = ["box_nms", "oks_iou", "oks_nms", "oks_nms_groups", "soft_oks_nms"]

SOFT_LIMIT = 20  # people that soft suppression keeps of an image, as published
# Fewer boxes are done before a copy to the GPU is; for more its overlap table needs over a GiB.
AUTO_CUDA_BOXES = range(1_000, 100_001)

logger = logging.getLogger(__name__)


def box_nms(dets: ArrayLike, threshold: float, device: str = "cpu") -> np.ndarray:
    """Greedy suppression of boxes by overlap (intersection over union).

    Computed in float32. Pixels are counted inclusively, as published: a box is x2 - x1 + 1 wide.

    Args:
        dets: (N, 5): x1, y1, x2, y2 in pixels, score.
        threshold: a box goes when its overlap with a kept, better one is above this.
        device: "cpu"; "cuda" or "cuda:1", the CPU in its place where CUDA was not built or there
            is no GPU; "auto" takes "cuda" where the number of boxes makes it worthwhile.

    Returns:
        int64 (M,), rows of ``dets`` that stay, highest score first.

    Raises:
        ValueError: a wrong shape, dtype, threshold or device.
        lib.nms.gpu.CudaError: CUDA failed; the message is CUDA's ("auto" turns to the CPU instead).
    """
    limit = arguments.check_threshold(threshold)
    number = gpu.parse_device(device)
    with np.errstate(all="ignore"):
        boxes, scores = arguments.check_boxes(dets)
        order = descending_order(scores)
        table = np.ascontiguousarray(boxes[order].T)
        keep = np.empty(len(order), np.uint8)
        if device == "auto" and len(order) not in AUTO_CUDA_BOXES:
            number = None
        if number is None or not len(order) or not gpu.available(number):
            kernels().box_keep(table, limit, keep)
        else:
            box_keep_cuda(table, limit, keep, number, device == "auto")
    return order[keep.astype(bool)]


def box_keep_cuda(
    table: np.ndarray, threshold: float, keep: np.ndarray, number: int, forgiving: bool
) -> None:
    """``box_keep`` on a GPU; where ``forgiving``, a CUDA error is logged and the CPU does it."""
    try:
        gpu.box_keep(table, threshold, keep, number)
    except gpu.CudaError as error:
        if not forgiving:
            raise
        logger.warning("%s; these boxes were done on the CPU instead", error)
        kernels().box_keep(table, threshold, keep)


def descending_order(scores: np.ndarray) -> np.ndarray:
    """Rows, highest score first: int64 (N,). Of equals the later row first; NaN is the lowest."""
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
    """Object keypoint similarity of one person with each of others.

    The mean over joints of exp(-d ** 2 / (2 * sigma) ** 2 / (2 * mean of both areas)), d being the
    distance in pixels; every joint counts, or those above ``in_vis_thre``.

    Args:
        person: (K, 3): x, y in pixels, score.
        others: (N, K, 3).
        area: of the person, pixels squared.
        areas: (N,), of the others.
        sigmas: (K,).
        in_vis_thre: where given, only joints count whose score in the *other* person is above it
            (as published: the first person's scores are not looked at); OKS is 0 where none is.

    Returns:
        float64 (N,), 0 to 1.

    Raises:
        ValueError: a wrong shape, dtype or value.
    """
    people = arguments.check_people(others, np.zeros(len(others)), areas, sigmas, in_vis_thre)
    joints = len(people.variances)
    one = arguments.floats("person", person, (joints, 3), "x, y, score for each joint's sigma")
    own = arguments.floats("area", area, (), "one number, pixels squared")
    arguments.check_areas(own.reshape(1))
    row = np.empty(len(people.areas))
    with np.errstate(all="ignore"):
        kernels().oks_row(
            one, people.keypoints, float(own), people.areas, people.variances, people.visible, row
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
    """Greedy suppression of the people of one image by their OKS.

    Args:
        keypoints: (N, K, 3): x, y in pixels, score.
        scores: (N,).
        areas: (N,), pixels squared, not negative.
        threshold: a person goes when the OKS with a kept, better one is above this.
        sigmas: (K,), the skeleton's.
        in_vis_thre: see ``oks_iou``.

    Returns:
        int64 (M,), rows that stay, highest score first.

    Raises:
        ValueError: a wrong shape, dtype or value.
    """
    people = arguments.check_people(keypoints, scores, areas, sigmas, in_vis_thre)
    order = descending_order(people.scores)
    return suppress(people, order, np.array([0, len(order)], np.int64), threshold, soft=False)


def soft_oks_nms(
    keypoints: ArrayLike,
    scores: ArrayLike,
    areas: ArrayLike,
    threshold: float,
    sigmas: ArrayLike,
    in_vis_thre: float | None = None,
) -> np.ndarray:
    """The best people of one image, at most 20, when each one kept lowers the others' scores.

    Each time a person is kept, every other score falls by exp(-OKS ** 2 / threshold). As published,
    only the order comes back, not the lowered scores. Arguments and errors as in ``oks_nms``, but
    ``threshold`` must be above 0.

    Returns:
        int64 (M,), M <= 20, rows in the order in which they were kept.
    """
    people = arguments.check_people(keypoints, scores, areas, sigmas, in_vis_thre)
    order = descending_order(people.scores)
    return suppress(people, order, np.array([0, len(order)], np.int64), threshold, soft=True)


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
    """``oks_nms`` (or ``soft_oks_nms``) in every image of a data set, in one call.

    Args:
        groups: int (N,), the image of each person, in any order.
        soft: whether to do as ``soft_oks_nms`` does.
        keypoints, scores, areas, threshold, sigmas, in_vis_thre: as in ``oks_nms``.

    Returns:
        int64 (M,), rows that stay, sorted: the same rows as from a loop over the images.

    Raises:
        ValueError: a wrong shape, dtype or value.
    """
    people = arguments.check_people(keypoints, scores, areas, sigmas, in_vis_thre)
    images = arguments.check_groups(groups, len(people.scores))
    order = descending_order(people.scores)
    order = order[np.argsort(images[order], kind="stable")]
    borders = np.flatnonzero(np.diff(images[order])) + 1
    starts = np.concatenate([[0], borders, [len(order)]]).astype(np.int64)
    return np.sort(suppress(people, order, starts, threshold, soft))


def suppress(
    people: People, order: np.ndarray, starts: np.ndarray, threshold: float, soft: bool
) -> np.ndarray:
    """Rows kept of each group ``order[starts[g]:starts[g + 1]]``, in the order of keeping."""
    limit = arguments.check_threshold(threshold, above_zero=soft)
    kept = np.empty(len(order), np.int64)
    if not len(order):
        return kept
    given = (people.areas, people.variances, people.visible, order, starts, limit)
    with np.errstate(all="ignore"):
        if soft:
            scores = people.scores.copy()
            count = kernels().soft_oks_groups(people.keypoints, scores, *given, SOFT_LIMIT, kept)
        else:
            count = kernels().oks_groups(people.keypoints, *given, kept)
    return kept[:count].copy()
