"""Distances from annotated to predicted keypoints, as tables and a sheet of the worst images."""

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

MIN_IOU = 0.3  # minimum IoU of the boxes of two people that match
CELL_SIZE = 360  # width and height of each image on the sheet, in pixels
WORST_COUNT = 20  # number of images on the sheet
GROUND_TRUTH_COLOR = (255, 255, 255)
ERROR_COLOR = (255, 60, 200)  # lines from annotated to predicted joints


@dataclass
class _Row:
    """Errors of an annotated person."""

    name: str  # of the image
    annotation_id: int
    size: float  # square root of the box area, in pixels
    errors: np.ndarray  # (K,) pixels; NaN if the joint is not annotated or the person not found


class KeypointErrors:
    """Keypoint errors of images that are added one by one.

    An error is the distance in pixels between an annotated joint and the predicted one. Relative
    errors are divided by the square root of the area of the annotated box.
    """

    def __init__(self, skeleton: Skeleton) -> None:
        self._skeleton = skeleton
        self._rows: list[_Row] = []
        # Heap of the worst images: relative error, number of the image to break ties, drawing.
        self._worst: list[tuple[float, int, np.ndarray]] = []
        self._image_count = 0

    def add(
        self,
        name: str,
        image: np.ndarray,
        poses: Poses,
        annotated: list[AnnotatedPerson],
        is_in_order: bool,
    ) -> None:
        """Add the errors of one image.

        Args:
            name: name of the image.
            image: (H, W, 3) uint8 RGB, without drawings.
            is_in_order: ``poses`` and ``annotated`` list the same people in the same order. If
                False, people are matched by the IoU of their boxes.
        """
        pairs = {n: n for n in range(len(annotated))} if is_in_order else match(poses, annotated)
        worst: tuple[float, _Row, Pose, AnnotatedPerson] | None = None
        for index, person in enumerate(annotated):
            if not person.is_annotated.any():
                continue
            errors = np.full(len(self._skeleton), np.nan)
            size = float(np.sqrt(person.box[2] * person.box[3]))
            row = _Row(name, person.annotation_id, size, errors)
            self._rows.append(row)
            if index not in pairs:
                continue
            pose = poses[pairs[index]]
            distances = np.linalg.norm(pose.keypoints - person.joints, axis=1)
            errors[person.is_annotated] = distances[person.is_annotated]
            relative = float(np.nanmean(errors)) / size
            if worst is None or relative > worst[0]:
                worst = relative, row, pose, person
        self._image_count += 1
        if worst is not None:
            is_full = len(self._worst) == WORST_COUNT
            if not is_full or worst[0] > self._worst[0][0]:
                cell = self._draw_cell(image, *worst)
                push = heapq.heapreplace if is_full else heapq.heappush
                push(self._worst, (worst[0], self._image_count, cell))

    def write(self, folder: Path) -> str:
        """Write the tables of errors and ``worst.jpg``, which docs/demo.md describes.

        Returns:
            A Markdown table of the errors by joint, and the number of people not found.
        """
        names = self._skeleton.names
        errors = np.array([row.errors for row in self._rows]).reshape(-1, len(names))
        sizes = np.array([row.size for row in self._rows])
        rows = []
        for row in self._rows:
            mean = np.nanmean(row.errors) if np.isfinite(row.errors).any() else np.nan
            numbers = [*map(_format, [*row.errors, mean]), _format(mean / row.size, 4)]
            rows.append([row.name, row.annotation_id, *numbers])
        _write_csv(folder / "errors.csv", ["file", "person", *names, "mean", "relative"], rows)
        summary = [
            _summary(name, errors[:, n], errors[:, n] / sizes) for n, name in enumerate(names)
        ]
        summary.append(_summary("all", errors.ravel(), (errors / sizes[:, None]).ravel()))
        head = ["joint", "people", "mean", "median", "relative"]
        _write_csv(folder / "errors_by_joint.csv", head, summary)
        self._write_squared_errors(folder / "error_per_image_per_keypoint.txt", errors)
        if self._worst:
            cells = [cell for _, _, cell in sorted(self._worst, reverse=True)]
            write_image(folder / "worst.jpg", image_grid(cells, columns=4))
        missed = int((~np.isfinite(errors)).all(1).sum())
        lines = [f"| {' | '.join(line)} |" for line in ([*head], *summary)]
        lines.insert(1, "|---" * len(head) + "|")
        lines.append(
            f"{len(errors)} annotated people, {missed} of them not found; errors in pixels"
        )
        return "\n".join(lines)

    def _write_squared_errors(self, path: Path, errors: np.ndarray) -> None:
        """Write errors as demo/inference.py of gurpreet-ai/hrnet_keypoint_detection does.

        The file has the mean of the squared errors in x and y for each person and joint. The last
        line has the means over all people. ``errors`` are distances (P, K).
        """
        squared = errors**2 / 2
        head = ["FILENAME", *(f"KP_{n}" for n in range(1, errors.shape[1] + 1))]
        rows = [
            [row.name, *map(_format, values)]
            for row, values in zip(self._rows, squared, strict=True)
        ]
        known = (values[np.isfinite(values)] for values in squared.T)
        total = [_format(values.mean()) if len(values) else "" for values in known]
        _write_csv(path, head, [*rows, ["TOTAL ERROR", *total]])

    def _draw_cell(
        self, image: np.ndarray, relative: float, row: _Row, pose: Pose, person: AnnotatedPerson
    ) -> np.ndarray:
        """Draw the part of an image with a person's prediction and annotation, as one cell."""
        visible = person.is_annotated
        x, y, width, height = person.box
        points = [(x, y), (x + width, y + height), *person.joints[visible]]
        points = np.array([*points, *pose.keypoints[visible]])
        image_size = np.array(image.shape[1::-1])
        points = np.clip(points, 0, image_size)
        center = (points.min(0) + points.max(0)) / 2
        # Half the side of the square to draw: half the extent of the points, plus 12 %, but at
        # least 4 pixels.
        half = max(float(np.ptp(points, axis=0).max()) * 0.56, 4.0)
        zoom = CELL_SIZE / (2 * half)
        offset = CELL_SIZE / 2 - center * zoom
        matrix = np.column_stack([zoom * np.eye(2), offset])
        # Large images are shrunk first, because bilinear sampling would skip pixels.
        shrink = min(1.0, 2 * zoom)
        if shrink < 1:
            size = [max(1, round(side * shrink)) for side in image.shape[1::-1]]
            image = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
            matrix[:, :2] *= image_size[0] / size[0]
        cell = cv2.warpAffine(image, matrix, (CELL_SIZE, CELL_SIZE), flags=cv2.INTER_LINEAR)
        annotated = person.joints * zoom + offset
        predicted = pose.keypoints * zoom + offset
        limbs, pairs = self._skeleton.limbs, self._skeleton.flip_pairs
        draw_person(cell, annotated, visible, limbs, pairs, color=GROUND_TRUTH_COLOR)
        draw_person(cell, predicted, visible, limbs, pairs)
        for points in zip(np.rint(annotated[visible]), np.rint(predicted[visible]), strict=True):
            # Joints far outside the image could exceed OpenCV's range of coordinates.
            start, end = (tuple(map(int, np.clip(point, -9999, 9999))) for point in points)
            cv2.line(cell, start, end, ERROR_COLOR, 1, cv2.LINE_AA)
        text = f"{np.nanmean(row.errors):.1f} px, {100 * relative:.0f} %"
        draw_text(cell, text, (6, 18), 12)
        draw_text(cell, f"{row.name[-34:]}, person {row.annotation_id}", (6, CELL_SIZE - 8), 9)
        return cell


def match(poses: Poses, annotated: list[AnnotatedPerson]) -> dict[int, int]:
    """Match annotated and predicted people by the IoU of their boxes.

    Returns:
        Dictionary from indices of ``annotated`` to indices of ``poses``. It lacks people without a
        match that has an IoU of at least MIN_IOU.
    """
    if not len(poses) or not annotated:
        return {}
    ious = np.stack([box_iou(person.box, poses.box) for person in annotated])
    rows, columns = linear_sum_assignment(-ious)
    keep = ious[rows, columns] >= MIN_IOU
    return dict(zip(rows[keep].tolist(), columns[keep].tolist(), strict=True))


def _summary(name: str, errors: np.ndarray, relative: np.ndarray) -> list[str]:
    has_error = np.isfinite(errors)
    if not has_error.any():
        return [name, "0", "", "", ""]
    known = errors[has_error]
    mean, median = _format(known.mean()), _format(np.median(known))
    return [name, str(len(known)), mean, median, _format(relative[has_error].mean(), 4)]


def _format(value: float, digits: int = 2) -> str:
    return f"{value:.{digits}f}" if np.isfinite(value) else ""


def _write_csv(path: Path, head: list[str], rows: list[list]) -> None:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(head)
    writer.writerows(rows)
    write_atomically(path, text.getvalue().encode())
