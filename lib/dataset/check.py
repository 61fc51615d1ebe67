"""Checks that find likely errors in a data set before training."""

from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from lib.dataset.coco_json import LAYOUT, Annotation, CocoFile, Image, box_of_joints
from lib.dataset.image import read_image
from lib.dataset.table import Table
from lib.keypoints.skeletons import Skeleton
from lib.utils.download import file_hash
from lib.utils.errors import InputError
from lib.utils.reading import read_json

MAX_OUTSIDE = 0.1  # distance a joint may lie outside its box, as a fraction of the box size
BROKEN = "image missing or broken"
# Thresholds of ``swapped_pairs``:
MIN_DISTANCE = 0.15  # between a left and a right joint, as a fraction of the box width
MIN_AGREEMENT = 0.9  # two pairs usually agree if they agree in this fraction of people
MIN_PEOPLE = 20  # with fewer people, two pairs are assumed to usually agree


@dataclass(frozen=True)
class Finding:
    """One possible error in a data set."""

    kind: str  # findings are grouped by this
    location: str  # file, image or person
    message: str
    is_fatal: bool = False  # True if training would stop with an error


def check_annotations(path: str) -> tuple[list[Finding], np.ndarray]:
    """Find entries of a COCO annotation file that training would skip or misread.

    Errors that stop training are raised by ``build_dataset`` instead.

    Returns:
        The findings, and the annotated (M, 2) widths and heights of the images.
    """
    content = read_json(path, CocoFile, LAYOUT)
    images, people = content.images, content.annotations
    found = _duplicates(images, people)
    by_id = {image.id: image for image in images}
    categories = {category.id for category in content.categories}
    for person in people:
        location = f"annotation {person.id} of image {person.image_id}"
        image = by_id.get(person.image_id)
        if image is None:
            found.append(Finding("image not listed", location, "its image is not in `images`"))
        elif not person.iscrowd:
            found += _box_findings(location, person, image)
        if person.category_id not in categories:
            message = f"category {person.category_id} is not in `categories`: it will be skipped"
            found.append(Finding("category not listed", location, message))
        if person.is_unflagged:
            message = "has coordinates, but visibility flag 0 for every joint: it will be skipped"
            found.append(Finding("visibility flags all 0", location, message))
        flags = person.keypoints[2::3]
        invalid = [flag for flag in flags if flag not in (0, 1, 2)]
        if invalid:
            message = f"visibility flag {invalid[0]}; must be 0, 1 or 2"
            found.append(Finding("invalid visibility flag", location, message))
        labelled = sum(flag > 0 for flag in flags)
        if person.num_keypoints is not None and person.num_keypoints != labelled:
            message = (
                f"num_keypoints is {person.num_keypoints:g}, but the number of labelled joints is "
                f"{labelled}"
            )
            found.append(Finding("wrong num_keypoints", location, message))
    return found, np.array([(image.width, image.height) for image in images])


def _duplicates(images: list[Image], people: list[Annotation]) -> list[Finding]:
    names = {
        "image listed twice": [f"image {image.id}" for image in images],
        "file listed twice": [image.name for image in images],
        "annotation listed twice": [f"annotation {p.id}" for p in people if p.id is not None],
    }
    return [
        Finding(kind, name, f"listed {count} times")
        for kind, values in names.items()
        for name, count in Counter(values).items()
        if count > 1
    ]


def _box_findings(location: str, person: Annotation, image: Image) -> list[Finding]:
    x, y, width, height = person.bbox
    box = ", ".join(f"{value:g}" for value in person.bbox)
    text = f"box [{box}] in an image of {image.width} x {image.height}"
    if not person.has_box:
        if box_of_joints(person.keypoints, image.width, image.height):
            message = f"box [{box}]: the box around the labelled joints will be used"
            return [Finding("box missing or without area", location, message)]
        return [Finding("box without area", location, f"{text}: the person will be skipped")]
    if max(person.bbox) <= 1:
        message = f"{text}: coordinates must be in pixels, not relative to the size of the image"
        return [Finding("relative coordinates", location, message)]
    if x >= image.width or y >= image.height or x + width <= 0 or y + height <= 0:
        return [Finding("box outside the image", location, f"{text}: the person will be skipped")]
    if x < -1 or y < -1 or x + width > image.width + 1 or y + height > image.height + 1:
        return [Finding("box partly outside the image", location, f"{text}: it will be clipped")]
    return []


def check_people(table: Table, skeleton: Skeleton, has_boxes: bool = True) -> list[Finding]:
    """Find joints far outside their box, pairs that look swapped, and joints never labelled.

    If ``has_boxes`` is False, the data set has no annotated boxes, and the first check is skipped.
    """
    found = []
    for name, count in zip(skeleton.names, table.visible.sum(0), strict=True):
        if not count:
            message = "no person has this joint, so the network cannot learn it"
            found.append(Finding("joint never labelled", name, message))
    half_size = np.maximum(table.size, 1e-6) / 2
    # Distance of each joint from the box edge in x and y, in half sizes; positive outside.
    distance = np.abs(table.joints - table.center[:, None]) / half_size[:, None] - 1
    is_outside = (distance.max(-1) > 2 * MAX_OUTSIDE) & (table.visible > 0) & has_boxes
    for row in np.flatnonzero(is_outside.any(1)):
        names = [skeleton.names[j] for j in np.flatnonzero(is_outside[row])]
        message = f"{', '.join(names)} more than {MAX_OUTSIDE:.0%} of the box size outside the box"
        found.append(Finding("joint outside its box", _person(table, row), message))
    for row, pair in swapped_pairs(table, skeleton):
        left, right = (skeleton.names[j] for j in skeleton.flip_pairs[pair])
        message = f"{left} and {right} are in the opposite order to this person's other pairs"
        found.append(Finding("left and right look swapped", _person(table, row), message))
    return found


def swapped_pairs(table: Table, skeleton: Skeleton) -> list[tuple[int, int]]:
    """Find flip pairs whose left and right joints look swapped.

    If a person is seen from the front, the left joints lie on one side; if seen from behind, on the
    other. So the left-right orders of a person's pairs usually agree. Because arms and legs may
    cross, the agreement of any two pairs is first measured over the whole table. A pair is reported
    if it disagrees with all pairs that it usually agrees with, and there are at least two of them.

    Returns:
        (row of the person, index of the flip pair) of each suspected swap.
    """
    pairs = np.array(skeleton.flip_pairs, int).reshape(-1, 2)
    if len(pairs) < 3:
        return []
    left, right = pairs.T
    width = np.maximum(table.size[:, :1], 1e-6)
    distance = (table.joints[:, left, 0] - table.joints[:, right, 0]) / width
    has_both = (table.visible[:, left] > 0) & (table.visible[:, right] > 0)
    side = np.where(has_both & (np.abs(distance) > MIN_DISTANCE), np.sign(distance), 0)
    has_side = (side != 0).astype(np.float64)
    # For any two pairs, the number of people in whom both have a side, and in whom they agree.
    num_comparable = has_side.T @ has_side
    num_agreeing = (side.T @ side + num_comparable) / 2
    usually_agree = (num_comparable < MIN_PEOPLE) | (num_agreeing >= MIN_AGREEMENT * num_comparable)
    np.fill_diagonal(usually_agree, False)
    # For each of a person's pairs: the number of pairs it is compared with, and of these the number
    # that agree with it minus the number that disagree.
    compared = has_side * (has_side @ usually_agree)
    balance = side * (side @ usually_agree)
    return [(int(r), int(p)) for r, p in np.argwhere((compared >= 2) & (balance == -compared))]


def check_images(
    table: Table,
    sizes: np.ndarray | None,
    rows: np.ndarray,
    workers: int,
    progress: Callable[[int], None],
    max_broken: float = 0.0,
) -> list[Finding]:
    """Find images that are missing, broken, or not of the annotated size.

    Args:
        sizes: (M, 2) annotated widths and heights, or None to skip this comparison.
        rows: rows of ``table.paths`` to read.
        workers: number of threads.
        progress: called with 1 after each image.
        max_broken: maximum share of broken images that is not fatal.
    """

    def check(row: int) -> Finding | None:
        path = table.paths[row].decode()
        try:
            height, width = read_image(path).shape[:2]
        except InputError as error:
            return Finding(BROKEN, path, str(error), True)
        if sizes is not None and sizes[row].tolist() != [width, height]:
            message = f"is {width} x {height}, annotated as {sizes[row, 0]} x {sizes[row, 1]}"
            return Finding("wrong image size", path, message)
        return None

    found = []
    with ThreadPoolExecutor(workers) as pool:
        for finding in pool.map(check, rows):
            progress(1)
            if finding:
                found.append(finding)
    if sum(finding.kind == BROKEN for finding in found) <= max_broken * len(rows):
        found = [replace(f, is_fatal=f.is_fatal and f.kind != BROKEN) for f in found]
    return found


def shared_images(first: Table, second: Table) -> list[tuple[str, str]]:
    """Return the image files of ``first`` that are also in ``second``, under any name.

    Members of archives are compared only by path.

    Returns:
        (file in ``first``, file in ``second``) of each such image.
    """
    # Only images with at least one person.
    paths, others = ([p.decode() for p in t.paths[np.unique(t.image)]] for t in (first, second))
    sizes = {path: _file_size(path) for path in (*paths, *others)}
    common = {sizes[path] for path in paths} & {sizes[other] for other in others} - {0}
    keys = {path: _hash(path) if size in common else path for path, size in sizes.items()}
    by_key = {keys[other]: other for other in others}
    return [(path, by_key[keys[path]]) for path in paths if keys[path] in by_key]


def _file_size(path: str) -> int:
    """Return the size of a file in bytes; 0 if it is missing or a member of an archive."""
    try:
        return Path(path).stat().st_size
    except OSError:
        return 0


def _hash(path: str) -> str:
    """Return the hash of a file, or its path if it cannot be read."""
    try:
        return file_hash(Path(path))
    except InputError:
        return path


def _person(table: Table, row: int) -> str:
    box = ", ".join(f"{value:.0f}" for value in table.box(row))
    return f"{Path(table.path(row)).name}, box [{box}]"
