"""The annotations' part of tools/benchmark.py: time and memory of building a data set."""

import argparse
import json
import logging
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import _made_up
import _plain
import numpy as np
from _measure import Row, memory, positive

from lib.dataset.coco import CocoKeypoints
from lib.keypoints.skeletons import COCO
from lib.utils.errors import InputError

SPLIT = "made_up"
COMMAND = Path(__file__).with_name("benchmark.py")


def add_load(parser: argparse.ArgumentParser) -> None:
    parser.set_defaults(
        run=load,
        title="a data set of {used:,} people, from {annotations:,} annotations of {images:,} "
        "images with outlines of {outline} numbers, CPU",
    )
    parser.add_argument("--annotations", type=positive, default=262_465)
    parser.add_argument("--used", type=positive, default=149_980, help="annotations with joints")
    parser.add_argument("--images", type=positive, default=118_287)
    parser.add_argument("--outline", type=int, default=60, help="numbers of a segmentation")
    parser.add_argument("--repeats", type=positive, default=2, help="of which the best counts")
    parser.add_argument("--child", help=argparse.SUPPRESS)  # in a fresh process: "ours", "plain"
    parser.add_argument("--root", type=Path, help=argparse.SUPPRESS)


def load(args: argparse.Namespace) -> list[Row]:
    """Time and memory of building the data set, each time in a fresh process."""
    if args.child:
        print(json.dumps(build(args.child, args.root)))
        sys.exit()
    with tempfile.TemporaryDirectory() as folder:
        path = annotation_file(Path(folder))
        path.parent.mkdir()
        used = min(args.used, args.annotations)
        _made_up.write_annotations(path, args.images, args.annotations, used, max(args.outline, 0))
        file_size = path.stat().st_size / 2**20
        results = [(fresh("ours", folder), fresh("plain", folder)) for _ in range(args.repeats)]
    (ours, plain), agree = results[0], True
    for pair in results:
        agree &= all(np.allclose(r["sums"], ours["sums"], rtol=1e-5) for r in pair)
        for best, result in zip((ours, plain), pair, strict=True):
            best.update({k: min(best[k], result[k]) for k in ("seconds", "peak")})
    return [
        Row("building the data set", "s", ours["seconds"], plain["seconds"], agree),
        Row("  its peak memory", "MiB", ours["peak"], plain["peak"]),
        Row("  memory that it keeps", "MiB", ours["kept"], plain["kept"]),
        Row("  of it mapped files", "MiB", ours["mapped"], plain["mapped"]),
        Row("  the annotation file", "MiB", file_size),
    ]


def annotation_file(root: Path) -> Path:
    return root / "annotations" / f"person_keypoints_{SPLIT}.json"


def fresh(version: str, root: str) -> dict:
    """What ``build`` says, in a process of its own."""
    command = [sys.executable, COMMAND, "load", "--child", version, "--root", root]
    result = subprocess.run(command, capture_output=True, text=True)
    if result.returncode:
        raise InputError(f"building the data set failed: {result.stderr.strip()}")
    return json.loads(result.stdout)


def build(version: str, root: Path) -> dict[str, Any]:
    """CPU seconds, growth of the resident memory in MiB (its peak; kept; kept in mapped files) and
    sums over the people, of one way to build the data set."""
    logging.disable()
    before, start = memory(), time.process_time()
    if version == "ours":
        people = CocoKeypoints(str(root), SPLIT, COCO, _made_up.ASPECT_RATIO).table
    else:
        people = _plain.load(str(annotation_file(root)), "images", _made_up.ASPECT_RATIO)
    seconds, after = time.process_time() - start, memory()
    if version == "ours":
        arrays = [people.center, people.scale, people.joints, people.visible]
    else:
        arrays = [np.array([p[k] for p in people]) for k in ("center", "scale", "joints")]
        arrays.append(np.array([p["visible"][:, 0] for p in people]))
    return {
        "seconds": seconds,
        "peak": after["VmHWM"] - before["VmRSS"],
        "kept": after["VmRSS"] - before["VmRSS"],
        "mapped": after["RssFile"] - before["RssFile"],
        "sums": [len(arrays[0]), *(float(array.sum(dtype=np.float64)) for array in arrays)],
    }
