"""Compare every version of NMS that is built with NumPy's: ``python lib/nms/build.py --check``."""

import time
from collections.abc import Callable

import numpy as np

from lib.nms import backend, descending_order, gpu, numpy_nms

BOXES = 10_000
PEOPLE = 2_000
IMAGES = 100
THRESHOLD = 0.5


def compare() -> int:
    """Print agreement and times on random boxes and people; 1 where a version differs, else 0."""
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
    fine = compare_boxes(versions)
    print(f"OKS-NMS of {PEOPLE} random people in {IMAGES} images, threshold {THRESHOLD}")
    return 0 if compare_people() and fine else 1


def compare_boxes(versions: dict[str, Callable[[np.ndarray], None] | None]) -> bool:
    """Run each version of box NMS, print its line; whether all agree with the first."""
    answers: dict[str, np.ndarray] = {}
    for name, version in versions.items():
        if version is None:
            print(f"  {name:7} not available{why_not(name)}")
            continue
        answers[name] = np.zeros(BOXES, np.uint8)
        seconds = fastest(lambda run=version, keep=answers[name]: run(keep))
        print_line(name, seconds, int(answers[name].sum()), differing(answers, name))
    return all(not differing(answers, name) for name in answers)


def differing(answers: dict[str, np.ndarray], name: str) -> int:
    """In how many boxes ``name`` differs from NumPy."""
    return int((answers[name] != answers["numpy"]).sum())


def compare_people() -> bool:
    """Run NumPy's and the compiled OKS-NMS, print their lines; whether they agree."""
    rng = np.random.default_rng(0)
    keypoints = rng.normal(0, 8, (PEOPLE, 17, 3)) + rng.uniform(0, 60, (PEOPLE, 1, 3))
    areas, variances = rng.uniform(1e3, 1e4, PEOPLE), np.full(17, 0.02)
    order = np.arange(PEOPLE)
    starts = np.arange(0, PEOPLE + 1, PEOPLE // IMAGES)
    rows: dict[str, np.ndarray] = {}
    for name, kernel in (("numpy", numpy_nms), ("cython", backend.compiled)):
        if kernel is None:
            print(f"  {name:7} not available{why_not(name)}")
            continue
        kept = np.empty(PEOPLE, np.int64)
        given = (keypoints, areas, variances, None, order, starts, THRESHOLD, kept)
        seconds = fastest(lambda run=kernel.oks_groups, given=given: run(*given))
        rows[name] = kept[: kernel.oks_groups(*given)].copy()
        print_line(name, seconds, len(rows[name]), len(np.setxor1d(rows[name], rows["numpy"])))
    return all(np.array_equal(found, rows["numpy"]) for found in rows.values())


def print_line(name: str, seconds: float, kept: int, different: int) -> None:
    """One version's time, count and agreement."""
    verdict = "agrees" if not different else f"DIFFERS in {different}"
    print(f"  {name:7} {seconds * 1000:9.2f} ms  keeps {kept}  {verdict}")


def why_not(name: str) -> str:
    """Why a version cannot run here."""
    if name != "cuda":
        return ": not built, see make"
    return ": not built, see make" if gpu.load_library() is None else ": no GPU that it can use"


def fastest(run: Callable[[], object], times: int = 3) -> float:
    """Seconds of the fastest of a few runs, after one to warm up."""
    run()
    seconds = []
    for _ in range(times):
        start = time.perf_counter()
        run()
        seconds.append(time.perf_counter() - start)
    return min(seconds)


def random_boxes(rng: np.random.Generator, count: int) -> np.ndarray:
    """Boxes float32 (4, count), highest score first; whole pixels, so that some overlaps tie."""
    corner = rng.integers(0, 900, (2, count))
    size = rng.integers(20, 120, (2, count))
    order = descending_order(rng.random(count))
    return np.ascontiguousarray(np.concatenate([corner, corner + size])[:, order], np.float32)
