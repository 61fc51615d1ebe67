"""MPII Human Pose, with the JSON annotations of the HRNet repository; evaluated by PCKh.

Files: ``annot/<split>.json``, ``annot/gt_<split>.mat`` and ``images/``; or mmpose's
``annotations/mpii_<split>.json`` and ``annotations/mpii_gt_val.mat``. Boxes and scoring follow
lib/dataset/mpii.py of leoxiaobin/deep-high-resolution-net.pytorch. Coordinates are 1-based in the
files and 0-based here.
"""

import io
import logging
from functools import cached_property
from pathlib import Path

import msgspec
import numpy as np
from scipy.io import loadmat, savemat

from lib.dataset.coco_json import Number
from lib.dataset.image import image_paths
from lib.dataset.table import Table
from lib.keypoints.geometry import PIXEL_STD
from lib.keypoints.metrics import PCKH_COLUMNS, pckh
from lib.keypoints.poses import Poses
from lib.keypoints.skeletons import MPII
from lib.utils.errors import InputError
from lib.utils.files import first_existing, read_regular, write_atomically
from lib.utils.logs import counted_people
from lib.utils.reading import read_json

logger = logging.getLogger(__name__)

_HEAD_SIZE_RATIO = 0.6  # head size in PCKh, as a fraction of the head box's diagonal
# Joint names in the ground truth file, in order.
_GROUND_TRUTH_JOINTS = (
    *("rank", "rkne", "rhip", "lhip", "lkne", "lank", "pelvis", "thorax", "neck", "head"),
    *("rwri", "relb", "rsho", "lsho", "lelb", "lwri"),
)


class _Person(msgspec.Struct, gc=False):
    image: str
    center: tuple[Number, Number]
    scale: Number
    joints: list[tuple[Number, Number]] = []
    joints_vis: list[Number] = []


class MpiiKeypoints:
    """One split of MPII: a table of people, and the evaluation of predictions.

    Args:
        root: folder of the data set.
        split: ``train``, ``valid``, ``trainval`` or ``test``.
        data_format: ``jpg``, ``png`` or ``zip``.

    Raises:
        InputError: if a file is missing or malformed.
    """

    metric = "PCKh"
    skeleton = MPII

    def __init__(self, root: str, split: str, data_format: str = "jpg") -> None:
        self.split = split
        self.has_ground_truth = "test" not in split
        short = split.replace("valid", "val")  # mmpose's name
        path = first_existing(root, [f"annot/{split}.json", f"annotations/mpii_{short}.json"])
        mat_files = [f"annot/gt_{split}.mat", f"annotations/mpii_gt_{short}.mat"]
        self._ground_truth_file = first_existing(root, mat_files)
        people = read_json(path, list[_Person], "MPII annotations")
        if not people:
            raise InputError(f"{path}: lists no people")
        names, image = np.unique([p.image for p in people], return_inverse=True)
        paths = image_paths(str(Path(root) / "images"), names, data_format)
        self.table = self._table(people, path, image.astype(np.int32), paths)
        logger.info("=> %s: %s", path, counted_people(len(people)))

    def _table(
        self, people: list[_Person], path: Path, image: np.ndarray, paths: np.ndarray
    ) -> Table:
        center = np.array([p.center for p in people], np.float64)
        scale = np.array([p.scale for p in people], np.float64)
        size = np.repeat(scale[:, None] * PIXEL_STD, 2, 1)
        # As in the published code, move the box down and enlarge it, so that no limb is cut off. If
        # x is -1, there is no box.
        has_box = center[:, 0] != -1
        center[has_box, 1] += 15 * scale[has_box]
        scale[has_box] *= 1.25
        joints, visible = self._joints(people, path)
        return Table(
            image=image,
            center=(center - 1).astype(np.float32),
            scale=np.repeat(scale[:, None], 2, 1).astype(np.float32),
            size=size.astype(np.float32),
            joints=joints,
            visible=visible,
            score=np.ones(len(people), np.float32),
            category=np.ones(len(people), np.int64),
            paths=paths,
            image_ids=np.arange(len(paths), dtype=np.int64),
        )

    def _joints(self, people: list[_Person], path: Path) -> tuple[np.ndarray, np.ndarray]:
        count = len(self.skeleton)
        if not self.has_ground_truth:
            shape = len(people), count
            return np.zeros((*shape, 2), np.float32), np.zeros(shape, np.float32)
        for number, person in enumerate(people):
            if len(person.joints) != count or len(person.joints_vis) != count:
                raise InputError(
                    f"{path}: [{number}] ({person.image}) has {len(person.joints)} joints and "
                    f"{len(person.joints_vis)} visibility flags; expected {count} of each"
                )
        joints = np.array([p.joints for p in people], np.float32) - 1
        return joints, np.array([p.joints_vis for p in people], np.float32)

    def evaluate(self, poses: Poses, output_dir: str) -> tuple[dict, float]:
        """Write ``pred.mat`` as the HRNet code does, and compute PCKh.

        In the file, the joints of people in broken images are NaN.

        Returns:
            Metrics by name in percent, and the metric that selects the best checkpoint (mean
            PCKh@0.5). Without ground truth: ``{"Null": 0}`` and 0.
        """
        predicted = np.full((len(self.table), len(self.skeleton), 2), np.nan)
        predicted[poses.row] = poses.keypoints.astype(np.float64) + 1.0
        buffer = io.BytesIO()
        savemat(buffer, {"preds": predicted})
        write_atomically(Path(output_dir) / "pred.mat", buffer.getvalue())
        if not self.has_ground_truth:
            return {"Null": 0.0}, 0.0
        values = pckh(predicted, *self.ground_truth)
        return values, values["Mean"]

    def rows_to_draw(self, poses: Poses) -> np.ndarray:
        """Return the rows of ``poses`` that are worth drawing.

        These are all, because MPII is tested with annotated boxes: there are no duplicates.
        """
        return np.arange(len(poses))

    @cached_property
    def ground_truth(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Joints (N, 16, 2), flags of missing joints (N, 16) and head sizes (N,).

        Raises:
            InputError: if the file is missing, broken, or does not match the split.
        """
        path = self._ground_truth_file
        try:
            file = loadmat(io.BytesIO(read_regular(path)))
            names = tuple(str(np.ravel(name)[0]) for name in np.ravel(file["dataset_joints"]))
            corners = file["headboxes_src"].astype(np.float64)
            joints = file["pos_gt_src"].transpose(2, 0, 1).astype(np.float64)
            missing = file["jnt_missing"].T
        except FileNotFoundError:
            raise InputError(f"{path}: file not found; it is needed to compute PCKh") from None
        except Exception as error:  # a damaged file can raise anything
            raise InputError(f"{path}: not an MPII ground truth file: {error}") from None
        people, num_joints = len(joints), len(self.skeleton)
        shapes = (joints.shape[1:], missing.shape, corners.shape)
        if shapes != ((num_joints, 2), (people, num_joints), (2, 2, people)):
            raise InputError(f"{path}: inconsistent array shapes: {shapes}")
        if people != len(self.table):
            raise InputError(f"{path} has {people} people, {self.split}.json has {len(self.table)}")
        # Only the joints that PCKh uses must match. ``names`` may be too short to be indexed.
        used = [j for columns in PCKH_COLUMNS.values() for j in columns]
        if any(names[j : j + 1] != _GROUND_TRUTH_JOINTS[j : j + 1] for j in used):
            raise InputError(
                f"{path}: its joints are {', '.join(names)}; expected "
                f"{', '.join(_GROUND_TRUTH_JOINTS)}"
            )
        return joints, missing, np.linalg.norm(corners[1] - corners[0], axis=0) * _HEAD_SIZE_RATIO
