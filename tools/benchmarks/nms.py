"""Time non-maximum suppression: compiled code against NumPy, and CUDA against the CPU."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np

from benchmarks import inputs
from benchmarks.measure import Row, fastest, wall_clock
from lib.keypoints.skeletons import COCO
from lib.nms import backend, box_nms, gpu, oks_nms_groups


def run(
    detections: int = 104_125, images: int = 5_000, boxes: int = 10_000, repeats: int = 3
) -> list[Row]:
    """Time OKS-NMS, soft OKS-NMS and box NMS on random detections."""
    people = inputs.detections(detections, images)
    dets = inputs.boxes(boxes)
    sigmas = np.array(COCO.sigmas)
    functions = {
        f"OKS-NMS, {detections:,} people": lambda: oks_nms_groups(*people, 0.9, sigmas),
        f"soft OKS-NMS, {detections:,} people": (
            lambda: oks_nms_groups(*people, 0.9, sigmas, soft=True)
        ),
        f"box NMS, {boxes:,} boxes": lambda: box_nms(dets, 0.5),
    }
    rows = [compare(name, suppress, repeats) for name, suppress in functions.items()]
    if gpu.is_available():
        runs = [lambda: box_nms(dets, 0.5, "cuda"), lambda: box_nms(dets, 0.5)]
        fast, slow = fastest(runs, repeats, wall_clock, warm_up=True)
        agrees = np.array_equal(*(suppress() for suppress in runs))
        name = f"box NMS, {boxes:,} boxes, CUDA"
        remark = "reference: CPU; wall-clock time"
        rows.append(Row(name, "ms", 1e3 * fast, 1e3 * slow, remark, agrees))
    return rows


def compare(name: str, suppress: Callable[[], np.ndarray], repeats: int) -> Row:
    """Time the compiled version against NumPy, or only NumPy if it is not built."""
    with numpy_only():
        (slow,) = fastest([suppress], repeats)
        expected = suppress()
    if backend.compiled is None:
        return Row(name, "ms", 1e3 * slow, remark="NumPy; the compiled version is not built")
    (fast,) = fastest([suppress], repeats)
    agrees = np.array_equal(suppress(), expected)
    return Row(name, "ms", 1e3 * fast, 1e3 * slow, "reference: NumPy", agrees)


@contextmanager
def numpy_only() -> Iterator[None]:
    """Use NumPy for NMS, without the warning that it is slow."""
    saved = backend.compiled, backend._warned
    backend.compiled, backend._warned = None, True
    try:
        yield
    finally:
        backend.compiled, backend._warned = saved
