"""The suppression's part of tools/benchmark.py."""

import argparse
from collections.abc import Callable

import _made_up
import _plain
import numpy as np
from _measure import Row, fastest, positive

from lib.keypoints.skeletons import COCO
from lib.nms import backend, box_nms, oks_nms_groups


def add_nms(parser: argparse.ArgumentParser) -> None:
    parser.set_defaults(
        run=nms, title="suppression of {detections:,} people in {images:,} images, CPU"
    )
    parser.add_argument("--detections", type=positive, default=104_125)
    parser.add_argument("--images", type=positive, default=5_000)
    parser.add_argument("--boxes", type=positive, default=10_000, help="in one image")
    parser.add_argument("--repeats", type=positive, default=2, help="of which the best counts")


def nms(args: argparse.Namespace) -> list[Row]:
    """OKS-NMS, hard and soft, and box NMS; compiled if built, and on NumPy."""
    people = _made_up.detections(args.detections, args.images)
    boxes = _made_up.boxes(args.boxes)
    sigmas = np.array(COCO.sigmas)
    rows = []
    for name, soft in (("OKS-NMS", False), ("soft OKS-NMS", True)):
        rows += nms_rows(
            name,
            lambda soft=soft: oks_nms_groups(*people, 0.9, sigmas, soft=soft),
            lambda soft=soft: _plain.oks_nms(*people, 0.9, sigmas, soft),
            args.repeats,
        )
    ours, plain = (lambda: box_nms(boxes, 0.5)), (lambda: _plain.box_nms(boxes, 0.5))
    return rows + nms_rows(f"box NMS of {args.boxes:,}", ours, plain, args.repeats)


def nms_rows(
    name: str, ours: Callable[[], np.ndarray], plain: Callable[[], np.ndarray], repeats: int
) -> list[Row]:
    def on_numpy() -> np.ndarray:
        before = backend.compiled, backend._warned
        backend.compiled, backend._warned = None, True
        try:
            return ours()
        finally:
            backend.compiled, backend._warned = before

    slow, reference = (1e3 * s for s in fastest(repeats, on_numpy, plain))
    answer = plain()
    rows = [Row(f"{name}, NumPy", "ms", slow, reference, np.array_equal(on_numpy(), answer))]
    if backend.compiled is not None:
        (quick,) = fastest(max(repeats, 3), ours)
        agree = np.array_equal(ours(), answer)
        rows.insert(0, Row(f"{name}, compiled", "ms", 1e3 * quick, reference, agree))
    return rows
