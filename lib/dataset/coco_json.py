"""Annotation files in COCO's layout: their entries, and the images and people as arrays."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, NamedTuple, TypeVar

import msgspec
import numpy as np

from lib.keypoints.skeletons import Category
from lib.utils.errors import InputError
from lib.utils.reading import read_json

T = TypeVar("T")
LAYOUT = "annotations in COCO's layout"
# Bounds of the arrays, so that a number beyond them is an error that names its entry.
_Int32 = Annotated[int, msgspec.Meta(ge=-(2**31), le=2**31 - 1)]
_Int64 = Annotated[int, msgspec.Meta(ge=-(2**63), le=2**63 - 1)]


class Image(msgspec.Struct, gc=False):
    """An entry of the list ``images``."""

    id: _Int64
    width: _Int32
    height: _Int32
    file_name: str = ""
    filename: str = ""  # as the ATRW annotations spell it
    crowdIndex: float | None = None  # CrowdPose's


class Annotation(msgspec.Struct, gc=False):
    """An entry of the list ``annotations``. Scores and training need no ``id``."""

    image_id: _Int64
    category_id: _Int64
    bbox: tuple[float, float, float, float]
    id: Any = None
    area: float | None = None  # some sets give none
    keypoints: list[float] = []
    iscrowd: int = 0
    num_keypoints: float | None = None


class CocoFile(msgspec.Struct):
    """An annotation file."""

    images: list[Image]
    categories: list[Category]
    annotations: list[Annotation] = []


class UnreadCocoFile(CocoFile):
    """An annotation file whose annotations are only counted, whatever they are."""

    annotations: list[msgspec.Raw] = []


def read_coco(path: str | Path, kind: type[T] = CocoFile) -> T:
    """The annotation file ``path`` as ``kind``; an InputError as ``read_json`` raises."""
    return read_json(path, kind, LAYOUT)


def wrong_keypoints(annotation: Annotation, number: int, joints: int) -> str:
    """The error text for annotation ``number``, whose keypoints are not those of ``joints``
    joints."""
    return (
        f"annotations[{number}] of image {annotation.image_id} has {len(annotation.keypoints)} "
        f"keypoint numbers; {joints} joints need {3 * joints}"
    )


def check_image_ids(ids: np.ndarray, names: np.ndarray, source: str) -> None:
    """Raise an InputError where two entries of a list of images share an id, but not the file.

    Annotations refer to images by their ids: they would all be taken for one image's.

    Args:
        ids, names: (M,) ids and file names of the images.
        source: the annotation file.
    """
    order = np.argsort(ids, kind="stable")
    ids, names = ids[order], names[order]
    is_shared = (ids[1:] == ids[:-1]) & (names[1:] != names[:-1])
    if is_shared.any():
        at = int(np.argmax(is_shared))
        raise InputError(
            f"{source}: images[{order[at]}] and images[{order[at + 1]}] have the same id "
            f"{ids[at]} but different files; give each image, and its annotations, an id of its own"
        )


@dataclass
class ImageArrays:
    """The M images of a file, in its order: ``ids``, ``width`` and ``height``, and ``paths`` of
    bytes, all (M,)."""

    ids: np.ndarray
    width: np.ndarray
    height: np.ndarray
    paths: np.ndarray

    def rows(self, image_ids: np.ndarray, source: str) -> np.ndarray:
        """(N,) int32 rows of images by their ids; an id that is not listed is an InputError naming
        ``source``."""
        order = np.argsort(self.ids, kind="stable")
        at = np.searchsorted(self.ids, image_ids, sorter=order)
        rows = order[np.minimum(at, len(self.ids) - 1)]
        unknown = image_ids[self.ids[rows] != image_ids]
        if len(unknown):
            raise InputError(
                f"{source}: image {unknown[0]} ({len(unknown)} entries in all) is not in the list "
                "of images"
            )
        return rows.astype(np.int32)


def image_arrays(
    images: Sequence[Image], folder: str, data_format: str, source: str
) -> ImageArrays:
    """The images of the annotation file ``source``, which lie in ``folder``, as arrays.

    Args:
        data_format: ``jpg``, ``png`` or ``zip``.

    Raises:
        InputError: an image without a name, or an id that two files share.
    """
    names = [image.file_name or image.filename for image in images]
    if not all(names):
        raise InputError(f"{source}: images[{names.index('')}] has no file_name")
    if data_format == "png":
        names = [str(Path(name).with_suffix(".png")) for name in names]
    arrays = ImageArrays(
        ids=np.array([image.id for image in images], np.int64),
        width=np.array([image.width for image in images], np.int32),
        height=np.array([image.height for image in images], np.int32),
        paths=np.array([f"{folder}/{name}".encode() for name in names]),
    )
    check_image_ids(arrays.ids, arrays.paths, source)
    return arrays


class PeopleArrays(NamedTuple):
    """N people: category (N,), image_id (N,), box (N, 4) x, y, width, height, area (N,) and
    keypoints (N, K, 3) x, y, visibility."""

    category: np.ndarray
    image_id: np.ndarray
    box: np.ndarray
    area: np.ndarray
    keypoints: np.ndarray


def people_arrays(
    annotations: Sequence[Annotation], categories: Sequence[int], joints: int, source: str
) -> PeopleArrays:
    """The people of ``categories`` as arrays, in the order of the annotations, crowds left out.

    Raises:
        InputError: somebody of the annotation file ``source`` has keypoints of another number of
            ``joints``.
    """
    people = []
    for number, annotation in enumerate(annotations):
        if annotation.iscrowd or annotation.category_id not in categories:
            continue
        if len(annotation.keypoints) != 3 * joints:
            raise InputError(f"{source}: {wrong_keypoints(annotation, number, joints)}")
        people.append(annotation)
    return PeopleArrays(
        category=np.array([a.category_id for a in people], np.int64),
        image_id=np.array([a.image_id for a in people], np.int64),
        box=np.array([a.bbox for a in people], np.float32).reshape(-1, 4),
        area=np.array([1.0 if a.area is None else a.area for a in people], np.float32),
        keypoints=np.array([a.keypoints for a in people], np.float32).reshape(-1, joints, 3),
    )
