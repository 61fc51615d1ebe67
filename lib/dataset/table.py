"""The people of a data set, as arrays."""

from dataclasses import dataclass, fields, replace

import numpy as np

from lib.keypoints.geometry import PIXEL_STD


@dataclass
class Table:
    """N people in M images. The arrays' memory can be shared by data-loading processes."""

    image: np.ndarray  # (N,) int32, row in ``paths`` and ``image_ids``
    center: np.ndarray  # (N, 2) float32, center of the padded box in pixels
    scale: np.ndarray  # (N, 2) float32, width and height of the padded box, in units of 200 pixels
    size: np.ndarray  # (N, 2) float32, width and height of the box before padding, in pixels
    joints: np.ndarray  # (N, K, 2) float32, in image pixels
    visible: np.ndarray  # (N, K) float32, 1 where the joint is annotated
    score: np.ndarray  # (N,) float32, detection score; 1 for annotated boxes
    category: np.ndarray  # (N,) int64, category id in the annotation file
    paths: np.ndarray  # (M,) bytes, UTF-8
    image_ids: np.ndarray  # (M,) int64

    def __len__(self) -> int:
        return len(self.image)

    def path(self, row: int) -> str:
        """Return the image file of person ``row``."""
        return self.paths[self.image[row]].decode()

    def box(self, row: int) -> np.ndarray:
        """Return the box of person ``row`` before padding: (4,) float32 x, y, width, height."""
        size = self.size[row]
        return np.concatenate([self.center[row] - size / 2, size])

    def select(self, rows: np.ndarray) -> "Table":
        """Return a table of the people in ``rows`` (indices or a mask) with the same images."""
        per_person = {f.name for f in fields(self)} - {"paths", "image_ids"}
        return replace(self, **{name: getattr(self, name)[rows] for name in per_person})


def is_well_centered(table: Table) -> np.ndarray:
    """Return a mask (N,), True for people whose visible joints are centered in the box.

    This is the filter of DATASET.SELECT_DATA. The mean of the joints must be near the center of the
    box; the more joints are visible, the nearer it must be. Source: ``select_data`` in
    lib/dataset/JointsDataset.py of the HRNet repository.
    """
    count = table.visible.sum(1)
    mean = (table.joints * table.visible[..., None]).sum(1) / np.maximum(count, 1)[:, None]
    area = table.scale.prod(1) * PIXEL_STD**2
    distance = ((mean - table.center) ** 2).sum(1)
    closeness = np.exp(-distance / (0.2**2 * 2.0 * area))
    return (count > 0) & (closeness > 0.2 / 16 * count + 0.45 - 0.2 / 16)
