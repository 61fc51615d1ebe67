"""Labelled people and unlabelled regions of whole images, from a COCO annotation file."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
import numpy as np
from pycocotools import mask as coco_mask

from lib.dataset.coco_json import Annotation, CocoFile, ImageArrays, check_keypoint_count
from lib.utils.errors import InputError


class SceneAnnotation(Annotation, gc=False):
    """An entry of ``annotations`` with its segmentation, which is undecoded JSON."""

    segmentation: msgspec.Raw = msgspec.Raw(b"null")


class SceneFile(CocoFile):
    """An annotation file with segmentations."""

    annotations: list[SceneAnnotation] = []  # noqa: RUF012 - msgspec copies it


@dataclass(frozen=True)
class Region:
    """A region of an image whose people are not labelled."""

    segmentation: bytes  # JSON of polygons or of a run-length encoding; null or [] to use the box
    box: tuple[float, float, float, float]  # x, y, width, height in pixels


@dataclass(frozen=True)
class Scenes:
    """Unlabelled regions of the M images of an annotation file."""

    unlabelled: list[list[Region]]  # regions of each image
    is_annotated: np.ndarray  # (M,), True for images with annotations of the chosen categories


def read_scenes(
    annotations: Sequence[SceneAnnotation],
    categories: Sequence[int],
    num_joints: int,
    images: ImageArrays,
    file: str,
    uses_boxes: bool,
) -> tuple[list[SceneAnnotation], Scenes]:
    """Divide the annotations of ``categories`` into labelled people and unlabelled regions.

    As in HigherHRNet's code, an annotation is a labelled person if it has keypoints or is not
    marked as a crowd. It is an unlabelled region if it has no keypoints or is marked as a crowd. So
    a crowd with keypoints is both, and a single person without keypoints is both an unlabelled
    region and a person all of whose joints are missing.

    Args:
        num_joints: number of joints of a person.
        file: annotation file, for error messages.
        uses_boxes: if True, the region of an annotation without a segmentation is its box; if
            False, it has no region.

    Returns:
        The annotations of labelled people, in file order, and the unlabelled regions.

    Raises:
        InputError: if an annotation has a wrong number of keypoints, or an unknown image.
    """
    selected = [(n, a) for n, a in enumerate(annotations) if a.category_id in categories]
    rows = images.rows([a for _, a in selected], file)
    people: list[SceneAnnotation] = []
    unlabelled: list[list[Region]] = [[] for _ in images.ids]
    is_annotated = np.zeros(len(images.ids), bool)
    is_annotated[rows] = True
    for row, (number, annotation) in zip(rows, selected, strict=True):
        count = annotation.num_keypoints
        if count is None:
            count = sum(flag > 0 for flag in annotation.keypoints[2::3])
        if not annotation.iscrowd or count > 0:
            check_keypoint_count(annotation, number, num_joints, file)
            people.append(annotation)
        if annotation.iscrowd or count == 0:
            segmentation = bytes(annotation.segmentation)
            if uses_boxes or segmentation not in (b"null", b"[]"):
                unlabelled[row].append(Region(segmentation, annotation.bbox))
    return people, Scenes(unlabelled, is_annotated)


def label_mask(regions: Sequence[Region], height: int, width: int, file: str) -> np.ndarray:
    """Return the mask (height, width) of an image, uint8: 0 in ``regions``, 1 elsewhere.

    Raises:
        InputError: if a segmentation is neither polygons nor a run-length encoding; the message
            begins with ``file``.
    """
    mask = np.ones((height, width), np.uint8)
    for region in regions:
        content = msgspec.json.decode(region.segmentation)
        if content in (None, []):
            x, y, box_width, box_height = np.array(region.box).round().astype(int)
            mask[max(y, 0) : max(y + box_height, 0), max(x, 0) : max(x + box_width, 0)] = 0
        else:
            mask[_decode(content, height, width, file) > 0] = 0
    return mask


def _decode(content: Any, height: int, width: int, file: str) -> np.ndarray:
    """Decode a segmentation to a mask (height, width), above 0 inside."""
    if isinstance(content, list) and all(map(_is_polygon, content)):
        encoded = coco_mask.merge(coco_mask.frPyObjects(content, height, width))
    elif isinstance(content, dict) and content.get("size") == [height, width]:
        is_text = isinstance(content.get("counts"), str)
        encoded = content if is_text else coco_mask.frPyObjects(content, height, width)
    else:
        raise InputError(
            f"{file}: a segmentation is neither a list of polygons nor a run-length encoding of "
            f"size [{height}, {width}]"
        )
    return coco_mask.decode(encoded)


def _is_polygon(points: Any) -> bool:
    is_list = isinstance(points, list) and len(points) >= 6 and len(points) % 2 == 0
    return is_list and all(isinstance(value, (int, float)) for value in points)
