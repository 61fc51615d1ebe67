"""What may be wrong with a data set, found before it costs a training."""

import filecmp
from collections import Counter, defaultdict
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from lib.dataset.coco_json import Annotation, Image, read_coco
from lib.dataset.image import read_image
from lib.dataset.table import Table
from lib.keypoints.skeletons import Skeleton
from lib.utils.errors import InputError

OUTSIDE = 0.1  # of a box's size: joints may lie this far from it
APART = 0.15  # of a box's width: the left and the right of a pair are clearly told apart
USUAL = 0.9  # of the people have two pairs the same way round: then the others are worth a look
ENOUGH = 20  # people to say so by


@dataclass(frozen=True)
class Finding:
    """One thing to look at.

    kind: what sort of thing, the same words for all of its kind.
    where: the file, image or person.
    what: what was seen.
    is_fatal: a training would stop there.
    """

    kind: str
    where: str
    what: str
    is_fatal: bool = False


def check_annotations(path: str) -> tuple[list[Finding], np.ndarray]:
    """Boxes and numbers of a file in COCO's layout that are left out or misread in training. (What
    a training would stop at, ``build_dataset`` says.)

    Returns:
        What was found, and the images' (M, 2) widths and heights as annotated.
    """
    content = read_coco(path)
    images, people = content.images, content.annotations
    found = _doubles(images, people)
    by_id = {image.id: image for image in images}
    for person in people:
        where = f"annotation {person.id} of image {person.image_id}"
        image = by_id.get(person.image_id)
        if image is None:
            found.append(Finding("image not listed", where, "its image is not in the list"))
        elif not person.iscrowd:
            found += _box_findings(where, person, image)
        flags = person.keypoints[2::3]
        if any(flag not in (0, 1, 2) for flag in flags):
            flag = next(flag for flag in flags if flag not in (0, 1, 2))
            found.append(Finding("odd visibility", where, f"a flag of {flag}; COCO has 0, 1, 2"))
        labelled = sum(flag > 0 for flag in flags)
        if person.num_keypoints is not None and person.num_keypoints != labelled:
            what = f"num_keypoints is {person.num_keypoints:g}, but {labelled} are labelled"
            found.append(Finding("wrong num_keypoints", where, what))
    return found, np.array([(image.width, image.height) for image in images])


def _doubles(images: list[Image], people: list[Annotation]) -> list[Finding]:
    names = {
        "image listed twice": [f"image {image.id}" for image in images],
        "file listed twice": [image.file_name or image.filename for image in images],
        "annotation listed twice": [f"annotation {p.id}" for p in people if p.id is not None],
    }
    return [
        Finding(kind, name, f"is there {count} times")
        for kind, values in names.items()
        for name, count in Counter(values).items()
        if count > 1
    ]


def _box_findings(where: str, person: Annotation, image: Image) -> list[Finding]:
    x, y, width, height = person.bbox
    text = f"box {list(person.bbox)} in an image of {image.width} x {image.height}"
    if not (width > 0 and height > 0):
        return [Finding("box without area", where, f"{text}: it is left out")]
    if x >= image.width or y >= image.height or x + width <= 0 or y + height <= 0:
        return [Finding("box outside the image", where, f"{text}: it is left out")]
    if x < -1 or y < -1 or x + width > image.width + 1 or y + height > image.height + 1:
        return [Finding("box partly outside", where, f"{text}: it is cut")]
    return []


def check_people(table: Table, skeleton: Skeleton, has_boxes: bool = True) -> list[Finding]:
    """Joints far from their person's box (where there are boxes), left and right that look swapped,
    and joints that nobody has."""
    found = []
    labelled = table.visible.sum(0)
    for name, count in zip(skeleton.names, labelled, strict=True):
        if not count:
            found.append(Finding("joint never labelled", name, "nobody has it: it is not learnt"))
    half = np.maximum(table.size, 1e-6) / 2
    # ``center`` is the middle of the box, whose ``size`` is that before padding.
    away = np.abs(table.joints - table.center[:, None]) / half[:, None] - 1
    is_out = (away.max(-1) > 2 * OUTSIDE) & (table.visible > 0) & has_boxes
    for row in np.flatnonzero(is_out.any(1)):
        names = [skeleton.names[j] for j in np.flatnonzero(is_out[row])]
        what = f"{', '.join(names)} more than {OUTSIDE:.0%} of the box's size outside it"
        found.append(Finding("joint outside its box", _person(table, row), what))
    for row, pair in swapped_pairs(table, skeleton):
        left, right = (skeleton.names[j] for j in skeleton.flip_pairs[pair])
        what = f"{left} and {right} lie the other way round than this person's other pairs"
        found.append(Finding("left and right look swapped", _person(table, row), what))
    return found


def swapped_pairs(table: Table, skeleton: Skeleton) -> list[tuple[int, int]]:
    """(row, number of the flip pair) where a left and a right joint look permute_joints.

    In a view from the front all lefts lie on one side, from behind on the other: pairs agree. How
    far two pairs usually do is counted over the whole table, since arms and legs may cross; a pair
    is named that goes against two or more of those which it nearly always agrees with, and with
    none of them.
    """
    pairs = np.array(skeleton.flip_pairs, int).reshape(-1, 2)
    if len(pairs) < 3:
        return []
    left, right = pairs.T
    apart = (table.joints[:, left, 0] - table.joints[:, right, 0]) / table.size[:, :1]
    is_there = (table.visible[:, left] > 0) & (table.visible[:, right] > 0)
    side = np.where(is_there & (np.abs(apart) > APART), np.sign(apart), 0)
    both = (side != 0).T.astype(np.float64) @ (side != 0)
    agreement = (side.T @ side + both) / 2
    is_usual = (both < ENOUGH) | (agreement >= USUAL * both)
    np.fill_diagonal(is_usual, False)
    # Of the pairs that usually go together, how many agree and how many do not.
    against = np.zeros_like(side)
    along = np.zeros_like(side)
    for pair in range(len(pairs)):
        product = side[:, pair : pair + 1] * side * is_usual[pair]
        against[:, pair] = (product < 0).sum(1)
        along[:, pair] = (product > 0).sum(1)
    return [(int(r), int(p)) for r, p in np.argwhere((against >= 2) & (along == 0))]


def check_images(
    table: Table,
    sizes: np.ndarray | None,
    rows: np.ndarray,
    workers: int,
    progress: Callable[[int], None] = lambda done: None,
) -> list[Finding]:
    """Images that are missing or broken, or of another size than annotated.

    Args:
        sizes: (M, 2) widths and heights as annotated, or None.
        rows: of ``table.paths``, the images to read.
        progress: is told how many more are done.
    """

    def check(row: int) -> Finding | None:
        path = table.paths[row].decode()
        try:
            height, width = read_image(path).shape[:2]
        except InputError as error:
            return Finding("image missing or broken", path, str(error), True)
        if sizes is not None and sizes[row].tolist() != [width, height]:
            what = f"is {width} x {height}, annotated as {sizes[row, 0]} x {sizes[row, 1]}"
            return Finding("image of another size", path, what)
        return None

    found = []
    with ThreadPoolExecutor(workers) as pool:
        for finding in pool.map(check, rows):
            progress(1)
            if finding:
                found.append(finding)
    return found


def shared_images(first: Table, second: Table) -> list[str]:
    """The files of ``first`` that ``second`` has too, under the same name and with the same
    content."""
    others: dict[str, list[str]] = defaultdict(list)
    for path in used_images(second):
        others[Path(path).name].append(path)
    return [
        path
        for path in used_images(first)
        if any(_is_same_file(path, other) for other in others[Path(path).name])
    ]


def used_images(table: Table) -> list[str]:
    """The files with people."""
    return [path.decode() for path in table.paths[np.unique(table.image)]]


def _is_same_file(first: str, second: str) -> bool:
    try:
        return first == second or filecmp.cmp(first, second)
    except OSError:  # missing, or inside of an archive
        return False


def _person(table: Table, row: int) -> str:
    box = [*(table.center[row] - table.size[row] / 2), *table.size[row]]
    text = ", ".join(f"{value:.0f}" for value in box)
    return f"{Path(table.path(row)).name}, box [{text}]"
