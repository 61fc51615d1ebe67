"""Ground truth of single pictures, in COCO's layout: any file names, any folder."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec
import numpy as np

from lib.dataset.coco_json import LAYOUT, Annotation, CocoFile, check_image_ids
from lib.keypoints.geometry import is_valid_box
from lib.keypoints.skeletons import Skeleton, chosen_categories
from lib.media.boxes import PathEnds
from lib.media.video import Report
from lib.utils.errors import InputError
from lib.utils.reading import read_any_json


class _File(CocoFile):
    annotations: list  # converted one by one: a bad entry is left out


class _Entry(Annotation):
    id: int = 0


@dataclass
class AnnotatedPerson:
    """An annotated person: joints (K, 2) pixels, visible (K,) flags of the annotated ones, box (4,)
    x, y, width, height. ``number`` and ``category`` are ids."""

    number: int
    category: int
    joints: np.ndarray
    visible: np.ndarray
    box: np.ndarray


class GroundTruth:
    """The people that a file of annotations knows.

    Crowds are left out. Somebody whose joints are not the skeleton's keeps the box, and no joint
    counts as annotated.

    Args:
        report: called with one line for what is left out; the rest is used.
        categories: names of those that count, as in DATASET.CATEGORIES.

    Raises:
        InputError: the file is missing, no JSON, or of another layout.
    """

    def __init__(
        self,
        path: str | Path,
        skeleton: Skeleton,
        report: Report,
        categories: Sequence[str] = (),
    ) -> None:
        self.path = path
        try:
            content = msgspec.convert(read_any_json(path, LAYOUT), _File)
        except msgspec.ValidationError as error:
            raise InputError(
                f"{path}: is not in COCO's layout (images, annotations, categories): {error}"
            ) from None
        self.categories = chosen_categories(content.categories, categories, str(path))
        self._ids: PathEnds[int] = PathEnds()
        names = [image.file_name or image.filename for image in content.images]
        ids = [image.id for image in content.images]
        check_image_ids(np.array(ids), np.array(names), str(path))
        for name, image_id in zip(names, ids, strict=True):
            self._ids[name] = image_id
        self._people: dict[int, list[AnnotatedPerson]] = defaultdict(list)
        misfits: list[str] = []
        for number, value in enumerate(content.annotations):
            try:
                self._add(value, len(skeleton), f"annotations[{number}]", misfits)
            except ValueError as error:
                report(f"{path}: annotations[{number}] is left out: {error}")
        if misfits:
            report(
                f"{path}: {len(misfits)} of {len(content.annotations)} annotations do not fit the "
                f"network's {len(skeleton)} joints and count in no error: {misfits[0]}"
            )

    def _add(self, value: object, count: int, name: str, misfits: list[str]) -> None:
        entry = msgspec.convert(value, _Entry)  # its error is a ValueError
        if entry.iscrowd or entry.category_id not in self.categories:
            return
        box = np.array(entry.bbox, np.float64)
        if not is_valid_box(box[None])[0]:
            raise ValueError(f"bbox {list(entry.bbox)} is no box with an area")
        table = np.zeros((count, 3))
        if entry.keypoints and len(entry.keypoints) != 3 * count:
            misfits.append(
                f"{name} of image {entry.image_id} has {len(entry.keypoints)} keypoint numbers, "
                f"not {3 * count}"
            )
        elif entry.keypoints:
            table = np.reshape(entry.keypoints, (count, 3)).astype(np.float64)
        if not np.isfinite(table).all():
            raise ValueError("its keypoints are not finite numbers")
        person = AnnotatedPerson(entry.id, entry.category_id, table[:, :2], table[:, 2] > 0, box)
        self._people[entry.image_id].append(person)

    def image_id(self, path: str) -> int | None:
        """The id of the picture at ``path``: of the file names that its path ends in, the longest;
        None where there is none."""
        return self._ids.find(path)

    def people(self, image_id: int) -> list[AnnotatedPerson]:
        """The annotated people of an image."""
        return self._people.get(image_id, [])
