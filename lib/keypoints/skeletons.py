"""Skeletons: joint names, flip pairs, sigmas and limbs; and categories of COCO annotation files."""

from collections.abc import Sequence
from dataclasses import dataclass

import msgspec

from lib.utils.errors import InputError


@dataclass(frozen=True)
class Skeleton:
    """A set of K joints, which are referred to by their indices."""

    names: tuple[str, ...]  # in the order of the annotations
    flip_pairs: tuple[tuple[int, int], ...]  # (left, right) joints that mirroring swaps
    sigmas: tuple[float, ...]  # for OKS: std of the annotations, relative to the object size
    limbs: tuple[tuple[int, int], ...]  # pairs that drawings connect with a line
    upper_body: tuple[int, ...]  # for half-body augmentation
    joint_weights: tuple[float, ...] = ()  # for LOSS.USE_DIFFERENT_JOINTS_WEIGHT

    def __len__(self) -> int:
        return len(self.names)


# The starred tuples below only keep related values on one line.

# Sigmas: pycocotools.cocoeval.Params; weights: HRNet's lib/dataset/coco.py.
COCO = Skeleton(
    names=(
        *("nose", "left_eye", "right_eye", "left_ear", "right_ear"),
        *("left_shoulder", "right_shoulder", "left_elbow", "right_elbow"),
        *("left_wrist", "right_wrist", "left_hip", "right_hip"),
        *("left_knee", "right_knee", "left_ankle", "right_ankle"),
    ),
    flip_pairs=((1, 2), (3, 4), (5, 6), (7, 8), (9, 10), (11, 12), (13, 14), (15, 16)),
    sigmas=tuple(
        s / 10
        for s in (
            *(0.26, 0.25, 0.25, 0.35, 0.35),
            *(0.79, 0.79, 0.72, 0.72, 0.62, 0.62),
            *(1.07, 1.07, 0.87, 0.87, 0.89, 0.89),
        )
    ),
    limbs=(
        *((15, 13), (13, 11), (16, 14), (14, 12), (11, 12), (5, 11), (6, 12), (5, 6)),
        *((5, 7), (6, 8), (7, 9), (8, 10), (1, 2), (0, 1), (0, 2), (1, 3), (2, 4), (3, 5), (4, 6)),
    ),
    upper_body=tuple(range(11)),
    joint_weights=(1, 1, 1, 1, 1, 1, 1, 1.2, 1.2, 1.5, 1.5, 1, 1, 1.2, 1.2, 1.5, 1.5),
)

# MPII has no official sigmas, because it is evaluated by PCKh. OKS-NMS uses COCO's sigmas here: the
# hip's for pelvis and thorax, the shoulder's for the neck, and the ear's for the top of the head.
MPII = Skeleton(
    names=(
        *("right_ankle", "right_knee", "right_hip", "left_hip", "left_knee", "left_ankle"),
        *("pelvis", "thorax", "upper_neck", "head_top"),
        *("right_wrist", "right_elbow", "right_shoulder"),
        *("left_shoulder", "left_elbow", "left_wrist"),
    ),
    flip_pairs=((5, 0), (4, 1), (3, 2), (15, 10), (14, 11), (13, 12)),
    sigmas=(
        *(0.089, 0.087, 0.107, 0.107, 0.087, 0.089, 0.107, 0.107, 0.079, 0.035),
        *(0.062, 0.072, 0.079, 0.079, 0.072, 0.062),
    ),
    limbs=(
        *((0, 1), (1, 2), (2, 6), (3, 6), (3, 4), (4, 5), (6, 7), (7, 8), (8, 9)),
        *((10, 11), (11, 12), (12, 7), (13, 7), (13, 14), (14, 15)),
    ),
    upper_body=tuple(range(7, 16)),
    joint_weights=(1.5, 1.2, 1, 1, 1.2, 1.5, 1, 1, 1, 1, 1.5, 1.2, 1, 1, 1.2, 1.5),
)

# Sigmas: crowdposetools of Jeff-sjtu/CrowdPose; weights: COCO's for the same joints.
CROWDPOSE = Skeleton(
    names=(
        *("left_shoulder", "right_shoulder", "left_elbow", "right_elbow"),
        *("left_wrist", "right_wrist", "left_hip", "right_hip"),
        *("left_knee", "right_knee", "left_ankle", "right_ankle", "head", "neck"),
    ),
    flip_pairs=((0, 1), (2, 3), (4, 5), (6, 7), (8, 9), (10, 11)),
    sigmas=tuple(
        s / 10
        for s in (
            *(0.79, 0.79, 0.72, 0.72, 0.62, 0.62),
            *(1.07, 1.07, 0.87, 0.87, 0.89, 0.89, 0.79, 0.79),
        )
    ),
    limbs=(
        *((12, 13), (13, 0), (13, 1), (0, 1), (0, 2), (2, 4), (1, 3), (3, 5)),
        *((0, 6), (1, 7), (6, 7), (6, 8), (8, 10), (7, 9), (9, 11)),
    ),
    upper_body=(0, 1, 2, 3, 4, 5, 12, 13),
    joint_weights=(1, 1, 1.2, 1.2, 1.5, 1.5, 1, 1, 1.2, 1.2, 1.5, 1.5, 1, 1),
)

# ATRW (Amur tigers): lib/dataset/atrw.py and cocoeval_atrw.py of
# gurpreet-ai/hrnet_keypoint_detection. mmpose uses different sigmas.
ATRW = Skeleton(
    names=(
        *("left_ear", "right_ear", "nose"),
        *("right_shoulder", "right_front_paw", "left_shoulder", "left_front_paw"),
        *("right_hip", "right_knee", "right_back_paw", "left_hip", "left_knee", "left_back_paw"),
        *("tail", "center"),
    ),
    flip_pairs=((0, 1), (5, 3), (6, 4), (10, 7), (11, 8), (12, 9)),
    sigmas=(
        *(0.024, 0.072, 0.072, 0.018, 0.062, 0.023, 0.056),
        *(0.026, 0.038, 0.028, 0.029, 0.048, 0.023, 0.06, 0.047),
    ),
    limbs=(
        *((0, 2), (1, 2), (2, 14), (5, 6), (5, 14), (3, 4), (3, 14)),
        *((13, 14), (9, 8), (8, 7), (7, 13), (12, 11), (11, 10), (10, 13)),
    ),
    upper_body=tuple(range(7)),
    joint_weights=(1.2, 1, 1, 1.3, 1, 1.2, 1, 2, 1.3, 1.2, 1.4, 1.2, 1.2, 1, 1),
)

# DATASET.DATASET -> skeleton.
SKELETONS = {"atrw": ATRW, "coco": COCO, "crowdpose": CROWDPOSE, "figures": COCO, "mpii": MPII}


class Category(msgspec.Struct):
    """A category of an annotation file; ``skeleton`` holds pairs of 1-based joint numbers."""

    id: int
    name: str = ""
    keypoints: list[str] | None = None
    skeleton: list[tuple[int, int]] | None = None


def categories_with_joints(categories: Sequence[Category]) -> list[Category]:
    """Return the first category (by id) that names its joints, and all others with the same joints.

    If no category names its joints, return the first one.
    """
    ordered = sorted(categories, key=lambda category: category.id)
    named = [category for category in ordered if category.keypoints]
    return [c for c in named if c.keypoints == named[0].keypoints] or ordered[:1]


def category_ids(categories: Sequence[Category], names: Sequence[str], path: str) -> list[int]:
    """Return the sorted ids of the categories called ``names``.

    If ``names`` is empty, return the ids of ``categories_with_joints``.

    Raises:
        InputError: if a name is unknown; the message names the annotation file ``path``.
    """
    missing = set(names) - {category.name for category in categories}
    if missing:
        raise InputError(
            f"DATASET.CATEGORIES: {path} has no category {', '.join(sorted(missing))}; choose from "
            f"{', '.join(category.name for category in categories)}"
        )
    chosen = [c for c in categories if c.name in names] or categories_with_joints(categories)
    return sorted(category.id for category in chosen)
