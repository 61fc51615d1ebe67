"""Output of poses: drawn images and videos, JSON results and CSV tables."""

import csv
import io
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import BinaryIO

import numpy as np

from lib.keypoints.poses import Poses
from lib.keypoints.skeletons import Skeleton
from lib.media.live import FrameRate, Window
from lib.media.video import CAMERA, ErrorReporter, Frame, Item, VideoFile
from lib.utils.drawing import (
    MIDDLE_COLOR,
    draw_box,
    draw_person,
    draw_text,
    track_color,
    write_image,
)
from lib.utils.errors import InputError
from lib.utils.reading import encode_json

COLORS = ("side", "person")  # values of color_by
KEPT_SUFFIXES = frozenset((".jpg", ".jpeg", ".png", ".webp"))  # other formats become JPEG


class PeopleDrawer:
    """Callable that draws people on frames.

    Args:
        threshold: only joints with a score above this are drawn.
        scores: True to draw the score of each joint.
        boxes: True to draw the box of each person. Tracked people always have a box.
        color_by: ``side`` for the colors of ``side_colors``, or ``person`` for one color each.
        rate: if given, the measured frames per second are drawn too.
    """

    def __init__(
        self,
        skeleton: Skeleton,
        threshold: float,
        scores: bool = False,
        boxes: bool = False,
        color_by: str = COLORS[0],
        rate: FrameRate | None = None,
    ) -> None:
        self._skeleton = skeleton
        self._threshold, self._scores, self._boxes = threshold, scores, boxes
        self._by_person = color_by == "person"
        self._rate = rate

    def __call__(self, image: np.ndarray, poses: Poses, track_ids: Sequence[int]) -> None:
        """Draw people in place.

        ``track_ids`` is empty if people are not tracked. Tracked people have a box with their id,
        and the same color in all frames.
        """
        limbs, pairs = self._skeleton.limbs, self._skeleton.flip_pairs
        numbers = track_ids or range(1, len(poses) + 1)
        for number, pose in zip(numbers, poses, strict=True):
            color = track_color(number) if self._by_person else None
            if track_ids:
                draw_box(image, pose.box, str(number), track_color(number))
            elif self._boxes:
                draw_box(image, pose.box, color=color or MIDDLE_COLOR)
            scores = pose.scores if self._scores else None
            is_drawn = pose.scores > self._threshold
            draw_person(image, pose.keypoints, is_drawn, limbs, pairs, scores, color)
        if self._rate is not None:
            height = max(10, max(image.shape[:2]) / 50)
            position = (round(height), round(2 * height))
            draw_text(image, f"{self._rate():.1f} frames/s", position, height)


def check_folder(folder: Path, items: Iterable[Item]) -> None:
    """Check that images and videos written to ``folder`` do not overwrite the inputs.

    Raises:
        InputError: ``folder`` contains inputs.
    """
    sources: set[Path] = set()
    for item in items:
        if item.kind != CAMERA:
            path = Path(item.path)
            # An input may be a link to a file in another folder; neither may be overwritten.
            sources |= {path.parent.resolve(), path.resolve().parent}
    if folder.resolve() in sources:
        raise InputError(
            f"--output: {folder} contains inputs, which would be overwritten; choose another folder"
        )


class FrameOutput:
    """Output of frames with people drawn on them: to files, a window, both or neither.

    Files are named like the inputs.

    Args:
        folder: where images and videos are written; None to write none.
        window: where frames are shown; None to show none.
        report: called with a message for each image or video that cannot be written.
    """

    def __init__(
        self,
        draw: PeopleDrawer,
        folder: Path | None,
        window: Window | None,
        report: ErrorReporter,
    ) -> None:
        self._draw = draw
        self._folder = folder
        self._window = window
        self._report = report
        self._item: Item | None = None
        self._video: VideoFile | None = None

    def add(self, frame: Frame, poses: Poses, track_ids: Sequence[int]) -> bool:
        """Draw, write and show a frame. Return False if the user ends the run in the window."""
        if self._folder is None and self._window is None:
            return True
        self._draw(frame.image, poses, track_ids)
        if self._folder is not None:
            if frame.item != self._item:
                self._item = frame.item
                self._close_video()
            with self._report.caught():
                self._write(frame, self._folder)
        return self._window is None or self._window.show(frame)

    def _write(self, frame: Frame, folder: Path) -> None:
        name = frame.item.name
        if not frame.rate:
            suffix = "" if Path(name).suffix.lower() in KEPT_SUFFIXES else ".jpg"
            write_image(folder / f"{name}{suffix}", frame.image)
            return
        if not frame.number:  # the first frame of a video
            path = folder / f"{name.removesuffix('.mp4')}.mp4"
            self._video = VideoFile(path, frame.output_rate, frame.image.shape[1::-1])
        if self._video is not None:  # None if it could not be opened, which has been reported
            self._video.write(frame.image)

    def _close_video(self) -> None:
        video, self._video = self._video, None
        if video is not None:
            with self._report.caught():
                video.close()

    def close(self) -> None:
        """Finish the current video and close the window."""
        if self._window is not None:
            self._window.close()
        self._close_video()


class ResultsWriter:
    """Writer of people to a JSON list in COCO's results layout.

    Entries are written immediately, so that long videos need little memory.

    Args:
        category: category id of people for whom ``add`` is not given one.

    Attributes:
        people, frames, empty_frames: numbers of people, frames, and frames without people so far.
    """

    def __init__(self, file: BinaryIO, category: int) -> None:
        self._file = file
        self._category = category
        self.people = self.frames = self.empty_frames = 0
        file.write(b"[")

    def add(
        self, frame: Frame, poses: Poses, track_ids: Sequence[int], categories: Sequence[int]
    ) -> None:
        """Add the people of one frame, with their track ids and categories if known."""
        self.frames += 1
        self.empty_frames += not len(poses)
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
            self._file.write((b",\n" if self.people else b"\n") + encode_json(entry))
            self.people += 1

    def close(self) -> None:
        """Finish the list."""
        self._file.write(b"\n]\n")


class TableWriter:
    """Writer of people to a CSV table similar to that of HRNet's demo/inference.py.

    Each row is one person: the frame number, x and y of each joint as integers, the file name and
    the track id. HRNet's table has a row for each frame, with the joints of all its people, and its
    rows lack the frame number that its header announces. It has no file names or track ids.
    """

    def __init__(self, file: BinaryIO, skeleton: Skeleton) -> None:
        self._file = file
        joints = [f"{name}_{axis}" for name in skeleton.names for axis in "xy"]
        self._write([["frame", *joints, "file_name", "track_id"]])

    def add(self, frame: Frame, poses: Poses, track_ids: Sequence[int]) -> None:
        """Add the people of one frame, with their track ids if known."""
        numbers = track_ids or [""] * len(poses)
        self._write(
            [frame.number, *pose.keypoints.astype(int).ravel(), frame.item.name, number]
            for pose, number in zip(poses, numbers, strict=True)
        )

    def _write(self, rows: Iterable[Sequence]) -> None:
        text = io.StringIO()
        csv.writer(text, lineterminator="\n").writerows(rows)
        self._file.write(text.getvalue().encode())
