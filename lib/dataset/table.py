"""The annotations of a data set as a few arrays."""

from dataclasses import dataclass, fields

import numpy as np

from lib.keypoints.geometry import PIXEL_STD


@dataclass
class Table:
    """N people in M images. Arrays, not Python objects, so that worker processes share the memory.

    image: (N,) int32, row in ``paths`` and ``image_ids``.
    center, scale: (N, 2) float32, the person's box: pixels, and size / 200 pixels.
    size: (N, 2) float32, width and height of the box as annotated, pixels.
    joints: (N, K, 2) float32, image pixels.
    visible: (N, K) float32, 1 where the joint is annotated.
    score: (N,) float32, the detector's, 1 for annotated boxes.
    category: (N,) int32, what kind of body it is: an id of the annotation file.
    paths: (M,) bytes, UTF-8.
    image_ids: (M,) int64.
    """

    image: np.ndarray
    center: np.ndarray
    scale: np.ndarray
    size: np.ndarray
    joints: np.ndarray
    visible: np.ndarray
    score: np.ndarray
    category: np.ndarray
    paths: np.ndarray
    image_ids: np.ndarray

    def __len__(self) -> int:
        return len(self.image)

    def path(self, row: int) -> str:
        """The image file of person ``row``."""
        return self.paths[self.image[row]].decode()

    def box(self, row: int) -> np.ndarray:
        """x, y, width, height of person ``row``'s box in pixels, (4,) float32."""
        size = self.size[row]
        return np.concatenate([self.center[row] - size / 2, size])

    def select(self, rows: np.ndarray) -> "Table":
        """The people in ``rows`` (numbers or flags), over the same images."""
        per_person = {"image", "center", "scale", "size", "joints", "visible", "score", "category"}
        values = {f.name: getattr(self, f.name) for f in fields(self)}
        return Table(**{k: v[rows] if k in per_person else v for k, v in values.items()})


def well_placed(table: Table) -> np.ndarray:
    """(N,) flags of the people whose visible joints lie around the middle of their box.

    The rule of DATASET.SELECT_DATA (lib/dataset/JointsDataset.py, ``select_data``): the fewer
    joints can be seen, the nearer their mean must be to the centre.
    """
    count = table.visible.sum(1)
    mean = (table.joints * table.visible[..., None]).sum(1) / np.maximum(count, 1)[:, None]
    area = table.scale.prod(1) * PIXEL_STD**2
    distance = ((mean - table.center) ** 2).sum(1)
    closeness = np.exp(-distance / (0.2**2 * 2.0 * area))
    return (count > 0) & (closeness > 0.2 / 16 * count + 0.45 - 0.2 / 16)
