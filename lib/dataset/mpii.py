"""MPII Human Pose: the JSON annotations of the HRNet code base, scored by PCKh.

Files: ``annot/<set>.json``, ``annot/gt_<set>.mat``, ``images/``. Rules and names:
lib/dataset/mpii.py of leoxiaobin/deep-high-resolution-net.pytorch. The files count pixels from 1,
everything here from 0.
"""

import io
import logging
from collections import OrderedDict
from functools import cached_property
from pathlib import Path

import msgspec
import numpy as np
from scipy.io import loadmat, savemat

from lib.dataset.table import Table
from lib.keypoints.geometry import PIXEL_STD
from lib.keypoints.metrics import PCKH_ROWS, pckh
from lib.keypoints.poses import Poses
from lib.keypoints.skeletons import MPII, Skeleton
from lib.utils.errors import InputError
from lib.utils.files import write_atomically
from lib.utils.reading import read_json

logger = logging.getLogger(__name__)

_HEAD_SIZE_SHARE = 0.6  # PCKh's head size is this share of the head box's diagonal
_ORDER = (
    *("rank", "rkne", "rhip", "lhip", "lkne", "lank", "pelvis", "thorax", "neck", "head"),
    *("rwri", "relb", "rsho", "lsho", "lelb", "lwri"),
)


class _Person(msgspec.Struct, gc=False):
    image: str
    center: tuple[float, float]
    scale: float
    joints: list[tuple[float, float]] = []
    joints_vis: list[float] = []


class MpiiKeypoints:
    """One split (``train``, ``valid``, ``trainval`` or ``test``): its people as a table, and the
    evaluation of predictions.

    Raises:
        InputError: a file is missing or not in this layout.
    """

    def __init__(
        self, root: str, split: str, skeleton: Skeleton = MPII, data_format: str = "jpg"
    ) -> None:
        self.skeleton = skeleton
        self.split = split
        self.has_ground_truth = "test" not in split
        self._folder = Path(root) / "annot"
        path = self._folder / f"{split}.json"
        people = read_json(path, list[_Person], "MPII annotations")
        if not people:
            raise InputError(f"{path}: has no people")
        images = Path(root) / ("images.zip@" if data_format == "zip" else "images")
        if data_format == "png":
            for person in people:
                person.image = str(Path(person.image).with_suffix(".png"))
        self.table = self._table(people, path, images)
        logger.info("=> %s: %d people", path, len(people))

    def _table(self, people: list[_Person], path: Path, folder: Path) -> Table:
        center = np.array([p.center for p in people], np.float64)
        scale = np.array([p.scale for p in people], np.float64)
        size = np.repeat(scale[:, None] * PIXEL_STD, 2, 1)
        # The box is moved down and enlarged so that the feet stay in, except where there is none.
        has_box = center[:, 0] != -1
        center[has_box, 1] += 15 * scale[has_box]
        scale[has_box] *= 1.25
        joints, visible = self._joints(people, path)
        names, image = np.unique([p.image for p in people], return_inverse=True)
        return Table(
            image=image.astype(np.int32),
            center=(center - 1).astype(np.float32),
            scale=np.repeat(scale[:, None], 2, 1).astype(np.float32),
            size=size.astype(np.float32),
            joints=joints,
            visible=visible,
            score=np.ones(len(people), np.float32),
            category=np.ones(len(people), np.int32),
            paths=np.array([f"{folder}/{name}".encode() for name in names]),
            image_ids=np.arange(len(names), dtype=np.int64),
        )

    def _joints(self, people: list[_Person], path: Path) -> tuple[np.ndarray, np.ndarray]:
        count = len(self.skeleton)
        if not self.has_ground_truth:
            return np.zeros((len(people), count, 2), np.float32), np.zeros(
                (len(people), count), np.float32
            )
        for number, person in enumerate(people):
            if len(person.joints) != count or len(person.joints_vis) != count:
                raise InputError(
                    f"{path}: [{number}] ({person.image}) has {len(person.joints)} joints and "
                    f"{len(person.joints_vis)} flags; there must be {count} of each"
                )
        joints = np.array([p.joints for p in people], np.float32) - 1
        return joints, np.array([p.joints_vis for p in people], np.float32)

    def evaluate(self, poses: Poses, output_dir: str) -> tuple[OrderedDict, float]:
        """Write ``pred.mat`` as the original does, and score it by PCKh where there is ground
        truth.

        Args:
            poses: everybody of ``table``, in its order.

        Returns:
            name -> percent, and the mean at 0.5 that decides which network is best.
        """
        if not np.array_equal(poses.row, np.arange(len(self.table))):
            raise ValueError(f"must be all {len(self.table)} people in the table's order")
        predicted = poses.keypoints.astype(np.float64) + 1.0
        buffer = io.BytesIO()
        savemat(buffer, {"preds": predicted})
        write_atomically(Path(output_dir) / "pred.mat", buffer.getvalue())
        if not self.has_ground_truth:
            return OrderedDict(Null=0.0), 0.0
        values = pckh(predicted, *self.ground_truth)
        return values, values["Mean"]

    def rows_to_draw(self, poses: Poses) -> np.ndarray:
        """The numbers of the people worth drawing: everybody, since all boxes are annotated."""
        return np.arange(len(poses))

    @cached_property
    def ground_truth(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Joints (N, 16, 2), flags of missing ones (N, 16) and head sizes (N,) of gt_<set>.mat.

        Raises:
            InputError: the file is missing, broken or made for other people.
        """
        path = self._folder / f"gt_{self.split}.mat"
        try:
            file = loadmat(io.BytesIO(path.read_bytes()))
            names = tuple(str(np.ravel(name)[0]) for name in np.ravel(file["dataset_joints"]))
            corners = file["headboxes_src"].astype(np.float64)
            joints = file["pos_gt_src"].transpose(2, 0, 1).astype(np.float64)
            missing = file["jnt_missing"].T
        except FileNotFoundError:
            raise InputError(f"{path}: there is no such file; PCKh needs it") from None
        except Exception as error:  # a damaged file can fail in any way
            raise InputError(f"{path}: not MPII's ground truth: {error}") from None
        people, number = len(joints), len(self.skeleton)
        shapes = (joints.shape[1:], missing.shape, corners.shape)
        if shapes != ((number, 2), (people, number), (2, 2, people)):
            raise InputError(f"{path}: its arrays do not fit each other: {shapes}")
        if people != len(self.table):
            raise InputError(
                f"{path}: has {people} people, {self.split}.json has {len(self.table)}"
            )
        if any(names[j : j + 1] != _ORDER[j : j + 1] for row in PCKH_ROWS.values() for j in row):
            raise InputError(
                f"{path}: its joints are {', '.join(names)}; right is {', '.join(_ORDER)}"
            )
        return joints, missing, np.linalg.norm(corners[1] - corners[0], axis=0) * _HEAD_SIZE_SHARE
