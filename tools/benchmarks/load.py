"""Measure the time and memory to read a large annotation file, against pycocotools."""

import contextlib
import io
import logging
import multiprocessing
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import NamedTuple

from pycocotools.coco import COCO as PycocotoolsCOCO

from benchmarks import inputs
from benchmarks.measure import Row, process_memory
from lib.dataset.coco import CocoKeypoints
from lib.keypoints.skeletons import COCO

SPLIT = "random"


class Usage(NamedTuple):
    """Number of people read, CPU time in seconds, and peak memory in MiB."""

    people: int
    seconds: float
    memory: float


def run(
    images: int = 118_287, annotations: int = 262_465, people: int = 149_980, repeats: int = 2
) -> list[Row]:
    """Read a file as large as train2017's; ``people`` is the number of annotations with joints."""
    with tempfile.TemporaryDirectory() as root:
        path = annotation_file(root)
        path.parent.mkdir()
        inputs.write_annotations(path, images, annotations, people)
        size = path.stat().st_size / 2**20
        ours, theirs = (
            [read_in_new_process(root, use_pycocotools) for _ in range(repeats)]
            for use_pycocotools in (False, True)
        )
    agrees = {usage.people for usage in (*ours, *theirs)} == {people}
    remark = f"{size:.0f} MiB; reference: pycocotools"
    _, seconds, memory = map(min, zip(*ours, strict=True))
    _, their_seconds, their_memory = map(min, zip(*theirs, strict=True))
    return [
        Row(f"annotations of {people:,} people: time", "s", seconds, their_seconds, remark, agrees),
        Row(f"annotations of {people:,} people: peak memory", "MiB", memory, their_memory),
    ]


def annotation_file(root: str) -> Path:
    return Path(root) / "annotations" / f"person_keypoints_{SPLIT}.json"


def read_in_new_process(root: str, use_pycocotools: bool) -> Usage:
    """Run ``read`` in a new process, to measure its memory alone."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        return pool.submit(read, root, use_pycocotools).result()


def read(root: str, use_pycocotools: bool) -> Usage:
    """Read the annotation file with this project or with pycocotools."""
    logging.disable()
    before, start = process_memory("VmRSS"), time.process_time()
    if use_pycocotools:
        with contextlib.redirect_stdout(io.StringIO()):
            coco = PycocotoolsCOCO(str(annotation_file(root)))
        people = sum(entry["num_keypoints"] > 0 for entry in coco.anns.values())
    else:
        people = len(CocoKeypoints(root, SPLIT, COCO, inputs.ASPECT_RATIO).table)
    return Usage(people, time.process_time() - start, process_memory("VmHWM") - before)
