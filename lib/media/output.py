"""Writers of images and videos with drawn skeletons, and of JSON results."""

from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO

import numpy as np

from lib.keypoints.poses import Poses
from lib.keypoints.skeletons import Skeleton
from lib.media.video import Frame, Item, VideoFile
from lib.utils.drawing import draw_box, draw_person, track_color, write_image
from lib.utils.reading import encode_json

KEPT_SUFFIXES = frozenset((".jpg", ".jpeg", ".png", ".webp"))  # other formats become JPEG


class DrawingWriter:
    """Writer of images and videos with drawn skeletons, named as the inputs, to ``folder``.

    ``close`` finishes the current video.

    Args:
        threshold: joints with a lower score are not drawn.
        scores: draw the score of each joint.
        boxes: draw the box of each person.
    """

    def __init__(
        self, folder: Path, skeleton: Skeleton, threshold: float, scores: bool, boxes: bool
    ) -> None:
        self._folder = folder
        self._skeleton = skeleton
        self._threshold, self._scores, self._boxes = threshold, scores, boxes
        self._video: VideoFile | None = None
        self._item: Item | None = None

    def write(self, frame: Frame, poses: Poses, track_ids: Sequence[int]) -> None:
        """Draw people into the frame and write it."""
        self._draw(frame.image, poses, track_ids)
        try:
            if frame.item != self._item:
                self._item = frame.item
                self.close()
        finally:  # if a video cannot be finished, the next item still keeps its first frame
            self._write(frame)

    def _draw(self, image: np.ndarray, poses: Poses, track_ids: Sequence[int]) -> None:
        """Draw people; those with track ids get a labelled box."""
        limbs, pairs = self._skeleton.limbs, self._skeleton.flip_pairs
        for index, pose in enumerate(poses):
            if track_ids:
                draw_box(image, pose.box, str(track_ids[index]), track_color(track_ids[index]))
            elif self._boxes:
                draw_box(image, pose.box)
            scores = pose.scores if self._scores else None
            is_drawn = pose.scores > self._threshold
            draw_person(image, pose.keypoints, is_drawn, limbs, pairs, scores)

    def _write(self, frame: Frame) -> None:
        if not frame.rate:
            name = frame.item.name
            suffix = "" if Path(name).suffix.lower() in KEPT_SUFFIXES else ".jpg"
            write_image(self._folder / f"{name}{suffix}", frame.image)
            return
        if not frame.number:
            name = f"{frame.item.name.removesuffix('.mp4')}.mp4"
            self._video = VideoFile(self._folder / name, frame.rate, frame.image.shape[1::-1])
        if self._video is not None:  # None if it could not be opened, which has been reported
            self._video.write(frame.image)

    def close(self) -> None:
        """Finish the current video.

        Raises:
            InputError: the video could not be written.
        """
        video, self._video = self._video, None
        if video is not None:
            video.close()


class ResultsWriter:
    """Writer of people to a JSON list in COCO's results layout.

    Entries are written immediately, so that long videos need little memory.

    Args:
        category: category id of people without a category of their own.
    """

    def __init__(self, file: BinaryIO, category: int) -> None:
        self._file = file
        self._category = category
        self.count = 0
        file.write(b"[")

    def add(
        self, frame: Frame, poses: Poses, track_ids: Sequence[int], categories: Sequence[int]
    ) -> None:
        """Add the people of one frame, with their track ids and categories if known."""
        for index, pose in enumerate(poses):
            table = np.column_stack([pose.keypoints.round(2), pose.scores.round(4)])
            entry = {
                "image_id": frame.image_id,
                "category_id": categories[index] if categories else self._category,
                "keypoints": table.astype(np.float64).round(4).ravel().tolist(),
                "score": round(pose.score * pose.box_score, 5),
                "bbox": [round(float(value), 2) for value in pose.box],
                "file_name": frame.item.name,
            }
            if frame.rate:
                entry["frame"] = frame.number
            if track_ids:
                entry["track_id"] = track_ids[index]
            # One write call, so that an interrupt does not leave half an entry.
            self._file.write((b",\n" if self.count else b"\n") + encode_json(entry))
            self.count += 1

    def close(self) -> None:
        """Finish the list."""
        self._file.write(b"\n]\n")
