"""Ground truth from a COCO annotation file, for images in any folder."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec
import numpy as np

from lib.dataset.coco_json import LAYOUT, Annotation, CocoFile, check_image_ids, complete_boxes
from lib.keypoints.geometry import is_valid_box
from lib.keypoints.skeletons import Skeleton, category_ids
from lib.media.boxes import SuffixMap
from lib.media.video import Frame, Report
from lib.utils.errors import InputError
from lib.utils.reading import read_any_json


class _File(CocoFile):
    annotations: list  # converted one by one, so that invalid entries can be skipped


class _Entry(Annotation):
    id: int = 0


@dataclass
class AnnotatedPerson:
    """Joints and box of a person in an annotation file."""

    annotation_id: int
    category_id: int
    joints: np.ndarray  # (K, 2) pixels
    is_annotated: np.ndarray  # (K,)
    box: np.ndarray  # (4,) x, y, width, height in pixels


class GroundTruth:
    """The people in an annotation file, without crowds.

    If an annotation has a different number of joints than the skeleton, only its box is used.

    Args:
        report: called with a message for invalid annotations, which are skipped.
        categories: names of the categories to use, as in DATASET.CATEGORIES.

    Attributes:
        category_ids: ids of the categories that are used, sorted.

    Raises:
        InputError: the file is missing, not JSON, or has another layout.
    """

    def __init__(
        self, path: str | Path, skeleton: Skeleton, report: Report, categories: Sequence[str] = ()
    ) -> None:
        self.path = path
        try:
            content = msgspec.convert(read_any_json(path, LAYOUT), _File)
        except msgspec.ValidationError as error:
            raise InputError(
                f"{path}: does not have COCO's layout (images, annotations, categories): {error}"
            ) from None
        self.category_ids = category_ids(content.categories, categories, str(path))
        self._ids: SuffixMap[int] = SuffixMap()
        check_image_ids(content.images, str(path))
        for image in content.images:
            self._ids[image.name] = image.id
        self._images = {image.id: image for image in content.images}
        self._people: dict[int, list[AnnotatedPerson]] = defaultdict(list)
        mismatches: list[str] = []
        for index, value in enumerate(content.annotations):
            try:
                self._add(value, len(skeleton), f"annotations[{index}]", mismatches)
            except ValueError as error:
                report(f"{path}: annotations[{index}] is skipped: {error}")
        if mismatches:
            report(
                f"{path}: {len(mismatches)} of {len(content.annotations)} annotations do not match "
                f"the network's {len(skeleton)} joints; their joints are ignored. The first: "
                f"{mismatches[0]}"
            )

    def _add(self, value: object, count: int, name: str, mismatches: list[str]) -> None:
        """Add the person of one annotation, or raise a ValueError if it is invalid.

        If it does not have ``count`` joints, append a message to ``mismatches``, in which ``name``
        denotes the annotation.
        """
        entry = msgspec.convert(value, _Entry)  # msgspec's errors are ValueErrors
        if entry.iscrowd or entry.category_id not in self.category_ids:
            return
        image = self._images.get(entry.image_id)
        complete_boxes([entry], [image] if image else [])
        box = np.array(entry.bbox, np.float64)
        if not is_valid_box(box[None])[0]:
            raise ValueError(f"bbox {list(entry.bbox)} has no area")
        table = np.zeros((count, 3))
        if entry.keypoints and len(entry.keypoints) != 3 * count:
            mismatches.append(
                f"{name} of image {entry.image_id} has {len(entry.keypoints)} keypoint values, "
                f"not {3 * count}"
            )
        elif entry.keypoints:
            table = np.reshape(entry.keypoints, (count, 3)).astype(np.float64)
        if not np.isfinite(table).all():
            raise ValueError("its keypoints contain NaN or Inf")
        person = AnnotatedPerson(entry.id, entry.category_id, table[:, :2], table[:, 2] > 0, box)
        self._people[entry.image_id].append(person)

    def image_id(self, path: str) -> int | None:
        """Return the id of the image at ``path``, found as in ``SuffixMap``, or None."""
        return self._ids.find(path)

    def boxes_of(self, frame: Frame) -> tuple[np.ndarray, None]:
        """Return the boxes (N, 4) of the people of a frame, and None, since they have no scores."""
        boxes = [person.box for person in self.people(frame.image_id)]
        return np.array(boxes).reshape(-1, 4), None

    def people(self, image_id: int) -> list[AnnotatedPerson]:
        """Return the annotated people of an image."""
        return self._people.get(image_id, [])
