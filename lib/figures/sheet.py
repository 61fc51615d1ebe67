"""A contact sheet of `figures`, to check the images and their joints by eye."""

import cv2
import numpy as np

from lib.figures.drawing import JOINTS, LIMBS, draw_scene

TILE = (220, 260)  # width, height
GREEN, RED, YELLOW, WHITE = (0, 255, 0), (255, 40, 40), (255, 255, 0), (255, 255, 255)


def contact_sheet(seed: int, people: int = 24, columns: int = 8) -> np.ndarray:
    """Draw crops of the first annotated people of the training split; uint8 RGB.

    Each row is shown twice, without and with joints. Green is the person's left, red the right,
    yellow the nose and the limbs. Filled joints are visible (2), rings are occluded (1).
    """
    bare, drawn = [], []
    index = 0
    while len(bare) < people:
        image, annotations = draw_scene(seed, "train", index)
        for annotation in annotations[: people - len(bare)]:
            for tiles, with_joints in ((bare, False), (drawn, True)):
                tiles.append(_tile(image, annotation, with_joints))
        index += 1
    rows = []
    for first in range(0, people, columns):
        for tiles in (bare, drawn):
            row = np.zeros((TILE[1], columns * TILE[0], 3), np.uint8)
            found = tiles[first : first + columns]
            row[:, : len(found) * TILE[0]] = np.hstack(found)
            rows.append(row)
    return np.vstack(rows)


def _tile(image: np.ndarray, annotation: dict, with_joints: bool) -> np.ndarray:
    """Crop the person and some margin to a tile, uint8 (h, w, 3).

    If `with_joints` is set, also draw the joints, limbs and bounding box.
    """
    x, y, w, h = annotation["bbox"]
    zoom = min(TILE[0] / (1.25 * w), TILE[1] / (1.25 * h))
    shift = np.array(TILE) / 2 - zoom * np.array([x + w / 2, y + h / 2])
    matrix = np.array([[zoom, 0, shift[0]], [0, zoom, shift[1]]])
    tile = cv2.warpAffine(image, matrix, TILE, flags=cv2.INTER_LINEAR)
    if not with_joints:
        return tile
    keypoints = np.array(annotation["keypoints"]).reshape(-1, 3)
    points = [tuple(int(v) for v in np.round(zoom * xy + shift)) for xy in keypoints[:, :2]]
    for a, b in LIMBS:
        if keypoints[a - 1, 2] and keypoints[b - 1, 2]:
            cv2.line(tile, points[a - 1], points[b - 1], YELLOW, 1, cv2.LINE_AA)
    for name, point, flag in zip(JOINTS, points, keypoints[:, 2], strict=True):
        color = GREEN if name.startswith("left") else RED if name.startswith("right") else YELLOW
        if flag:
            cv2.circle(tile, point, 3, color, -1 if flag == 2 else 1, cv2.LINE_AA)
    box = [int(v) for v in np.round(zoom * np.array([x, y, x + w, y + h]) + np.tile(shift, 2))]
    cv2.rectangle(tile, box[:2], box[2:], WHITE, 1)
    return tile
