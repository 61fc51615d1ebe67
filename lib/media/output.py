"""Drawn pictures and videos, and a JSON file of results."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np

from lib.keypoints.poses import Poses
from lib.keypoints.skeletons import Skeleton
from lib.media.video import Frame, Item, VideoFile
from lib.utils.drawing import draw_box, draw_person, number_color, write_image
from lib.utils.reading import write_json

WRITTEN = frozenset((".jpg", ".jpeg", ".png", ".webp"))  # other formats become JPEG


@dataclass
class Style:
    """How people are drawn: joints above ``threshold``, with scores, with boxes."""

    threshold: float
    scores: bool = False
    boxes: bool = False


class Pictures:
    """Drawn pictures and videos in ``folder``, under the names of what they show.

    ``close`` finishes the video that is being written.
    """

    def __init__(self, folder: Path, skeleton: Skeleton, style: Style) -> None:
        self._folder = folder
        self._skeleton = skeleton
        self._style = style
        self._video: VideoFile | None = None
        self._item: Item | None = None

    def write(self, frame: Frame, poses: Poses, numbers: Sequence[int]) -> None:
        """Draw into the frame and write it."""
        draw_people(frame.image, poses, numbers, self._skeleton, self._style)
        try:
            if frame.item != self._item:
                self._item = frame.item
                self.close()
        finally:  # a video that cannot be finished costs no frame of the next item
            self._write(frame)

    def _write(self, frame: Frame) -> None:
        if not frame.rate:
            name = frame.item.name
            suffix = "" if Path(name).suffix.lower() in WRITTEN else ".jpg"
            write_image(self._folder / f"{name}{suffix}", frame.image)
            return
        if not frame.number:
            name = f"{frame.item.name.removesuffix('.mp4')}.mp4"
            self._video = VideoFile(self._folder / name, frame.rate, frame.image.shape[1::-1])
        if self._video is not None:  # else it could not be opened, as already reported
            self._video.write(frame.image)

    def close(self) -> None:
        """Finish what is open; an InputError where that cannot be."""
        video, self._video = self._video, None
        if video is not None:
            video.close()


def draw_people(
    image: np.ndarray,
    poses: Poses,
    numbers: Sequence[int],
    skeleton: Skeleton,
    style: Style,
) -> None:
    """Draw everybody into ``image`` (H, W, 3) uint8 RGB, with boxes where they have numbers."""
    for at, pose in enumerate(poses):
        if numbers:
            draw_box(image, pose.box, str(numbers[at]), number_color(numbers[at]))
        elif style.boxes:
            draw_box(image, pose.box)
        draw_person(
            image,
            pose.keypoints,
            pose.scores > style.threshold,
            skeleton.limbs,
            skeleton.flip_pairs,
            pose.scores if style.scores else None,
        )


class Results:
    """A JSON list in COCO's results layout, written as it comes: a long video needs no memory."""

    def __init__(self, file: BinaryIO, category: int) -> None:
        self._file = file
        self._category = category
        self.count = 0
        file.write(b"[")

    def add(
        self,
        frame: Frame,
        poses: Poses,
        numbers: Sequence[int],
        categories: Sequence[int] = (),
    ) -> None:
        """The people of one frame; ``categories`` are theirs where they are known."""
        for at, pose in enumerate(poses):
            table = np.column_stack([pose.keypoints.round(2), pose.scores.round(4)])
            entry = {
                "image_id": frame.image_id,
                "category_id": categories[at] if categories else self._category,
                "keypoints": table.astype(np.float64).round(4).ravel().tolist(),
                "score": round(pose.score * pose.box_score, 5),
                "bbox": [round(float(value), 2) for value in pose.box],
                "file_name": frame.item.name,
            }
            if frame.rate:
                entry["frame"] = frame.number
            if numbers:
                entry["track_id"] = numbers[at]
            # In one go, so that an interrupt leaves no half.
            self._file.write((b",\n" if self.count else b"\n") + write_json(entry))
            self.count += 1

    def close(self) -> None:
        """End the list."""
        self._file.write(b"\n]\n")
