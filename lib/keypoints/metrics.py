"""Keypoint accuracy: PCK and PCKh. OKS is in ``lib.nms.oks_iou``.

PCK is computed for each batch by the codecs, PCKh in ``evaluate`` of MPII.
"""

import numpy as np
import torch
from torch import Tensor

# Columns of MPII's results table -> joint indices (``lib.keypoints.skeletons.MPII``).
PCKH_COLUMNS = {
    "Head": (9,),
    "Shoulder": (13, 12),
    "Elbow": (14, 11),
    "Wrist": (15, 10),
    "Hip": (3, 2),
    "Knee": (4, 1),
    "Ankle": (5, 0),
}
_NOT_IN_MEAN = (6, 7)  # pelvis and thorax


def pck(coords: Tensor, ground_truth: Tensor, size: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """Compute PCK: the fraction of joints within a normalised distance of 0.5 of the ground truth.

    Distances are normalised by a tenth of ``size``. As in the published code
    (lib/core/evaluate.py of leoxiaobin/deep-high-resolution-net.pytorch), width and height are
    swapped: x is divided by a tenth of the height, and y by a tenth of the width. Joints whose
    ground truth lies in the first two rows or columns are ignored, also as published.

    Args:
        coords, ground_truth: (N, K, 2) x, y in heatmap pixels or SimCC bins.
        size: (width, height) of the heatmaps, or numbers of bins along x and y.

    Returns:
        PCK, averaged over the joint types that have ground truth, and the number of these types;
        both scalars.
    """
    width, height = size
    x, y = (coords - ground_truth).unbind(-1)
    distance = torch.stack([x * (10 / height), y * (10 / width)], -1).norm(dim=-1)
    is_counted = (ground_truth > 1).all(-1)
    is_correct = (distance < 0.5) & is_counted
    count_per_joint = is_counted.sum(0)
    pck_per_joint = is_correct.sum(0) / count_per_joint.clamp(min=1)
    joint_types = (count_per_joint > 0).sum()
    return pck_per_joint.sum() / joint_types.clamp(min=1), joint_types


def pckh(
    predicted: np.ndarray, ground_truth: np.ndarray, missing: np.ndarray, head_size: np.ndarray
) -> dict[str, float]:
    """Compute PCKh@0.5: the percentage of joints within half a head size of the ground truth.

    Follows lib/dataset/mpii.py of leoxiaobin/deep-high-resolution-net.pytorch.

    Args:
        predicted, ground_truth: (N, 16, 2) in pixels.
        missing: (N, 16), nonzero if a joint is not annotated.
        head_size: (N,) in pixels.

    Returns:
        A value for each of ``PCKH_COLUMNS``; ``Mean``, the PCKh over all annotated joints except
        pelvis and thorax; and ``Mean@0.1``, the same with a threshold of 0.11, as published.
    """
    is_annotated = missing == 0
    distance = np.linalg.norm(predicted - ground_truth, axis=2) / head_size[:, None]
    count = is_annotated.sum(0)
    in_mean = ~np.isin(np.arange(len(count)), _NOT_IN_MEAN)

    def percent_correct(threshold: float) -> np.ndarray:
        is_correct = (distance <= threshold) & is_annotated
        return 100.0 * is_correct.sum(0) / np.maximum(count, 1)

    def mean(percentages: np.ndarray) -> float:
        return float((percentages * count)[in_mean].sum() / max(count[in_mean].sum(), 1))

    per_joint = percent_correct(0.5)
    values = {name: float(per_joint[list(joints)].mean()) for name, joints in PCKH_COLUMNS.items()}
    values["Mean"] = mean(per_joint)
    values["Mean@0.1"] = mean(percent_correct(0.11))
    return values
