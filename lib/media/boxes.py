"""Bounding boxes of people, and JSON files of boxes."""

from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import Any, Generic, TypeVar

import numpy as np

from lib.media.video import Frame, Report
from lib.utils.errors import InputError
from lib.utils.reading import read_any_json

T = TypeVar("T")
LAYOUT = (
    'a list of {"image_id": 1, "bbox": [x, y, width, height], "score": 0.9}; entries may have '
    '"file_name" instead of or in addition to "image_id"'
)


def box_iou(box: np.ndarray, boxes: np.ndarray) -> np.ndarray:
    """Return the IoU (N,) of a box (4,) x, y, width, height with boxes (N, 4)."""
    top_left = np.maximum(box[:2], boxes[:, :2])
    bottom_right = np.minimum(box[:2] + box[2:], boxes[:, :2] + boxes[:, 2:])
    intersection = np.prod(np.maximum(bottom_right - top_left, 0), axis=1)
    return intersection / (box[2] * box[3] + boxes[:, 2] * boxes[:, 3] - intersection)


class SuffixMap(Generic[T]):
    """Map from file names, with or without folders, to values.

    ``find`` looks up a path. It chooses the longest name that the path ends with. If there is none,
    but exactly one name has the same last part as the path, it chooses that name.
    """

    def __init__(self) -> None:
        # The key of the outer dict is the last part of the name.
        self._values: dict[str, dict[PurePosixPath, T]] = defaultdict(dict)

    def __setitem__(self, name: str, value: T) -> None:
        path = PurePosixPath(name)
        self._values[path.name][path] = value

    def setdefault(self, name: str, value: T) -> T:
        """Get or set the value of exactly this name, like ``dict.setdefault``."""
        path = PurePosixPath(name)
        return self._values[path.name].setdefault(path, value)

    def find(self, path: str) -> T | None:
        """Return the value for ``path``, or None."""
        candidates = self._values.get(Path(path).name, {})
        parts = Path(path).parts
        matches = [name for name in candidates if parts[-len(name.parts) :] == name.parts]
        if not matches and len(candidates) == 1:
            matches = list(candidates)
        return candidates[max(matches, key=lambda name: len(name.parts))] if matches else None


class BoxFile:
    """Boxes from a JSON file.

    The file has the layout of COCO's detections, of COCO's annotations, or of results.json of
    tools/demo.py. Boxes are matched to an image by ``file_name`` (and ``frame`` in a video), or
    else by ``image_id``. In annotations, the list ``images`` maps image ids to file names. Boxes of
    crowds are skipped.

    Args:
        report: called with a message for each invalid entry, which is skipped.
        threshold: boxes with a lower ``score`` are skipped.
        categories: boxes with a ``category_id`` that is not in this list are skipped; empty for all
            categories. Boxes without a ``category_id`` are always used.

    Raises:
        InputError: the file is missing, not JSON, or has another layout.
    """

    def __init__(
        self,
        path: str | Path,
        report: Report,
        threshold: float = 0.0,
        categories: Sequence[int] = (),
    ) -> None:
        # The key is the frame number in a video, None for an image.
        self._by_name: dict[int | None, SuffixMap[list]] = defaultdict(SuffixMap)
        self._by_id: dict[int, list] = defaultdict(list)
        content = read_any_json(path, f"boxes: {LAYOUT}")
        files: dict[str, str] = {}
        entries = content
        if isinstance(content, dict):
            images = content.get("images")
            images = [i for i in images if isinstance(i, dict)] if isinstance(images, list) else []
            # The annotations of the ATRW data set have filename instead of file_name.
            files = {str(i.get("id")): i.get("file_name") or i.get("filename") for i in images}
            entries = content.get("annotations")
        if not isinstance(entries, list):
            raise InputError(f"{path}: contains no boxes; the expected layout is {LAYOUT}")
        for index, entry in enumerate(entries):
            try:
                self._add(entry, files, threshold, categories)
            except ValueError as error:
                report(f"{path}: entry {index} is skipped: {error}")

    def _add(
        self, entry: Any, files: dict[str, str], threshold: float, categories: Sequence[int]
    ) -> None:
        box, score = _box(entry)
        image_id, frame, category = map(entry.get, ("image_id", "frame", "category_id"))
        name = entry.get("file_name") or files.get(str(image_id))
        if not isinstance(name, str) and not isinstance(image_id, int):
            raise ValueError("it has neither a file_name nor an integer image_id")
        if frame is not None and not isinstance(frame, int):
            raise ValueError(f"frame must be an integer, not {frame}")
        is_other_category = categories and category is not None and category not in categories
        if is_other_category or score < threshold or entry.get("iscrowd"):
            return
        has_name = isinstance(name, str)
        rows = self._by_name[frame].setdefault(name, []) if has_name else self._by_id[image_id]
        rows.append((*box, score))

    def boxes_of(self, frame: Frame) -> tuple[np.ndarray, np.ndarray]:
        """Return the boxes (N, 4) x, y, width, height and scores (N,) of a frame."""
        by_name = self._by_name[frame.number if frame.rate else None]
        # The name used in results comes first, because it is unique.
        rows = by_name.find(frame.item.name) or by_name.find(frame.item.path)
        rows = rows or self._by_id.get(frame.image_id) or []
        table = np.array(rows, np.float64).reshape(-1, 5)
        return table[:, :4], table[:, 4]


def _box(entry: Any) -> tuple[list[float], float]:
    """Return the box and score of an entry, or raise a ValueError."""
    if not isinstance(entry, dict):
        raise ValueError("it is not an object with a bbox")
    box, score = entry.get("bbox"), entry.get("score", 1.0)
    numbers = [*box, score] if isinstance(box, list) else []
    are_numbers = all(isinstance(v, (int, float)) and not isinstance(v, bool) for v in numbers)
    if len(numbers) != 5 or not are_numbers or not all(abs(v) < 1e6 for v in numbers):
        raise ValueError(
            f"bbox must be four numbers and score one number, all below 1e6; got {box}, {score}"
        )
    if box[2] <= 0 or box[3] <= 0:
        raise ValueError(f"bbox {box} has no area")
    return [float(v) for v in box], float(score)
