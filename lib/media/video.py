"""Reading of images, videos, cameras and streams, and writing of videos."""

import contextlib
import glob
import math
import os
import re
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from tqdm import tqdm

from lib.dataset.image import check_size, read_image
from lib.utils.errors import InputError
from lib.utils.files import make_folder

IMAGE, VIDEO, CAMERA = "image", "video", "camera"  # kinds of items
IMAGE_SUFFIXES = (
    ".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff", ".gif", ".ppm", ".pgm", ".jp2"
)  # fmt: skip
VIDEO_SUFFIXES = (
    ".mp4", ".m4v", ".mov", ".avi", ".mkv", ".webm", ".mpg", ".mpeg", ".wmv", ".flv", ".ogv"
)  # fmt: skip
DEFAULT_RATE = 25.0  # frames per second, for cameras and files that report no valid frame rate
CODEC = "mp4v"  # MPEG-4 Part 2, the only codec that all of OpenCV's wheels can write to .mp4

Report = Callable[[str], None]  # called with an error message; processing continues


@dataclass(frozen=True)
class Item:
    """An input: an image, a video, a camera or a stream."""

    path: str  # path of a file, URL of a stream, or number of a camera
    # Unique name in the results: the file name, or "camera" and the number or URL of a camera;
    # duplicates end in _2 and so on.
    name: str
    kind: str  # IMAGE, VIDEO or CAMERA (also for streams)


@dataclass
class Frame:
    """An image or a frame of a video."""

    item: Item
    image: np.ndarray  # (H, W, 3) uint8 RGB
    number: int = 0  # index in the video
    rate: float = 0.0  # frames per second of the video; 0 for an image
    image_id: int = 0  # id in the results
    output_rate: float = 0.0  # frames per second of a video after read_frames has skipped some


class ErrorReporter:
    """Callable that prints errors to standard error, one line each, and counts them."""

    def __init__(self) -> None:
        self.count = 0

    def __call__(self, message: str) -> None:
        self.count += 1
        tqdm.write(f"error: {message}", file=sys.stderr)

    @contextlib.contextmanager
    def caught(self) -> Iterator[None]:
        """Report an InputError raised in the block and continue."""
        try:
            yield
        except InputError as error:
            self(str(error))


def silence_opencv() -> None:
    """Keep OpenCV, FFmpeg and Qt from writing to standard error. Callers report all errors."""
    os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")  # AV_LOG_QUIET
    os.environ.setdefault("QT_LOGGING_RULES", "*=false")
    cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)


def find_items(inputs: Iterable[str], report: Report) -> list[Item]:
    """Find the images, videos, cameras and streams that ``inputs`` name.

    Args:
        inputs: files, folders, patterns such as ``photos/*.jpg``, numbers of cameras, or URLs of
            streams. The content of a folder is sorted by name.
        report: called with a message for each input that does not exist or is empty.
    """
    items: list[Item] = []
    names: set[str] = set()
    for text in inputs:
        try:
            for path, kind in _paths(text):
                is_camera = kind == CAMERA
                name = "camera" + re.sub(r"\W+", "_", path) if is_camera else Path(path).name
                items.append(Item(path, unique_name(name, names), kind))
        except InputError as error:
            report(str(error))
    return items


def _paths(text: str) -> list[tuple[str, str]]:
    """Return the paths and kinds of the items of one input."""
    path = Path(text)
    if path.is_dir():
        found, problem = map(str, path.iterdir()), "the folder contains no images or videos"
    elif path.exists():
        return [(text, kind_of(path) or IMAGE)]  # a file with an unknown suffix may be an image
    elif text.isdecimal() or "://" in text:
        return [(text, CAMERA)]
    elif glob.has_magic(text):
        found, problem = glob.iglob(text, recursive=True), "no image or video matches"
    else:
        raise InputError(f"--input: {text}: there is no such file or folder")
    inputs = [(p, kind) for p in sorted(found) if (kind := kind_of(Path(p))) and os.path.isfile(p)]
    if not inputs:
        raise InputError(f"--input: {text}: {problem}")
    return inputs


def kind_of(path: Path) -> str:
    """Return the kind of a file by its suffix, or '' if it is hidden or neither image nor video."""
    suffix = path.suffix.lower()
    if path.name.startswith("."):
        return ""
    return IMAGE if suffix in IMAGE_SUFFIXES else VIDEO if suffix in VIDEO_SUFFIXES else ""


def unique_name(name: str, names: set[str]) -> str:
    """Make ``name`` unique by appending a number if needed, and add it to ``names``."""
    path, number, unique = Path(name), 1, name
    while unique in names:
        number += 1
        unique = f"{path.stem}_{number}{path.suffix}"
    names.add(unique)
    return unique


def numeric_names(items: list[Item]) -> dict[str, int]:
    """Map numeric image names, as in COCO (000000000785.jpg), to their numbers.

    The result is empty unless all items are images whose names are different numbers of at most 17
    digits, which fit into 64 bits.
    """
    stems = {item.name: Path(item.name).stem for item in items if item.kind == IMAGE}
    if len(stems) < len(items) or not all(s.isdecimal() and len(s) < 18 for s in stems.values()):
        return {}
    numbers = {name: int(stem) for name, stem in stems.items()}
    return numbers if len(set(numbers.values())) == len(items) else {}


def count_frames(items: Iterable[Item], max_rate: float = math.inf) -> int | None:
    """Return the number of frames that ``read_frames`` yields, or None if there is a camera.

    For videos, the number is computed from the length that is stored in the file.
    """
    total = 0
    for item in items:
        if item.kind == CAMERA:
            return None
        if item.kind == IMAGE:
            total += 1
        else:
            capture = cv2.VideoCapture(item.path)
            stored = max(0, int(capture.get(cv2.CAP_PROP_FRAME_COUNT)))
            total += _output_index(stored - 1, min(1.0, max_rate / _rate(capture))) + 1
            capture.release()
    return total


def read_frames(
    items: Iterable[Item], report: Report, apply_exif: bool = True, max_rate: float = math.inf
) -> Iterator[Frame]:
    """Yield the frames of ``items``.

    Args:
        report: called with a message for each item that cannot be read completely. Reading goes on
            with the next item.
        apply_exif: rotate images according to their EXIF orientation.
        max_rate: maximum number of frames per second. If a video or camera has more, the first
            frame at or after each multiple of 1 / max_rate seconds is used.
    """
    for item in items:
        try:
            if item.kind == IMAGE:
                image = read_image(item.path, apply_exif)
                yield Frame(item, cv2.cvtColor(image, cv2.COLOR_BGR2RGB))
            else:
                yield from _video_frames(item, max_rate)
        except InputError as error:
            report(str(error))


def _rate(capture: cv2.VideoCapture) -> float:
    """Return the frames per second of a video or camera."""
    rate = capture.get(cv2.CAP_PROP_FPS)
    return rate if math.isfinite(rate) and 0 < rate <= 1000 else DEFAULT_RATE


def _output_index(number: int, fraction: float) -> int:
    """Return the output index of frame ``number`` if only a fraction of the frames is kept.

    If several frames have the same output index, the first is kept.
    """
    return math.floor(number * fraction + 1e-9)  # 1e-9 is above the rounding error of the product


def _video_frames(item: Item, max_rate: float) -> Iterator[Frame]:
    capture = cv2.VideoCapture(int(item.path) if item.path.isdecimal() else item.path)
    try:
        if not capture.isOpened():
            raise InputError(_open_error(item))
        rate = _rate(capture)
        output_rate = min(rate, max_rate)
        fraction = output_rate / rate
        total = int(capture.get(cv2.CAP_PROP_FRAME_COUNT)) if item.kind == VIDEO else 0
        number = 0
        while True:
            has_frame, bgr = capture.read()
            if not has_frame:
                break
            check_size(bgr.shape[1::-1], item.path)
            if _output_index(number, fraction) > _output_index(number - 1, fraction):
                image = cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB)
                yield Frame(item, image, number, rate, output_rate=output_rate)
            number += 1
    finally:
        capture.release()
    if item.kind == CAMERA:
        raise InputError(f"{item.path}: the camera or stream stopped after {number} frames")
    # Some formats store only an estimate of the length, so one frame or 1 % may be missing.
    if not number or total - number > max(1, total // 100):
        raise InputError(
            f"{item.path}: the video ends after {number} of {total} frames; the file may be "
            "incomplete. The results of these frames are kept"
        )


def _open_error(item: Item) -> str:
    if item.kind == CAMERA:
        return (
            f"--input: {item.path}: cannot open this camera or stream; on Linux, ls /dev/video* "
            "lists cameras"
        )
    if not os.path.getsize(item.path):
        return f"{item.path}: the video file is empty"
    return f"{item.path}: OpenCV cannot read this video; its format is unknown, or it is damaged"


class VideoFile:
    """Writer of an .mp4 video.

    The file appears at ``path`` when it is closed, after a check that it can be read.

    Args:
        rate: frames per second.
        size: (width, height) in pixels.

    Raises:
        InputError: the file cannot be written.
    """

    def __init__(self, path: str | Path, rate: float, size: tuple[int, int]) -> None:
        self.path = Path(path)
        self._size = size
        make_folder(self.path.parent)
        # The suffix stays the same, because OpenCV chooses the format by it.
        self._partial = self.path.with_name(f".{self.path.stem}.partial{self.path.suffix}")
        codec = cv2.VideoWriter_fourcc(*CODEC)
        self._writer = cv2.VideoWriter(str(self._partial), codec, rate, size)
        if not self._writer.isOpened():
            self._partial.unlink(missing_ok=True)
            raise InputError(
                f"{self.path}: OpenCV cannot write a video of {size[0]} x {size[1]} pixels"
            )
        self._count = 0

    def write(self, image: np.ndarray) -> None:
        """Add a frame (H, W, 3) uint8 RGB. Frames of another size are resized."""
        bgr = cv2.cvtColor(image, cv2.COLOR_RGB2BGR)
        if bgr.shape[1::-1] != self._size:
            bgr = cv2.resize(bgr, self._size, interpolation=cv2.INTER_AREA)
        self._writer.write(bgr)
        self._count += 1

    def close(self) -> None:
        """Finish the file.

        Raises:
            InputError: the written file cannot be read, or frames are missing.
        """
        self._writer.release()
        capture = cv2.VideoCapture(str(self._partial))
        is_readable = capture.isOpened() and capture.read()[0]
        written = int(capture.get(cv2.CAP_PROP_FRAME_COUNT))
        capture.release()
        if not is_readable or written < self._count:
            self._partial.unlink(missing_ok=True)
            raise InputError(
                f"{self.path}: the video could not be written: it has {written} of {self._count} "
                "frames; is the disk full?"
            )
        os.replace(self._partial, self.path)
