"""Boxes of people that were found: what is one, and a JSON of them, picture by picture."""

from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import Any, Generic, TypeVar

import numpy as np

from lib.keypoints.geometry import is_valid_box
from lib.media.video import Frame, Report
from lib.utils.errors import InputError
from lib.utils.reading import read_any_json

T = TypeVar("T")
LAYOUT = (
    'a list of {"image_id": 1, "bbox": [x, y, width, height], "score": 0.9}, with "file_name" in '
    "place of image_id or beside it"
)


def inside(
    corners: np.ndarray, scores: np.ndarray, image: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Boxes (N, 4) x, y, width, height and scores (N,) of what lies inside an image, best first,
    from corners (N, 4) x1, y1, x2, y2."""
    limits = np.array([*image.shape[1::-1], *image.shape[1::-1]], np.float64)
    corners = np.clip(np.asarray(corners, np.float64), 0, limits)
    boxes = np.concatenate([corners[:, :2], corners[:, 2:] - corners[:, :2]], axis=1)
    rows = np.argsort(-scores, kind="stable")
    rows = rows[is_valid_box(boxes[rows])]
    return boxes[rows], np.asarray(scores, np.float64)[rows]


def box_iou(box: np.ndarray, boxes: np.ndarray) -> np.ndarray:
    """(N,) intersection over union of a box (4,) x, y, width, height with boxes (N, 4)."""
    first = np.maximum(box[:2], boxes[:, :2])
    last = np.minimum(box[:2] + box[2:], boxes[:, :2] + boxes[:, 2:])
    shared = np.prod(np.maximum(last - first, 0), axis=1)
    return shared / (box[2] * box[3] + boxes[:, 2] * boxes[:, 3] - shared)


class PathEnds(Generic[T]):
    """Values by file names, which may have folders before them."""

    def __init__(self) -> None:
        self._known: dict[str, dict[PurePosixPath, T]] = defaultdict(dict)

    def __setitem__(self, name: str, value: T) -> None:
        path = PurePosixPath(name)
        self._known[path.name][path] = value

    def setdefault(self, name: str, value: T) -> T:
        """The value under just that name, ``value`` if there was none."""
        path = PurePosixPath(name)
        return self._known[path.name].setdefault(path, value)

    def find(self, path: str) -> T | None:
        """The value of the longest name that ``path`` ends in; None where there is none."""
        known = self._known.get(Path(path).name, {})
        parts = Path(path).parts
        fitting = [name for name in known if parts[-len(name.parts) :] == name.parts]
        # A file that lies in another folder than its name says is still the only one.
        if not fitting and len(known) == 1:
            fitting = list(known)
        return known[max(fitting, key=lambda name: len(name.parts))] if fitting else None


class BoxFile:
    """The boxes in a JSON file, in the layout of COCO's detections, of its annotations, or of the
    results that tools/demo.py writes.

    A picture's boxes are those with its ``file_name`` (and ``frame`` in a video), else those with
    its ``image_id``. The file's own list of images, where it has one, says which id is which file.

    Args:
        report: called with one line for each entry that is no box; the rest is used.
        threshold: boxes with a lower ``score`` are left out.
        categories: boxes of another ``category_id`` are left out; empty keeps all.

    Raises:
        InputError: the file is missing, no JSON, or of another layout.
    """

    def __init__(
        self,
        path: str | Path,
        report: Report,
        threshold: float = 0.0,
        categories: Sequence[int] = (),
    ) -> None:
        self._categories = categories
        # By the number of the frame, None for a picture.
        self._by_name: dict[int | None, PathEnds[list]] = defaultdict(PathEnds)
        self._by_id: dict[int, list] = defaultdict(list)
        content = read_any_json(path, f"boxes are {LAYOUT}")
        files: dict[str, str] = {}
        entries = content
        if isinstance(content, dict):
            images = content.get("images")
            images = [i for i in images if isinstance(i, dict)] if isinstance(images, list) else []
            # ATRW's annotations spell it filename.
            files = {str(i.get("id")): i.get("file_name") or i.get("filename") for i in images}
            entries = content.get("annotations")
        if not isinstance(entries, list):
            raise InputError(f"{path}: holds no boxes; they are {LAYOUT}")
        for number, entry in enumerate(entries):
            try:
                box, score = _box(entry)
                name = entry.get("file_name") or files.get(str(entry.get("image_id")))
                self._add(entry, name, (*box, score), threshold)
            except ValueError as error:
                report(f"{path}: entry {number} is left out: {error}")

    def _add(self, entry: dict, name: str | None, row: tuple, threshold: float) -> None:
        if not isinstance(name, str) and not isinstance(entry.get("image_id"), int):
            raise ValueError("it has neither a file_name nor a number as image_id")
        frame, category = entry.get("frame"), entry.get("category_id")
        if frame is not None and not isinstance(frame, int):
            raise ValueError(f"frame {frame}: must be a number")
        if row[4] < threshold or entry.get("iscrowd"):
            return
        if self._categories and category is not None and category not in self._categories:
            return
        if isinstance(name, str):
            self._by_name[frame].setdefault(name, []).append(row)
        else:
            self._by_id[entry["image_id"]].append(row)

    def of(self, frame: Frame) -> tuple[np.ndarray, np.ndarray]:
        """The boxes (N, 4) x, y, width, height and scores (N,) of a frame."""
        number = frame.number if frame.rate else None
        named = self._by_name[number]
        # The name that results have first: it tells files of one name apart.
        rows = named.find(frame.item.name) or named.find(frame.item.path)
        rows = rows or self._by_id.get(frame.image_id) or []
        table = np.array(rows, np.float64).reshape(-1, 5)
        return table[:, :4], table[:, 4]


def _box(entry: Any) -> tuple[list[float], float]:
    """The box and score of an entry; a ValueError says what is wrong with it."""
    if not isinstance(entry, dict):
        raise ValueError("it is no object with a bbox")
    box, score = entry.get("bbox"), entry.get("score", 1.0)
    numbers = [*box, score] if isinstance(box, list) else []
    are_numbers = all(isinstance(v, (int, float)) and not isinstance(v, bool) for v in numbers)
    if len(numbers) != 5 or not are_numbers or not all(abs(v) < 1e6 for v in numbers):
        raise ValueError(f"bbox {box}, score {score}: must be four finite numbers and one")
    if box[2] <= 0 or box[3] <= 0:
        raise ValueError(f"bbox {box} has no area")
    return [float(v) for v in box], float(score)
