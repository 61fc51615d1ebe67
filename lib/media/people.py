"""The people in images and videos, frame by frame."""

import contextlib
import itertools
from collections.abc import Callable, Iterator

import numpy as np

from lib.core.inference import Detector, Predictor
from lib.keypoints.poses import Poses
from lib.media.boxes import BoxFile
from lib.media.ground_truth import GroundTruth
from lib.media.pipeline import batches, overlap
from lib.media.video import Frame, Item, Report, name_numbers

BATCH_BYTES = 1 << 26  # of the frames of a batch; some seven batches are in memory at a time

# For each frame the boxes (N, 4) of its people, None for the whole image, and their scores (N,).
Finder = Callable[[list[Frame]], list[tuple[np.ndarray | None, np.ndarray | None]]]


def whole_images(frames: list[Frame]) -> list[tuple[None, None]]:
    """A ``Finder`` that takes each whole image as one person."""
    return [(None, None)] * len(frames)


def detected_boxes(detector: Detector) -> Finder:
    """A ``Finder`` of what a detector finds."""
    return lambda frames: detector([frame.image for frame in frames])


def filed_boxes(file: BoxFile) -> Finder:
    """A ``Finder`` of the boxes in a file."""
    return lambda frames: [file.of(frame) for frame in frames]


def annotated_boxes(annotated: GroundTruth) -> Finder:
    """A ``Finder`` of the annotated boxes."""

    def find(frames: list[Frame]) -> list[tuple[np.ndarray, None]]:
        people = [annotated.people(frame.image_id) for frame in frames]
        return [(np.array([p.box for p in one]).reshape(-1, 4), None) for one in people]

    return find


def annotated_items(items: list[Item], annotated: GroundTruth, report: Report) -> list[Item]:
    """The items that the annotations list; the others are reported in one line."""
    known, others = [], []
    for item in items:
        is_known = item.kind == "picture" and annotated.image_id(item.path) is not None
        (known if is_known else others).append(item)
    if others:
        report(
            f"{others[0].path}: is not among the images of {annotated.path} ({len(others)} such "
            "files are left out)"
        )
    return known


def number_frames(
    frames: Iterator[Frame], items: list[Item], annotated: GroundTruth | None = None
) -> Iterator[Frame]:
    """``frames`` with their ids: the annotations', else the numbers that files are called, else
    running ones from 1."""
    names = name_numbers(items)
    running = itertools.count(1)
    with contextlib.closing(frames):
        for frame in frames:
            known = annotated.image_id(frame.item.path) if annotated else names.get(frame.item.name)
            frame.image_id = next(running) if known is None else known
            yield frame


def find_people(
    frames: Iterator[Frame], find: Finder, predictor: Predictor, batch_size: int = 8
) -> Iterator[tuple[Frame, Poses]]:
    """Each frame with its people, in order; batches of frames are read, searched and predicted at
    the same time, in threads. Close the iterator to end them."""

    def search(batch: list[Frame]) -> tuple:
        return batch, *zip(*find(batch), strict=True)

    def predict(found: tuple) -> list[tuple[Frame, Poses]]:
        batch, boxes, scores = found
        everybody = predictor([frame.image for frame in batch], list(boxes), list(scores))
        return list(zip(batch, everybody, strict=True))

    groups = batches(frames, batch_size, lambda frame: frame.image.nbytes, BATCH_BYTES)
    with contextlib.closing(overlap(groups, [search, predict], depth=1)) as results:
        for part in results:
            yield from part
