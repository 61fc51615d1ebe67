"""The two long lists of an annotation file in COCO's layout, as arrays.

``add`` takes what ``lib.utils.reading.read_lists`` hands over: a part of the list at a time.
"""

from collections.abc import Sequence
from pathlib import Path

import msgspec
import numpy as np

from lib.utils.errors import InputError


class Image(msgspec.Struct, gc=False):
    id: int
    width: int
    height: int
    file_name: str = ""
    filename: str = ""  # as the ATRW annotations spell it
    crowdIndex: float | None = None  # CrowdPose's


class Annotation(msgspec.Struct, gc=False):
    image_id: int
    category_id: int
    bbox: tuple[float, float, float, float]
    area: float | None = None  # some sets give none
    keypoints: list[float] = []
    iscrowd: int = 0
    num_keypoints: float | None = None


def wrong_keypoints(annotation: Annotation, number: int, numbers: int) -> str:
    """The error of annotation ``number``, whose keypoints are not ``numbers`` numbers."""
    return (
        f"annotations[{number}] of image {annotation.image_id} has {len(annotation.keypoints)} "
        f"keypoint numbers; {numbers // 3} joints need {numbers}"
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


class PeopleArrays:
    """The annotations of a file as arrays, in the file's order, crowds left out.

    Args:
        numbers: how many numbers the keypoints of one person are.
    """

    def __init__(self, numbers: int) -> None:
        self.count = 0
        self.misfits: dict[int, str] = {}  # category -> its first entry with other keypoints
        self._numbers = numbers
        self._parts: list[tuple[np.ndarray, ...]] = []
        self._keypoints: list[np.ndarray] = []

    def add(self, start: int, annotations: list[Annotation]) -> None:
        """Some annotations, ``start`` being the number of the first."""
        self.count += len(annotations)
        people = []
        for number, a in enumerate(annotations, start):
            if a.iscrowd:
                continue
            if len(a.keypoints) == self._numbers:
                people.append(a)
            else:
                self.misfits.setdefault(a.category_id, wrong_keypoints(a, number, self._numbers))
        has_joints = [any(a.keypoints) for a in people]
        # Two in five of COCO's people have none: their zeros would take memory and time.
        keypoints = [a.keypoints for a, has in zip(people, has_joints, strict=True) if has]
        shape = (-1, self._numbers // 3, 3)
        self._keypoints.append(np.array(keypoints, np.float32).reshape(shape))
        self._parts.append(
            (
                np.array([a.category_id for a in people], np.int64),
                np.array([a.image_id for a in people], np.int64),
                np.array([a.bbox for a in people], np.float32).reshape(-1, 4),
                np.array([1.0 if a.area is None else a.area for a in people], np.float32),
                np.array(has_joints, bool),
            )
        )

    def count_all(self, start: int, annotations: list) -> None:
        """Only count, whatever the annotations are."""
        self.count += len(annotations)

    def of(self, categories: Sequence[int]) -> tuple[np.ndarray, ...]:
        """Categories (N,), image ids (N,), boxes (N, 4), areas (N,) and flags of those that have
        joints (N,) of the people of ``categories``, and the keypoints (M, K, 3) of the flagged.
        Empties the parts, for the memory."""
        keypoints = np.concatenate(self._keypoints)
        self._keypoints.clear()
        arrays = [np.concatenate(a) for a in zip(*self._parts, strict=True)]
        self._parts.clear()
        is_wanted = np.isin(arrays[0], categories)
        keypoints = keypoints[is_wanted[arrays[-1]]] if not is_wanted.all() else keypoints
        return *(array[is_wanted] for array in arrays), keypoints


class ImageArrays:
    """The images of an annotation file as arrays, in the file's order: ``ids`` (M,), ``width``
    (M,), ``height`` (M,) and ``paths`` (M,) of bytes, once all were added and it was closed.

    Args:
        folder: of the images.
        data_format: ``jpg``, ``png`` or ``zip``.
        source: the annotation file, for errors.
    """

    def __init__(self, folder: str, data_format: str, source: str) -> None:
        self._folder = folder
        self._data_format = data_format
        self._source = source
        self._parts: list[tuple[np.ndarray, ...]] = []

    def add(self, start: int, images: list[Image]) -> None:
        """Some images, ``start`` being the number of the first."""
        names = [i.file_name or i.filename for i in images]
        if not all(names):
            number = start + names.index("")
            raise InputError(f"{self._source}: images[{number}] has no file_name")
        if self._data_format == "png":
            names = [str(Path(name).with_suffix(".png")) for name in names]
        self._parts.append(
            (
                np.array([i.id for i in images], np.int64),
                np.array([i.width for i in images], np.int32),
                np.array([i.height for i in images], np.int32),
                np.array([f"{self._folder}/{name}".encode() for name in names]),
            )
        )

    def close(self) -> None:
        """All were added."""
        if not self._parts:
            self.add(0, [])
        arrays = [np.concatenate(part) for part in zip(*self._parts, strict=True)]
        self.ids, self.width, self.height, self.paths = arrays
        check_image_ids(self.ids, self.paths, self._source)
        self._order = np.argsort(self.ids, kind="stable")

    def rows(self, image_ids: np.ndarray, source: str) -> np.ndarray:
        """(N,) int32 rows of images by their ids; an id that is not listed is an InputError naming
        ``source``."""
        at = np.searchsorted(self.ids, image_ids, sorter=self._order)
        rows = self._order[np.minimum(at, len(self.ids) - 1)]
        unknown = image_ids[self.ids[rows] != image_ids]
        if len(unknown):
            raise InputError(
                f"{source}: image {unknown[0]} ({len(unknown)} entries in all) is not in the list "
                "of images"
            )
        return rows.astype(np.int32)
