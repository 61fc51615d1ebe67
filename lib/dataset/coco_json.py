"""COCO annotation files: their entries, and conversion to arrays."""

import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import msgspec
import numpy as np

from lib.dataset.image import image_paths
from lib.keypoints.geometry import is_valid_box
from lib.keypoints.skeletons import Category
from lib.utils.errors import InputError
from lib.utils.logs import counted_people

logger = logging.getLogger(__name__)

LAYOUT = "COCO annotations"  # description of the format in error messages
# Margin of ``box_of_joints`` around the joints, as a fraction of the longer side of their extent.
BOX_MARGIN = 0.1
_NO_BOX = (0.0, 0.0, 0.0, 0.0)
# Integers outside the range of the array dtypes are rejected on reading, so that the error message
# names the entry.
_Int32 = Annotated[int, msgspec.Meta(ge=-(2**31), le=2**31 - 1)]
Int64 = Annotated[int, msgspec.Meta(ge=-(2**63), le=2**63 - 1)]
# Pixels, square pixels or scores; larger values are errors in the file.
Number = Annotated[float, msgspec.Meta(ge=-1e9, le=1e9)]
Box = tuple[Number, Number, Number, Number]


class Image(msgspec.Struct, gc=False):
    """An entry of ``images``."""

    id: Int64
    width: _Int32
    height: _Int32
    file_name: str = ""
    filename: str = ""  # the spelling in the ATRW annotations
    crowdIndex: float | None = None  # CrowdPose only

    @property
    def name(self) -> str:
        """The file name, in either spelling; '' if there is none."""
        return self.file_name or self.filename


class Annotation(msgspec.Struct, gc=False):
    """An entry of ``annotations``. Its ``id`` is not used for training or evaluation.

    A missing or null ``bbox`` is read as a box without area (see ``complete_boxes``).
    """

    image_id: Int64
    category_id: Int64
    bbox: Box | None = _NO_BOX
    id: Any = None
    area: Number | None = None  # missing in some data sets
    keypoints: list[Number] = []  # some tools leave it out if no joint is labelled
    iscrowd: int | bool = 0  # true or false in COCO Annotator's files
    num_keypoints: float | None = None

    def __post_init__(self) -> None:
        if self.bbox is None:
            self.bbox = _NO_BOX

    @property
    def has_box(self) -> bool:
        """True if the box has an area."""
        return self.bbox[2] > 0 and self.bbox[3] > 0

    @property
    def is_unflagged(self) -> bool:
        """True if there are coordinates, but visibility flag 0 for every joint.

        Some tools write -1 for all three values of a joint that is not labelled.
        """
        *coords, flags = (self.keypoints[i::3] for i in range(3))
        return max(flags, default=0) <= 0 and any(max(values, default=0) > 0 for values in coords)


class CocoFile(msgspec.Struct):
    """An annotation file."""

    images: list[Image]
    categories: list[Category]
    annotations: list[Annotation] = []


class CocoFileWithRawAnnotations(CocoFile):
    """An annotation file whose annotations are not decoded, only counted."""

    annotations: list[msgspec.Raw] = []


def check_keypoint_count(annotation: Annotation, number: int, num_joints: int, file: str) -> None:
    """Raise an InputError if annotation ``number`` of ``file`` has a wrong number of values.

    No values at all are allowed: no joint is labelled.
    """
    if annotation.keypoints and len(annotation.keypoints) != 3 * num_joints:
        raise InputError(
            f"{file}: annotations[{number}] of image {annotation.image_id} has "
            f"{len(annotation.keypoints)} keypoint values; {num_joints} joints need "
            f"{3 * num_joints}"
        )


def check_image_ids(images: Sequence[Image], file: str) -> None:
    """Raise an InputError if two images have the same id but different files.

    Annotations refer to images by id, so such images could not be told apart.
    """
    first: dict[int, int] = {}
    for number, image in enumerate(images):
        other = first.setdefault(image.id, number)
        if images[other].name != image.name:
            raise InputError(
                f"{file}: images[{other}] and images[{number}] have the same id {image.id} but "
                "different files; give each image a unique id"
            )


@dataclass
class ImageArrays:
    """The M images of an annotation file, in file order, as arrays (M,); ``paths`` are bytes."""

    ids: np.ndarray
    width: np.ndarray
    height: np.ndarray
    paths: np.ndarray

    def rows(self, entries: Sequence[Any], file: str) -> np.ndarray:
        """Return the row of each entry's image, (N,) int32.

        Args:
            entries: N annotations or detections.
            file: file of the entries, for error messages.

        Raises:
            InputError: if an ``image_id`` is unknown.
        """
        image_ids = np.array([entry.image_id for entry in entries], np.int64)
        order = np.argsort(self.ids, kind="stable")
        positions = np.searchsorted(self.ids, image_ids, sorter=order)
        rows = order[np.minimum(positions, len(self.ids) - 1)]
        unknown = image_ids[self.ids[rows] != image_ids]
        if len(unknown):
            raise InputError(
                f"{file}: image id {unknown[0]} is not listed in the annotation file's `images` "
                f"({len(unknown)} entries affected)"
            )
        return rows.astype(np.int32)


def image_arrays(images: Sequence[Image], folder: str, data_format: str, file: str) -> ImageArrays:
    """Convert the images of an annotation file to arrays.

    Args:
        folder: folder of the image files.
        data_format: ``jpg``, ``png`` or ``zip``.
        file: annotation file, for error messages.

    Raises:
        InputError: if an image has no file name, or two files share an id.
    """
    names = [image.name for image in images]
    if not all(names):
        raise InputError(f"{file}: images[{names.index('')}] has no file_name")
    check_image_ids(images, file)
    return ImageArrays(
        ids=np.array([image.id for image in images], np.int64),
        width=np.array([image.width for image in images], np.int32),
        height=np.array([image.height for image in images], np.int32),
        paths=image_paths(folder, names, data_format),
    )


def people_of(
    annotations: Sequence[Annotation], categories: Sequence[int], num_joints: int, file: str
) -> list[Annotation]:
    """Return the annotations of ``categories``, in file order, without crowds.

    Raises:
        InputError: if one of them has keypoints, but not ``num_joints``; the message names
            ``file``.
    """
    people = []
    for number, annotation in enumerate(annotations):
        if annotation.category_id in categories and not annotation.iscrowd:
            check_keypoint_count(annotation, number, num_joints, file)
            people.append(annotation)
    return people


def people_arrays(people: Sequence[Annotation], num_joints: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the boxes (N, 4) and keypoints (N, K, 3) of N annotations, float32."""
    boxes = np.array([person.bbox for person in people], np.float32).reshape(-1, 4)
    unlabelled = [0.0] * (3 * num_joints)
    keypoints = np.array([person.keypoints or unlabelled for person in people], np.float32)
    return boxes, keypoints.reshape(-1, num_joints, 3)


def usable_people(
    boxes: np.ndarray, keypoints: np.ndarray, width: np.ndarray, height: np.ndarray, file: str
) -> tuple[np.ndarray, np.ndarray]:
    """Clip the boxes of N people, and find the people that can be used; log how many are skipped.

    Boxes are clipped as in the published code. First, a box that begins left of or above the image
    is moved to the image's edge. Then its right and bottom edges are cut. The last pixel of a box
    is at x + width - 1, and the clipped width is the distance from the first pixel to the last, so
    it is smaller by one even if nothing is cut.

    The published code selects people differently. It uses people who have coordinates but flag 0
    for every joint, and boxes without area. It skips annotations with an area of 0, which
    ``complete_boxes`` fills in here.

    Args:
        boxes: (N, 4).
        keypoints: (N, K, 3).
        width, height: (N,), of each person's image.
        file: annotation file, for messages.

    Returns:
        The clipped boxes (N, 4), and a mask (N,), True for people with a labelled joint and a box
        in the image.

    Raises:
        InputError: if nobody can be used.
    """
    low = np.maximum(boxes[:, :2], 0)
    last = np.stack([width, height], 1) - 1
    high = np.minimum(last, low + np.maximum(boxes[:, 2:] - 1, 0))
    is_labelled = labelled_people(keypoints, file)
    is_usable = (high >= low).all(1) & (boxes[:, 2:] > 0).all(1) & is_labelled
    skipped = (~is_labelled).sum(), (is_labelled & ~is_usable).sum()
    text = (
        "=> %s: %s; skipped %d without labelled joints and %d with no box or a box outside the "
        "image"
    )
    logger.info(text, file, counted_people(is_usable.sum()), *skipped)
    if not is_usable.any():
        raise InputError(f"{file}: no person has a labelled joint and a valid box")
    return np.concatenate([low, high - low], 1), is_usable


def labelled_people(keypoints: np.ndarray, file: str) -> np.ndarray:
    """Return a mask (N,), True for people with a labelled joint; keypoints are (N, K, 3).

    Warn about people with coordinates whose flags are all 0, a common mistake of conversion
    scripts.

    Raises:
        InputError: if nobody has a labelled joint; the message names ``file``.
    """
    is_labelled = (keypoints[..., 2] > 0).any(1)
    unflagged = np.count_nonzero(~is_labelled & (keypoints[..., :2] > 0).any((1, 2)))
    text = (
        f"{unflagged} people have coordinates, but visibility flag 0 for every joint; the flag of "
        "a labelled joint must be 1 (occluded) or 2 (visible)"
    )
    if not is_labelled.any():
        reason = f": {text}" if unflagged else ""
        raise InputError(f"{file}: no person has a labelled joint{reason}")
    if unflagged:
        logger.warning("%s: %s", file, text)
    return is_labelled


def complete_boxes(annotations: Iterable[Annotation], images: Sequence[Image]) -> tuple[int, int]:
    """Fill in missing boxes and areas, in place. The published code does not do this.

    A box without area is replaced by the box around the labelled joints (``box_of_joints``), except
    for crowds. An area that is missing, 0 or negative is replaced by the area of the box.

    Returns:
        The number of boxes and the number of areas that were filled in.
    """
    sizes: dict[int, tuple[int, int]] = {}
    boxes = areas = 0
    for annotation in annotations:
        if not annotation.has_box and not annotation.iscrowd:
            sizes = sizes or {image.id: (image.width, image.height) for image in images}
            size = sizes.get(annotation.image_id)
            if size and (box := box_of_joints(annotation.keypoints, *size)):
                annotation.bbox = box
                boxes += 1
        if not annotation.area or annotation.area < 0:
            annotation.area = max(annotation.bbox[2], 0) * max(annotation.bbox[3], 0)
            areas += 1
    return boxes, areas


def box_of_joints(
    keypoints: Sequence[float], width: int, height: int
) -> tuple[float, float, float, float] | None:
    """Return the box around the labelled joints plus ``BOX_MARGIN``, clipped to the image.

    Args:
        keypoints: x, y and visibility flag of each joint.
        width, height: of the image in pixels.

    Returns:
        x, y, width, height; None if fewer than two joints are labelled, or if the box has no area.
    """
    if len(keypoints) % 3:  # reported by check_keypoint_count
        return None
    joints = np.reshape(keypoints, (-1, 3))
    labelled = joints[joints[:, 2] > 0, :2]
    if len(labelled) < 2:
        return None
    margin = BOX_MARGIN * np.ptp(labelled, axis=0).max()
    low = np.maximum(labelled.min(0) - margin, 0)
    size = np.minimum(labelled.max(0) + margin, (width, height)) - low
    return (*low.tolist(), *size.tolist()) if (size > 0).all() else None


def overlaps_image(boxes: np.ndarray, width: np.ndarray, height: np.ndarray) -> np.ndarray:
    """Return a mask (N,), True for boxes (N, 4) that have an area and overlap their image."""
    overlaps = (boxes[:, :2] + boxes[:, 2:] > 0).all(1)
    overlaps &= (boxes[:, 0] < width) & (boxes[:, 1] < height)
    return overlaps & is_valid_box(boxes)
