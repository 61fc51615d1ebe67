"""Pose estimation in images and videos, frame by frame."""

import contextlib
import itertools
from collections.abc import Callable, Iterator

import numpy as np

from lib.core.inference import Detector, Predictor
from lib.keypoints.poses import Poses
from lib.media.boxes import BoxFile
from lib.media.ground_truth import GroundTruth
from lib.media.pipeline import batches, run_pipeline
from lib.media.video import IMAGE, Frame, Item, Report, numeric_names
from lib.utils.logs import counted

# A batch ends early when its frames reach this size; about seven batches are in memory at a time.
BATCH_BYTES = 1 << 26

# Returns (boxes, scores) for each frame: boxes (N, 4), or None for the whole image, and scores
# (N,), or None if the boxes have no scores.
BoxSource = Callable[[list[Frame]], list[tuple[np.ndarray | None, np.ndarray | None]]]


def whole_images(frames: list[Frame]) -> list[tuple[None, None]]:
    """Return no boxes, so that each whole image is used. This is a ``BoxSource``.

    A top-down network then treats the image as one person. Bottom-up networks need no boxes.
    """
    return [(None, None)] * len(frames)


def boxes_from_detector(detector: Detector) -> BoxSource:
    """Return a ``BoxSource`` that runs a detector."""
    return lambda frames: detector([frame.image for frame in frames])


def boxes_from_file(file: BoxFile | GroundTruth) -> BoxSource:
    """Return a ``BoxSource`` that looks boxes up in a file of boxes or annotations."""
    return lambda frames: [file.boxes_of(frame) for frame in frames]


def annotated_items(items: list[Item], annotations: GroundTruth, report: Report) -> list[Item]:
    """Return the images that the annotations list, and report all other items in one message."""
    known, others = [], []
    for item in items:
        is_known = item.kind == IMAGE and annotations.image_id(item.path) is not None
        (known if is_known else others).append(item)
    if others:
        report(
            f"skipped {counted(len(others), 'file')} not listed in {annotations.path}, such as "
            f"{others[0].path}"
        )
    return known


def set_image_ids(
    frames: Iterator[Frame], items: list[Item], annotations: GroundTruth | None = None
) -> Iterator[Frame]:
    """Yield the frames with their image ids set.

    The ids come from the annotations, if given. Otherwise they are the numbers in the file names
    (see ``numeric_names``). If not all names are numbers, frames are counted from 1.
    """
    ids_by_name = numeric_names(items)
    counter = itertools.count(1)
    with contextlib.closing(frames):
        for frame in frames:
            if annotations:
                image_id = annotations.image_id(frame.item.path)
            else:
                image_id = ids_by_name.get(frame.item.name)
            frame.image_id = next(counter) if image_id is None else image_id
            yield frame


def predict_frames(
    frames: Iterator[Frame],
    box_source: BoxSource,
    predictor: Predictor,
    batch_size: int = 8,
    min_score: float | None = None,
) -> Iterator[tuple[Frame, Poses]]:
    """Yield each frame with the poses of its people, in order.

    If ``min_score`` is given, people with a lower score are left out.

    Reading, detection and prediction overlap in threads. Close the iterator to stop them.
    """

    def find_boxes(batch: list[Frame]) -> tuple:
        return batch, *zip(*box_source(batch), strict=True)

    def predict(inputs: tuple) -> list[tuple[Frame, Poses]]:
        batch, boxes, scores = inputs
        poses = predictor([frame.image for frame in batch], list(boxes), list(scores))
        if min_score is not None:
            poses = [found[found.score >= min_score] for found in poses]
        return list(zip(batch, poses, strict=True))

    groups = batches(frames, batch_size, lambda frame: frame.image.nbytes, BATCH_BYTES)
    with contextlib.closing(run_pipeline(groups, [find_boxes, predict])) as results:
        for batch in results:
            yield from batch
