"""Keypoint results in COCO's format, and the images and videos that they belong to."""

from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from lib.config import skeleton_of
from lib.config.default import default_config
from lib.config.joints import resolve_joints
from lib.dataset.coco_json import LAYOUT, CocoFileWithRawAnnotations
from lib.keypoints.poses import Poses
from lib.keypoints.skeletons import SKELETONS, Category, Skeleton, categories_with_joints
from lib.media.video import IMAGE, Frame, Item, Report, kind_of, unique_name
from lib.utils.errors import InputError
from lib.utils.reading import read_any_json, read_json

RESULTS = (
    'keypoint results, a list of {"image_id": 1, "keypoints": [x, y, score, ...], "score": 0.9}; '
    'entries may have "file_name", "frame", "track_id" and "bbox"'
)


class _Entry(msgspec.Struct):
    keypoints: list[float]
    image_id: int | None = None
    score: float = 1.0
    bbox: tuple[float, float, float, float] | None = None
    file_name: str = ""
    frame: int | None = None
    track_id: int | None = None


class KeypointResults:
    """People from a JSON file of keypoint results.

    Args:
        annotations: COCO annotation file with the file names of the images and the names of the
            joints; '' for none.
        report: called with a message for invalid entries, which are skipped.
        threshold: people with a lower ``score`` are left out.

    Attributes:
        skeleton: skeleton of the annotations' category. If the annotations name no joints or are
            not given, the built-in skeleton with the same number of joints.
        has_file_names: True if any entry has a ``file_name``.
        below_threshold: number of people left out because of their score.

    Raises:
        InputError: a file is missing or has another layout, or the joints are not known.
    """

    def __init__(
        self, path: str | Path, annotations: str, report: Report, threshold: float = 0.0
    ) -> None:
        content = read_any_json(path, RESULTS)
        if not isinstance(content, list):
            raise InputError(f"{path}: must contain {RESULTS}")
        coco = read_json(annotations, CocoFileWithRawAnnotations, LAYOUT) if annotations else None
        names = {image.id: image.name for image in coco.images} if coco else {}
        # By file name, and then by frame number, which is None for an image.
        self._people: dict[str, dict] = defaultdict(lambda: defaultdict(list))
        self._names: dict[Item, str] = {}
        self.has_file_names = False
        self.below_threshold = joints = 0
        problems = []
        for index, value in enumerate(content):
            try:
                entry = _read_entry(value, joints)
            except ValueError as error:
                problems.append(f"entry {index}: {error}")
                continue
            joints = len(entry.keypoints) // 3
            name = entry.file_name or names.get(entry.image_id) or f"{entry.image_id:012d}.jpg"
            self.has_file_names |= bool(entry.file_name)
            # An empty list is kept, because images are drawn even if all their people are left out.
            people = self._people[name][entry.frame]
            if entry.score < threshold:
                self.below_threshold += 1
            else:
                people.append(entry)
        if not joints:
            reason = problems[0] if problems else f"expected {RESULTS}"
            raise InputError(f"{path}: contains no valid entry; {reason}")
        if problems:
            count = f"{len(problems)} of {len(content)} entries"
            report(f"{path}: skipped {count}. The first: {problems[0]}")
        self.skeleton = _skeleton(joints, annotations, coco.categories if coco else [], str(path))

    def items(self, folder: str | Path, report: Report) -> list[Item]:
        """Return the images and videos of the results that exist, and report the others.

        Each file is looked up in ``folder`` by its name in the results, or else by the last part of
        that name.
        """
        items, missing, taken = [], [], set()
        for name in self._people:
            paths = [Path(folder) / name, Path(folder) / Path(name).name]
            path = next((path for path in paths if path.is_file()), None)
            if path is None:
                missing.append(name)
                continue
            item = Item(str(path), unique_name(path.name, taken), kind_of(path) or IMAGE)
            self._names[item] = name
            items.append(item)
        if missing:
            report(
                f"{folder}: {len(missing)} of the {len(self._people)} files named in the results "
                f"do not exist, such as {missing[0]}"
            )
        return items

    def people_of(self, frame: Frame) -> tuple[Poses, list[int]]:
        """Return the people of a frame, and their track ids if all of them have one, else []."""
        frames = self._people[self._names[frame.item]]
        entries = frames.get(frame.number if frame.rate else None)
        if not entries:
            return Poses.empty(len(self.skeleton)), []
        table = np.array([entry.keypoints for entry in entries], np.float32)
        table = table.reshape(len(entries), -1, 3)
        low, high = table[..., :2].min(1), table[..., :2].max(1)
        boxes = np.concatenate([low, high - low], axis=1)
        for box, entry in zip(boxes, entries, strict=True):
            if entry.bbox is not None:
                box[:] = entry.bbox
        count = len(entries)
        poses = Poses(
            image=np.zeros(count, np.int64),
            keypoints=table[..., :2],
            scores=table[..., 2],
            score=np.array([entry.score for entry in entries], np.float32),
            box=boxes,
            box_score=np.ones(count, np.float32),
            row=np.full(count, -1),
        )
        track_ids = [entry.track_id for entry in entries if entry.track_id is not None]
        return poses, track_ids if len(track_ids) == count else []


def _read_entry(value: Any, joints: int) -> _Entry:
    """Convert an entry, or raise a ValueError. ``joints`` is the expected number, 0 if unknown."""
    entry = msgspec.convert(value, _Entry)  # msgspec's errors are ValueErrors
    count = len(entry.keypoints)
    if not count or count % 3 or (joints and count != 3 * joints):
        expected = f"not {3 * joints}" if joints else "but must have x, y and score of each joint"
        raise ValueError(f"has {count} keypoint values, {expected}")
    if not np.isfinite([*entry.keypoints, entry.score, *(entry.bbox or ())]).all():
        raise ValueError("contains NaN or Inf")
    if not entry.file_name and entry.image_id is None:
        raise ValueError("has neither a file_name nor an image_id")
    return entry


def _skeleton(joints: int, annotations: str, categories: Sequence[Category], path: str) -> Skeleton:
    """Return the skeleton of the annotations, or else the built-in one with ``joints`` joints.

    Raises:
        InputError: the number of joints does not match the annotations or any built-in skeleton.
    """
    chosen = categories_with_joints(categories)
    if chosen and chosen[0].keypoints:
        # Joints are read as for a data set with these annotations.
        cfg = default_config()
        cfg.DATASET.DATASET, cfg.DATASET.ANNOTATIONS = "", annotations
        resolve_joints(cfg)
        skeleton = skeleton_of(cfg)
        if len(skeleton) != joints:
            raise InputError(
                f"{path}: the results have {joints} joints, but the annotations {annotations} "
                f"name {len(skeleton)}"
            )
        return skeleton
    built_in = {len(skeleton): skeleton for skeleton in SKELETONS.values()}
    if joints not in built_in:
        raise InputError(
            f"{path}: the results have {joints} joints; give --annotations, a COCO annotation file "
            "that names them"
        )
    return built_in[joints]
