"""Ground truth of single pictures, in COCO's layout: any file names, any folder."""

from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import msgspec
import numpy as np

from lib.dataset.boxes import is_box, read_any_json
from lib.dataset.coco_lists import Annotation, Image
from lib.dataset.skeletons import Skeleton
from lib.dataset.video import Report
from lib.utils.errors import InputError


class _Entry(Annotation):
    id: int = 0


@dataclass
class TruePerson:
    """An annotated person: joints (K, 2) pixels, visible (K,) flags of the annotated ones, box (4,)
    x, y, width, height. ``number`` is the annotation's id."""

    number: int
    joints: np.ndarray
    visible: np.ndarray
    box: np.ndarray


class Truth:
    """The people that a file of annotations knows.

    Crowds are left out. Somebody whose joints are not the skeleton's keeps the box, and no joint
    counts as annotated.

    Args:
        report: called with one line for what is left out; the rest is used.

    Raises:
        InputError: the file is missing, no JSON, or of another layout.
    """

    def __init__(self, path: str | Path, skeleton: Skeleton, report: Report) -> None:
        self.path = path
        content = read_any_json(path, "annotations in COCO's layout")
        try:
            lists = [content[name] for name in ("images", "annotations", "categories")]
            images = msgspec.convert(lists[0], list[Image])
            self.category = min(category["id"] for category in lists[2])
        except (KeyError, TypeError, ValueError) as error:
            raise InputError(
                f"{path}: is not in COCO's layout (images, annotations, categories): {error}"
            ) from None
        self._ids: dict[str, list[tuple[PurePosixPath, int]]] = defaultdict(list)
        for image in images:
            name = PurePosixPath(image.file_name or image.filename)
            self._ids[name.name].append((name, image.id))
        self._people: dict[int, list[TruePerson]] = defaultdict(list)
        misfits: list[str] = []
        for number, value in enumerate(lists[1]):
            try:
                self._add(value, len(skeleton), f"annotations[{number}]", misfits)
            except ValueError as error:
                report(f"{path}: annotations[{number}] is left out: {error}")
        if misfits:
            report(
                f"{path}: {len(misfits)} of {len(lists[1])} annotations do not fit the network's "
                f"{len(skeleton)} joints and count in no error: {misfits[0]}"
            )

    def _add(self, value: object, count: int, name: str, misfits: list[str]) -> None:
        entry = msgspec.convert(value, _Entry)  # its error is a ValueError
        if entry.iscrowd or entry.category_id != self.category:
            return
        box = np.array(entry.bbox, np.float64)
        if not is_box(box[None])[0]:
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
        person = TruePerson(entry.id, table[:, :2], table[:, 2] > 0, box)
        self._people[entry.image_id].append(person)

    def image_id(self, path: str) -> int | None:
        """The id of the picture at ``path``: of the file names that its path ends in, the longest;
        None where there is none."""
        parts = Path(path).parts
        fitting = [
            (len(name.parts), number)
            for name, number in self._ids.get(Path(path).name, [])
            if parts[-len(name.parts) :] == name.parts
        ]
        # A file that lies in another folder than the annotations say is still the only one.
        if not fitting and len(known := self._ids.get(Path(path).name, [])) == 1:
            return known[0][1]
        return max(fitting)[1] if fitting else None

    def people(self, image_id: int) -> list[TruePerson]:
        """The annotated people of an image."""
        return self._people.get(image_id, [])
