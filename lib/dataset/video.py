"""Pictures as users have them: files, folders, patterns, videos, cameras; and videos written."""

import glob
import math
import os
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from lib.dataset.image import check_size, read_image
from lib.utils.errors import InputError
from lib.utils.files import make_folder

PICTURES = (
    ".jpg",
    ".jpeg",
    ".png",
    ".bmp",
    ".webp",
    ".tif",
    ".tiff",
    ".gif",
    ".ppm",
    ".pgm",
    ".jp2",
)
VIDEOS = (".mp4", ".m4v", ".mov", ".avi", ".mkv", ".webm", ".mpg", ".mpeg", ".wmv", ".flv", ".ogv")
RATE = 25.0  # frames a second, where a camera or a file does not say
CODEC = "mp4v"  # MPEG-4 Part 2: the one that OpenCV's own wheels encode into .mp4 everywhere

Report = Callable[[str], None]


@dataclass(frozen=True)
class Item:
    """One thing to look at.

    path: a file, the address of a stream, or a camera's number.
    name: what it is called in results: its file's name, with ``_2`` and so on where another has it.
    kind: ``picture``, ``video`` or ``camera``.
    """

    path: str
    name: str
    kind: str


@dataclass
class Frame:
    """image: (H, W, 3) uint8 RGB; number: in its item, from 0; rate: frames a second, 0 of a
    picture; image_id: in the results."""

    item: Item
    image: np.ndarray
    number: int = 0
    rate: float = 0.0
    image_id: int = 0


def quieten() -> None:
    """Keep OpenCV and its FFmpeg from writing to standard error: what matters is reported here."""
    os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")
    cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)


def find_items(inputs: Iterable[str], report: Report) -> list[Item]:
    """What ``inputs`` name: files, folders (the pictures and videos in them, by name), patterns
    such as ``photos/*.jpg``, numbers of cameras, addresses of streams.

    Args:
        report: called with one line for each input that names nothing.
    """
    items: list[Item] = []
    names: set[str] = set()
    for text in inputs:
        try:
            for path, kind in _paths(text):
                name = Path(path).name
                if kind == "camera":
                    name = "camera" + re.sub(r"\W+", "_", path)
                name = _unique(name, names)
                items.append(Item(path, name, kind))
        except InputError as error:
            report(str(error))
    return items


def _paths(text: str) -> list[tuple[str, str]]:
    """The paths and kinds of what one input names."""
    path = Path(text)
    if path.is_dir():
        found = [str(p) for p in sorted(path.iterdir()) if _kind(p) and p.is_file()]
        if not found:
            raise InputError(f"--input: {text}: the folder has no pictures or videos in it")
    elif path.exists():
        return [(text, _kind(path) or "picture")]
    elif text.isdecimal() or "://" in text:
        return [(text, "camera")]
    elif glob.has_magic(text):
        found = sorted(p for p in glob.glob(text, recursive=True) if os.path.isfile(p))
        found = [p for p in found if _kind(Path(p))]
        if not found:
            raise InputError(f"--input: no picture or video is called {text}")
    else:
        raise InputError(f"--input: {text}: there is no such file or folder")
    return [(p, _kind(Path(p))) for p in found]


def _kind(path: Path) -> str:
    """``picture``, ``video``, or '' by a name's suffix."""
    suffix = path.suffix.lower()
    if path.name.startswith("."):
        return ""
    return "picture" if suffix in PICTURES else "video" if suffix in VIDEOS else ""


def _unique(name: str, names: set[str]) -> str:
    """``name``, with a number where ``names`` has it already; it is then there."""
    path, number, unique = Path(name), 1, name
    while unique in names:
        number += 1
        unique = f"{path.stem}_{number}{path.suffix}"
    names.add(unique)
    return unique


def name_numbers(items: list[Item]) -> dict[str, int]:
    """Item's name -> the number that it is, where all items are pictures named by different
    numbers, as COCO's are (000000000785.jpg); else empty."""
    stems = [Path(item.name).stem for item in items]
    are_numbers = all(s.isdecimal() and len(s) < 18 for s in stems)
    if not are_numbers or any(item.kind != "picture" for item in items):
        return {}
    numbers = [int(stem) for stem in stems]
    if len(set(numbers)) < len(numbers):
        return {}
    return {item.name: number for item, number in zip(items, numbers, strict=True)}


def count_frames(items: Iterable[Item]) -> int | None:
    """How many frames ``items`` say they have; None where a camera is among them."""
    total = 0
    for item in items:
        if item.kind == "camera":
            return None
        if item.kind == "picture":
            total += 1
        else:
            capture = cv2.VideoCapture(item.path)
            total += max(0, int(capture.get(cv2.CAP_PROP_FRAME_COUNT)))
            capture.release()
    return total


def read_frames(items: Iterable[Item], report: Report, is_upright: bool = True) -> Iterator[Frame]:
    """The frames of ``items``, one after the other.

    Args:
        report: called with one line for each item that cannot be read, or not to its end; the rest
            goes on.
        is_upright: turn pictures as their EXIF header says.
    """
    for item in items:
        try:
            if item.kind == "picture":
                yield Frame(item, _read_rgb(item.path, is_upright))
            else:
                yield from _video_frames(item)
        except InputError as error:
            report(str(error))


def _read_rgb(path: str, is_upright: bool) -> np.ndarray:
    return cv2.cvtColor(read_image(path, is_upright), cv2.COLOR_BGR2RGB)


def _video_frames(item: Item) -> Iterator[Frame]:
    capture = cv2.VideoCapture(int(item.path) if item.path.isdecimal() else item.path)
    try:
        if not capture.isOpened():
            raise InputError(_why_closed(item))
        rate = capture.get(cv2.CAP_PROP_FPS)
        rate = rate if math.isfinite(rate) and 0 < rate <= 1000 else RATE
        total = int(capture.get(cv2.CAP_PROP_FRAME_COUNT)) if item.kind == "video" else 0
        number = 0
        while True:
            is_there, bgr = capture.read()
            if not is_there:
                break
            check_size(bgr.shape[1::-1], item.path)
            yield Frame(item, cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB), number, rate)
            number += 1
    finally:
        capture.release()
    if item.kind == "camera":
        raise InputError(f"{item.path}: the camera or stream gives no more frames after {number}")
    # Some formats only estimate their length.
    if not number or total - number > max(1, total // 100):
        raise InputError(
            f"{item.path}: the video breaks off after {number} of {total} frames; what was read is "
            "kept"
        )


def _why_closed(item: Item) -> str:
    if item.kind == "camera":
        return (
            f"--input: {item.path}: no camera of that number, or no stream at that address, can be "
            "opened; ls /dev/video* lists cameras on Linux"
        )
    if not os.path.getsize(item.path):
        return f"{item.path}: the video file is empty"
    return (
        f"{item.path}: not a video that OpenCV can read, or one that lacks its end: copy it again"
    )


class VideoFile:
    """An .mp4 that takes its place at ``path`` when it is closed and could be read again.

    Args:
        rate: frames a second.
        size: (width, height) in pixels.

    Raises:
        InputError: the file cannot be written.
    """

    def __init__(self, path: str | Path, rate: float, size: tuple[int, int]) -> None:
        self.path = Path(path)
        self._size = size
        make_folder(self.path.parent)
        # OpenCV knows the format by the suffix.
        self._partial = self.path.with_name(f".{self.path.stem}.partial{self.path.suffix}")
        codec = cv2.VideoWriter_fourcc(*CODEC)
        self._writer = cv2.VideoWriter(str(self._partial), codec, rate, size)
        if not self._writer.isOpened():
            self._partial.unlink(missing_ok=True)
            raise InputError(
                f"{self.path}: OpenCV cannot write a video of {size[0]} x {size[1]} pixels here"
            )
        self._count = 0

    def write(self, image: np.ndarray) -> None:
        """Add a frame (H, W, 3) uint8 RGB; one of another size is fitted to the first's."""
        bgr = cv2.cvtColor(image, cv2.COLOR_RGB2BGR)
        if bgr.shape[1::-1] != self._size:
            bgr = cv2.resize(bgr, self._size, interpolation=cv2.INTER_AREA)
        self._writer.write(bgr)
        self._count += 1

    def close(self) -> None:
        """Finish the file; an InputError where it did not become one that can be read."""
        self._writer.release()
        capture = cv2.VideoCapture(str(self._partial))
        is_whole = capture.isOpened() and capture.read()[0]
        written = int(capture.get(cv2.CAP_PROP_FRAME_COUNT))
        capture.release()
        if not is_whole or written < self._count:
            self._partial.unlink(missing_ok=True)
            raise InputError(
                f"{self.path}: the video could not be written (is there space left?): {written} of "
                f"{self._count} frames are in it"
            )
        os.replace(self._partial, self.path)
