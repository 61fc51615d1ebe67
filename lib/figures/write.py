"""Write `figures` to disk as a data set in COCO format."""

import json
import multiprocessing
import os
import shutil
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import cv2

from lib.figures.drawing import JOINTS, LIMBS, draw_scene
from lib.utils.errors import InputError
from lib.utils.files import write_atomically

SIZES = {"train": 2000, "val": 300}
VERSION = 7  # increase it when the images or annotations of a given seed change
BYTES_PER_IMAGE = 60_000  # an upper limit; the mean is about half

Progress = Callable[[int, int], None]


def write_figures(
    root: str | os.PathLike,
    sizes: dict[str, int],
    seed: int = 0,
    workers: int | None = None,
    progress: Progress | None = None,
) -> None:
    """Write `figures` to `root`, unless it is already there.

    The files are images/<split>/000000000001.jpg and so on, and one file of annotations per split,
    annotations/person_keypoints_<split>.json. The annotations are written last and atomically, so
    an interrupted run never looks complete. The worker processes are spawned, so a calling script
    needs ``if __name__ == "__main__":``.

    Args:
        root: folder of the data set.
        sizes: number of images by split (train, val).
        seed: seed of all images; another seed gives other people.
        workers: number of processes, by default one per CPU; the files do not depend on it.
        progress: called as progress(done, total) after every image.

    Raises:
        InputError: if `root` contains a different data set, or cannot be written.
    """
    root = Path(root)
    if is_complete(root, sizes, seed):
        return
    try:
        for split in sizes:
            (root / "images" / split).mkdir(parents=True, exist_ok=True)
        (root / "annotations").mkdir(exist_ok=True)
        _check_space(root, sum(sizes.values()))
        write = partial(_write_image, root, seed)
        rows = _draw_all(write, sizes, workers or os.cpu_count() or 1, progress)
        for split, size in sizes.items():
            content = _coco(rows[split], _recipe(split, size, seed))
            write_atomically(_annotation_file(root, split), json.dumps(content).encode())
    except OSError as error:
        raise InputError(
            f"cannot write the figures data set under {root}: {error.strerror or error}"
        ) from error


def is_complete(root: Path, sizes: dict[str, int], seed: int) -> bool:
    """Return True if `root` contains this data set, False if it is missing or incomplete.

    Raises:
        InputError: if `root` contains a different data set.
    """
    complete = True
    for split, size in sizes.items():
        path = _annotation_file(root, split)
        if not path.exists():
            complete = False
            continue
        try:
            found = json.loads(path.read_text(encoding="utf-8"))["info"]["figures"]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise InputError(
                f"{path}: not a figures data set; choose another folder, or move that file"
            ) from error
        recipe = _recipe(split, size, seed)
        if found != recipe:
            have = " ".join(f"{key} {value}" for key, value in found.items())
            want = " ".join(f"{key} {value}" for key, value in recipe.items())
            raise InputError(
                f"{path} is another version of figures (found: {have}; requested: {want}); delete "
                f"{root} to create it again, or choose another folder"
            )
        complete &= len(list((root / "images" / split).glob("*.jpg"))) >= size
    return complete


def _check_space(root: Path, images: int) -> None:
    needed, free = images * BYTES_PER_IMAGE, shutil.disk_usage(root).free
    if free < needed:
        raise InputError(
            f"{root} has {free / 1e6:.0f} MB free; "
            f"the figures data set needs up to {needed / 1e6:.0f} MB"
        )


def _annotation_file(root: Path, split: str) -> Path:
    return root / "annotations" / f"person_keypoints_{split}.json"


def _recipe(split: str, size: int, seed: int) -> dict:
    """Return the settings that determine a split. They are stored in its annotation file."""
    return {"version": VERSION, "split": split, "images": size, "seed": seed}


def _draw_all(
    write: Callable, sizes: dict[str, int], workers: int, progress: Progress | None
) -> dict[str, list]:
    """Call `write` for all images.

    Returns (index, width, height, annotations) of the images in order, by split.
    """
    tasks = [(split, index) for split, size in sizes.items() for index in range(size)]
    rows: dict[str, list] = {split: [] for split in sizes}
    for done, (split, *row) in enumerate(_results(write, tasks, workers), 1):
        rows[split].append(row)
        if progress is not None:
            progress(done, len(tasks))
    return {split: sorted(found, key=lambda row: row[0]) for split, found in rows.items()}


def _results(function: Callable, tasks: list, workers: int) -> Iterator[tuple]:
    if workers == 1:
        yield from map(function, tasks)
        return
    # Forking would not copy the threads of torch and OpenCV.
    context = multiprocessing.get_context("spawn")
    chunk = max(1, min(16, len(tasks) // (4 * workers)))
    with context.Pool(min(workers, len(tasks)), cv2.setNumThreads, (1,)) as pool:
        yield from pool.imap_unordered(function, tasks, chunksize=chunk)


def _write_image(
    root: Path, seed: int, task: tuple[str, int]
) -> tuple[str, int, int, int, list[dict]]:
    """Draw and write one image; return its split, index, width, height and annotations."""
    split, index = task
    image, annotations = draw_scene(seed, split, index)
    # cv2.imwrite does not report why writing failed.
    _, code = cv2.imencode(".jpg", image[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 90])
    (root / "images" / split / _file_name(index)).write_bytes(code.tobytes())
    return split, index, image.shape[1], image.shape[0], annotations


def _file_name(index: int) -> str:
    return f"{index + 1:012d}.jpg"


def _coco(rows: list, recipe: dict) -> dict:
    """Return the content of the annotation file; ids start at 1."""
    images = [
        {"id": index + 1, "file_name": _file_name(index), "width": width, "height": height}
        for index, width, height, _ in rows
    ]
    people = [{"image_id": index + 1, **person} for index, *_, found in rows for person in found]
    category = {"id": 1, "name": "person", "supercategory": "person"}
    return {
        "info": {"description": "figures: drawn people (HRPose)", "figures": recipe},
        "licenses": [],
        "images": images,
        "annotations": [{"id": number, **person} for number, person in enumerate(people, 1)],
        "categories": [category | {"keypoints": list(JOINTS), "skeleton": LIMBS}],
    }
