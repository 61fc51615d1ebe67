"""Pictures of whole images with the skeletons that were found in them."""

from pathlib import Path

import cv2
import numpy as np

from lib.dataset.image import read_image
from lib.dataset.top_down import TopDownDataset
from lib.utils.drawing import draw_person, sheet, write_picture


def write_prediction_sheet(
    dataset: TopDownDataset,
    keypoints: np.ndarray,
    path: str | Path,
    count: int = 24,
    threshold: float = 0.2,
    cell: tuple[int, int] = (400, 300),
) -> None:
    """Write one picture with up to ``count`` images spread evenly over the data set, with the
    skeletons that the data set finds worth showing.

    Args:
        keypoints: (N, K, 3) x, y in image pixels and score, in the order of the data set's table.
        threshold: joints with a lower score are left out.
        cell: (width, height) of each image on the sheet.
    """
    table, skeleton = dataset.table, dataset.skeleton
    images = np.unique(table.image)
    chosen = images[np.linspace(0, len(images) - 1, min(count, len(images))).astype(int)]
    shown = dataset.source.shown(keypoints)
    cells = []
    for image in chosen:
        rows = shown[table.image[shown] == image]
        picture = np.ascontiguousarray(read_image(table.paths[image].decode())[..., ::-1])
        zoom = min(cell[0] / picture.shape[1], cell[1] / picture.shape[0])
        size = [max(1, round(side * zoom)) for side in picture.shape[1::-1]]
        page = np.zeros((cell[1], cell[0], 3), np.uint8)
        small = cv2.resize(picture, size, interpolation=cv2.INTER_AREA)
        for row in rows:
            is_shown = keypoints[row, :, 2] > threshold
            draw_person(
                small, keypoints[row, :, :2] * zoom, is_shown, skeleton.limbs, skeleton.flip_pairs
            )
        page[: size[1], : size[0]] = small
        cells.append(page)
    write_picture(path, sheet(cells, columns=4))
