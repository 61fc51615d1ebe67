"""How far predicted keypoints lie from the annotated ones: tables, and the worst pictures."""

import csv
import heapq
import io
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from scipy.optimize import linear_sum_assignment

from lib.keypoints.poses import Pose, Poses
from lib.keypoints.skeletons import Skeleton
from lib.media.boxes import box_iou
from lib.media.ground_truth import AnnotatedPerson
from lib.utils.drawing import draw_person, draw_text, image_grid, write_image
from lib.utils.files import write_atomically

MIN_OVERLAP = 0.3  # of boxes, below which a person found is not the annotated one
CELL = 360  # pixels, width and height of a picture on the sheet
WORST = 20
TRUTH = (255, 255, 255)
WAY = (255, 60, 200)  # from an annotated joint to the predicted one


@dataclass
class _Row:
    """An annotated person; errors (K,) pixels, NaN where a joint is not annotated or nobody was
    found there."""

    name: str
    number: int
    size: float
    errors: np.ndarray


class Accuracy:
    """Gathers the errors of picture after picture.

    An error is the distance in pixels between an annotated joint and the predicted one; relative
    errors are divided by the square root of the annotated box's area.

    Args:
        worst: how many pictures the sheet has.
    """

    def __init__(self, skeleton: Skeleton, worst: int = WORST) -> None:
        self._skeleton = skeleton
        self._rows: list[_Row] = []
        self._worst: list[tuple[float, int, np.ndarray]] = []
        self._count = worst
        self._pictures = 0

    def add(
        self,
        name: str,
        image: np.ndarray,
        poses: Poses,
        annotated: list[AnnotatedPerson],
        is_in_order: bool,
    ) -> None:
        """Compare the people of one picture.

        Args:
            name: the picture's.
            image: (H, W, 3) uint8 RGB, without drawings.
            is_in_order: the people were predicted in the annotated boxes, in their order; else they
                are matched by the overlap of their boxes.
        """
        pairs = {n: n for n in range(len(annotated))} if is_in_order else match(poses, annotated)
        worst: tuple[float, _Row, Pose, AnnotatedPerson] | None = None
        for number, known in enumerate(annotated):
            errors = np.full(len(self._skeleton), np.nan)
            found = poses[pairs[number]] if number in pairs else None
            if found is not None:
                distances = np.linalg.norm(found.keypoints - known.joints, axis=1)
                errors[known.visible] = distances[known.visible]
            row = _Row(name, known.number, float(np.sqrt(known.box[2] * known.box[3])), errors)
            if known.visible.any():
                self._rows.append(row)
            if found is None or not known.visible.any():
                continue
            relative = float(np.nanmean(errors)) / row.size
            if worst is None or relative > worst[0]:
                worst = relative, row, found, known
        self._pictures += 1
        if worst is not None:
            full = len(self._worst) == self._count
            if not full or worst[0] > self._worst[0][0]:
                cell = self._cell(image, *worst)
                put = heapq.heapreplace if full else heapq.heappush
                put(self._worst, (worst[0], self._pictures, cell))

    def write(self, folder: Path) -> str:
        """Write ``errors.csv`` (a row a person), ``errors_by_joint.csv`` and ``worst.jpg``; returns
        the second as a Markdown table with a line on who was not found."""
        names = self._skeleton.names
        errors = np.array([row.errors for row in self._rows]).reshape(-1, len(names))
        sizes = np.array([row.size for row in self._rows])
        rows = []
        for row in self._rows:
            is_there = np.isfinite(row.errors).any()
            mean = float(np.nanmean(row.errors)) if is_there else np.nan
            values = [*row.errors, mean]
            rows.append([row.name, row.number, *map(_number, values), _number(mean / row.size, 4)])
        _write_csv(folder / "errors.csv", ["file", "person", *names, "mean", "relative"], rows)
        summary = [
            _summary(name, errors[:, n], errors[:, n] / sizes) for n, name in enumerate(names)
        ]
        summary.append(_summary("all", errors.ravel(), (errors / sizes[:, None]).ravel()))
        head = ["joint", "people", "mean", "median", "relative"]
        _write_csv(folder / "errors_by_joint.csv", head, summary)
        if self._worst:
            cells = [cell for _, _, cell in sorted(self._worst, reverse=True)]
            write_image(folder / "worst.jpg", image_grid(cells, columns=4))
        missed = int((~np.isfinite(errors)).all(1).sum())
        lines = [f"| {' | '.join(line)} |" for line in ([*head], *summary)]
        lines.insert(1, "|---" * len(head) + "|")
        lines.append(f"{len(errors)} annotated people, {missed} of them not found; in pixels")
        return "\n".join(lines)

    def _cell(
        self, image: np.ndarray, relative: float, row: _Row, found: Pose, known: AnnotatedPerson
    ) -> np.ndarray:
        """The person with its prediction and annotation, (CELL, CELL, 3)."""
        visible = known.visible
        x, y, width, height = known.box
        corners = [(x, y), (x + width, y + height), *known.joints[visible]]
        corners = np.array([*corners, *found.keypoints[visible]])
        limit = np.array(image.shape[1::-1])
        corners = np.clip(corners, 0, limit)
        middle = (corners.min(0) + corners.max(0)) / 2
        half = max(float(np.ptp(corners, axis=0).max()) * 0.56, 4.0)
        zoom = CELL / (2 * half)
        matrix = np.array([[zoom, 0, 0], [0, zoom, 0]])
        matrix[:, 2] = CELL / 2 - middle * zoom
        # What is much larger than the cell is made smaller first: bilinear sampling skips pixels.
        shrink = min(1.0, 2 * zoom)
        if shrink < 1:
            size = [max(1, round(side * shrink)) for side in image.shape[1::-1]]
            image = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
            matrix[:, :2] *= limit[0] / size[0]
        cell = cv2.warpAffine(image, matrix, (CELL, CELL), flags=cv2.INTER_LINEAR)
        true = known.joints * zoom + (CELL / 2 - middle * zoom)
        guess = found.keypoints * zoom + (CELL / 2 - middle * zoom)
        limbs, pairs = self._skeleton.limbs, self._skeleton.flip_pairs
        draw_person(cell, true, visible, limbs, pairs, color=TRUTH)
        draw_person(cell, guess, visible, limbs, pairs)
        for a, b in zip(np.rint(true[visible]), np.rint(guess[visible]), strict=True):
            cv2.line(
                cell,
                *(tuple(map(int, np.clip(p, -9999, 9999))) for p in (a, b)),
                WAY,
                1,
                cv2.LINE_AA,
            )
        text = f"{np.nanmean(row.errors):.1f} px, {100 * relative:.0f} %"
        draw_text(cell, text, (6, 18), 12)
        draw_text(cell, f"{row.name[-34:]}, person {row.number}", (6, CELL - 8), 9)
        return cell


def match(poses: Poses, annotated: list[AnnotatedPerson]) -> dict[int, int]:
    """Match annotated people (numbers in ``annotated``) with those found, by their boxes."""
    if not len(poses) or not annotated:
        return {}
    overlaps = np.stack([box_iou(known.box, poses.box) for known in annotated])
    rows, columns = linear_sum_assignment(-overlaps)
    return {
        int(row): int(column)
        for row, column in zip(rows, columns, strict=True)
        if overlaps[row, column] >= MIN_OVERLAP
    }


def _summary(name: str, errors: np.ndarray, relative: np.ndarray) -> list[str]:
    is_there = np.isfinite(errors)
    if not is_there.any():
        return [name, "0", "", "", ""]
    there = errors[is_there]
    values = (
        _number(there.mean()),
        _number(np.median(there)),
        _number(relative[is_there].mean(), 4),
    )
    return [name, str(len(there)), *values]


def _number(value: float, digits: int = 2) -> str:
    return f"{value:.{digits}f}" if np.isfinite(value) else ""


def _write_csv(path: Path, head: list[str], rows: list[list]) -> None:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(head)
    writer.writerows(rows)
    write_atomically(path, text.getvalue().encode())
