"""Comparison of the compiled NMS versions with NumPy: ``python lib/nms/build.py --check``."""

import time
from collections.abc import Callable

import numpy as np

from lib.nms import backend, descending_order, gpu, numpy_nms

BOXES = 10_000
PEOPLE = 2_000
IMAGES = 100
THRESHOLD = 0.5


def compare() -> int:
    """Compare results and times on random boxes and people.

    Returns 0 if all versions give the same results, else 1.
    """
    boxes = random_boxes(np.random.default_rng(0), BOXES)
    versions: dict[str, Callable[[np.ndarray], None] | None] = {
        "numpy": lambda keep: numpy_nms.box_keep(boxes, THRESHOLD, keep),
        "cython": None,
        "cuda": None,
    }
    if backend.compiled is not None:
        versions["cython"] = lambda keep: backend.compiled.box_keep(boxes, THRESHOLD, keep)
    if gpu.available():
        versions["cuda"] = lambda keep: gpu.box_keep(boxes, THRESHOLD, keep)
    print(f"box NMS of {BOXES} random boxes, threshold {THRESHOLD}")
    boxes_match = compare_boxes(versions)
    print(f"OKS-NMS of {PEOPLE} random people in {IMAGES} images, threshold {THRESHOLD}")
    return 0 if compare_people() and boxes_match else 1


def compare_boxes(versions: dict[str, Callable[[np.ndarray], None] | None]) -> bool:
    """Run each version of box NMS and print a line; return True if all agree with NumPy."""
    results: dict[str, np.ndarray] = {}
    for name, version in versions.items():
        if version is None:
            print(f"  {name:7} not available: {unavailable_reason(name)}")
            continue
        results[name] = np.zeros(BOXES, np.uint8)
        seconds = fastest(lambda run=version, keep=results[name]: run(keep))
        print_line(name, seconds, int(results[name].sum()), count_differences(results, name))
    return all(not count_differences(results, name) for name in results)


def count_differences(results: dict[str, np.ndarray], name: str) -> int:
    """Return the number of boxes for which ``name`` differs from NumPy."""
    return int((results[name] != results["numpy"]).sum())


def compare_people() -> bool:
    """Run the NumPy and the compiled OKS-NMS and print a line each; return True if they agree."""
    rng = np.random.default_rng(0)
    keypoints = rng.normal(0, 8, (PEOPLE, 17, 3)) + rng.uniform(0, 60, (PEOPLE, 1, 3))
    areas, variances = rng.uniform(1e3, 1e4, PEOPLE), np.full(17, 0.02)
    order = np.arange(PEOPLE)
    starts = np.arange(0, PEOPLE + 1, PEOPLE // IMAGES)
    rows: dict[str, np.ndarray] = {}
    for name, kernel in (("numpy", numpy_nms), ("cython", backend.compiled)):
        if kernel is None:
            print(f"  {name:7} not available: {unavailable_reason(name)}")
            continue
        kept = np.empty(PEOPLE, np.int64)
        arguments = (keypoints, areas, variances, None, order, starts, THRESHOLD, kept)
        seconds = fastest(lambda run=kernel.oks_groups, arguments=arguments: run(*arguments))
        rows[name] = kept[: kernel.oks_groups(*arguments)].copy()
        print_line(name, seconds, len(rows[name]), len(np.setxor1d(rows[name], rows["numpy"])))
    return all(np.array_equal(found, rows["numpy"]) for found in rows.values())


def print_line(name: str, seconds: float, kept: int, different: int) -> None:
    """Print the time of a version, the number of kept rows and how many differ from NumPy."""
    verdict = "agrees" if not different else f"DIFFERS in {different}"
    print(f"  {name:7} {seconds * 1000:9.2f} ms  keeps {kept}  {verdict}")


def unavailable_reason(name: str) -> str:
    """Return the reason why a version cannot run here."""
    if name == "cuda" and gpu.load_library() is not None:
        return "no usable GPU"
    return "not built; run make"


def fastest(run: Callable[[], object], times: int = 3) -> float:
    """Return the time of the fastest of a few runs in seconds, after a warm-up run."""
    run()
    seconds = []
    for _ in range(times):
        start = time.perf_counter()
        run()
        seconds.append(time.perf_counter() - start)
    return min(seconds)


def random_boxes(rng: np.random.Generator, count: int) -> np.ndarray:
    """Return random boxes, float32 (4, count), highest score first.

    Coordinates are whole pixels, so that some overlaps are equal.
    """
    corner = rng.integers(0, 900, (2, count))
    size = rng.integers(20, 120, (2, count))
    order = descending_order(rng.random(count))
    return np.ascontiguousarray(np.concatenate([corner, corner + size])[:, order], np.float32)
