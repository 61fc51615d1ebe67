"""What tools/demo.py makes of the people that it found: pictures, videos, a JSON of results."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np

from lib.core.inference import Person
from lib.keypoints.skeletons import Skeleton
from lib.media.smoothing import OneEuro
from lib.media.tracking import Tracker
from lib.media.video import Frame, Item, VideoFile
from lib.utils.drawing import draw_box, draw_person, number_color, write_picture
from lib.utils.reading import write_json

WRITTEN = frozenset((".jpg", ".jpeg", ".png", ".webp"))  # as they came; others become JPEG


@dataclass
class Style:
    """How people are drawn: joints above ``threshold``, with scores, with boxes."""

    threshold: float
    scores: bool = False
    boxes: bool = False


class Follower:
    """Numbers for the people of a video, and steadier joints where ``smooth``.

    Args:
        threshold: joints with a lower score do not count.
    """

    def __init__(self, skeleton: Skeleton, threshold: float, smooth: bool) -> None:
        self._skeleton = skeleton
        self._threshold = threshold
        self._smooth = smooth
        self._item: Item | None = None

    def __call__(self, frame: Frame, people: list[Person]) -> list[int]:
        """The people's numbers; their keypoints are smoothed in place. Pictures have no numbers."""
        if not frame.rate:
            return []
        if frame.item != self._item:
            self._item = frame.item
            self._tracker = Tracker(self._skeleton, joint_threshold=self._threshold)
            self._filters: dict[int, tuple[OneEuro, int]] = {}
        numbers = self._tracker(people)
        if not self._smooth:
            return numbers
        known, self._filters = self._filters, {}
        for number, person in zip(numbers, people, strict=True):
            smooth, last = known.pop(number, (OneEuro(frame.rate), frame.number - 1))
            size = float(np.sqrt(person.box[2] * person.box[3]))
            is_seen = person.scores > self._threshold
            person.keypoints = smooth(person.keypoints, size, is_seen, frame.number - last)
            self._filters[number] = smooth, frame.number
        # Somebody missing may come back; whoever does not is forgotten by the tracker.
        self._filters |= {n: f for n, f in known.items() if frame.number - f[1] < frame.rate * 2}
        return numbers


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

    def write(self, frame: Frame, people: list[Person], numbers: Sequence[int]) -> None:
        """Draw into the frame and write it."""
        draw_people(frame.image, people, numbers, self._skeleton, self._style)
        if frame.item != self._item:
            self.close()
            self._item = frame.item
        if not frame.rate:
            name = frame.item.name
            suffix = "" if Path(name).suffix.lower() in WRITTEN else ".jpg"
            write_picture(self._folder / f"{name}{suffix}", frame.image)
            return
        if not frame.number:
            name = f"{frame.item.name.removesuffix('.mp4')}.mp4"
            self._video = VideoFile(self._folder / name, frame.rate, frame.image.shape[1::-1])
        if self._video is not None:  # else it could not be opened, which was said
            self._video.write(frame.image)

    def close(self) -> None:
        """Finish what is open; an InputError where that cannot be."""
        video, self._video = self._video, None
        if video is not None:
            video.close()


def draw_people(
    image: np.ndarray,
    people: list[Person],
    numbers: Sequence[int],
    skeleton: Skeleton,
    style: Style,
) -> None:
    """Draw everybody into ``image`` (H, W, 3) uint8 RGB, with boxes where they have numbers."""
    for at, person in enumerate(people):
        if numbers:
            draw_box(image, person.box, str(numbers[at]), number_color(numbers[at]))
        elif style.boxes:
            draw_box(image, person.box)
        draw_person(
            image,
            person.keypoints,
            person.scores > style.threshold,
            skeleton.limbs,
            skeleton.flip_pairs,
            person.scores if style.scores else None,
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
        people: list[Person],
        numbers: Sequence[int],
        categories: Sequence[int] = (),
    ) -> None:
        """The people of one frame; ``categories`` are theirs where they are known."""
        for at, person in enumerate(people):
            table = np.column_stack([person.keypoints.round(2), person.scores.round(4)])
            entry = {
                "image_id": frame.image_id,
                "category_id": categories[at] if categories else self._category,
                "keypoints": table.astype(np.float64).round(4).ravel().tolist(),
                "score": round(person.score * person.box_score, 5),
                "bbox": [round(float(value), 2) for value in person.box],
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
