"""Predictor: the people in users' images."""

from collections.abc import Callable, Sequence
from pathlib import Path

import cv2
import numpy as np
import torch
from yacs.config import CfgNode

from lib.config import load_config, skeleton_of
from lib.core import build_task
from lib.core.backends import Backend, build_backend
from lib.dataset.image import check_size, read_image
from lib.dataset.loading import to_device
from lib.keypoints.geometry import is_valid_box
from lib.keypoints.poses import Poses
from lib.models import built_in
from lib.utils.errors import InputError

Image = str | Path | np.ndarray
Boxes = Sequence[Sequence[float]] | np.ndarray
Detector = Callable[[list[np.ndarray]], list[tuple[np.ndarray, np.ndarray]]]


class Predictor:
    """Finds keypoints in images; ``Predictor()`` uses the network that comes with the project
    (models/hrpose/), for COCO's 17 joints.

    Args:
        cfg: the experiment, by lib.config.load_config; by default the built-in network's.
        weights: a checkpoint's path or a state dict, in any layout that ``load_checkpoint`` knows,
            or the path of a file of ``tools/export.py``. By default TEST.MODEL_FILE of ``cfg``,
            and without ``cfg`` the built-in weights.
        device: by default the first GPU, else the CPU.
        detector: finds people where no boxes are given: called with a list of (H, W, 3) uint8 RGB
            images, it returns one pair of boxes (N, 4) x, y, width, height and scores (N,) for each
            image, as those of lib.media.detectors do.
        precision: float32, or bfloat16 where device and backend have it.
        backend: runs the network in place of ``weights`` (lib/core/backends.py).

    Raises:
        InputError: weights without ``cfg``; ``cfg`` without weights or TEST.MODEL_FILE; a file that
            cannot be read or does not fit.
    """

    def __init__(
        self,
        cfg: CfgNode | None = None,
        weights: str | Path | dict | None = None,
        device: torch.device | str | None = None,
        detector: Detector | None = None,
        precision: str = "float32",
        backend: Backend | None = None,
    ) -> None:
        cfg, weights = _experiment(cfg, weights, backend)
        self.skeleton = skeleton_of(cfg)
        if len(self.skeleton) != cfg.MODEL.NUM_JOINTS:
            raise InputError(
                f"MODEL.NUM_JOINTS: is {cfg.MODEL.NUM_JOINTS}, but {cfg.DATASET.DATASET} has "
                f"{len(self.skeleton)} joints"
            )
        device = device or ("cuda" if torch.cuda.is_available() else "cpu")
        backend = backend or build_backend(cfg, self.skeleton, weights, device, precision)
        self._task = build_task(cfg, backend)
        self._task.eval()
        self._detector = detector
        self._batch_size = cfg.TEST.BATCH_SIZE_PER_GPU

    @property
    def names(self) -> tuple[str, ...]:
        """The joints, in the order of everybody's keypoints."""
        return self.skeleton.names

    def __call__(
        self,
        image: Image | Sequence[Image],
        boxes: Boxes | Sequence[Boxes | None] | None = None,
        box_scores: Sequence[float] | Sequence[Sequence[float] | None] | None = None,
    ) -> Poses | list[Poses]:
        """The people in ``boxes``, in that order; for a list of images, a list with a ``Poses`` for
        each. All people of all images share batches of TEST.BATCH_SIZE_PER_GPU.

        Args:
            image: a file, turned upright as its EXIF header says, or (H, W, 3) uint8 RGB; or a list
                or tuple of these.
            boxes: (N, 4) x, y, width, height in pixels, for several images one such for each. None
                takes what the detector finds, and without a detector the whole image as one person.
            box_scores: (N,) the scores of the boxes, for several images one such for each; by
                default 1.

        Raises:
            InputError: an image cannot be read, or a box has no area.
        """
        if not isinstance(image, (list, tuple)):
            return self._of_images([image], [boxes], [box_scores])[0]
        wanted = [None] * len(image) if boxes is None else boxes
        if len(wanted) != len(image):
            raise InputError(
                f"boxes: there are {len(wanted)} lists of boxes for {len(image)} images; give one "
                "for each, or None"
            )
        scores = [None] * len(image) if box_scores is None else box_scores
        return self._of_images(image, wanted, scores)

    @torch.inference_mode()
    def _of_images(
        self,
        images: Sequence[Image],
        boxes: Sequence[Boxes | None],
        box_scores: Sequence[np.ndarray | None],
    ) -> list[Poses]:
        pictures = [_as_bgr(image) for image in images]
        areas, scores = self._areas(pictures, boxes, box_scores)
        found = [Poses.empty(len(self.skeleton))]
        for batch in self._task.batches(pictures, areas, scores, self._batch_size):
            batch = to_device(batch, self._task.device)
            found.append(self._task.predict(self._task.forward(batch), batch).numpy())
        poses = Poses.concatenate(found)
        poses.check_finite()
        return [poses[poses.image == number] for number in range(len(images))]

    def _areas(
        self,
        pictures: list[np.ndarray],
        boxes: Sequence[Boxes | None],
        box_scores: Sequence[np.ndarray | None],
    ) -> tuple[list[np.ndarray], list[np.ndarray]]:
        """For each image its boxes (N, 4), given, found or the whole image, and their scores
        (N,)."""
        areas = [None if one is None else _checked(one) for one in boxes]
        counts = [0 if area is None else len(area) for area in areas]
        scores = list(map(_checked_scores, box_scores, counts))
        missing = [number for number, one in enumerate(areas) if one is None]
        if self._detector is None:
            found = [(_whole(pictures[number]), np.ones(1)) for number in missing]
        elif missing:
            rgb = [cv2.cvtColor(pictures[number], cv2.COLOR_BGR2RGB) for number in missing]
            found = self._detector(rgb)
        else:
            found = []
        for number, (area, score) in zip(missing, found, strict=True):
            areas[number] = _checked(area)
            scores[number] = _checked_scores(score, len(area))
        return areas, scores


def _experiment(
    cfg: CfgNode | None, weights: str | Path | dict | None, backend: Backend | None
) -> tuple[CfgNode, str | Path | dict | None]:
    """The configuration and the weights; what is None is filled in."""
    if weights is not None and backend is not None:
        raise InputError("backend: replaces weights; give one of them")
    if cfg is None:
        if weights is not None or backend is not None:
            raise InputError("weights: also give cfg, the experiment they were trained with")
        return load_config(built_in.EXPERIMENT), built_in.WEIGHTS
    if weights is None and backend is None:
        weights = cfg.TEST.MODEL_FILE
        if not weights:
            raise InputError("weights: give a file; TEST.MODEL_FILE of cfg names none")
    return cfg, weights


def _checked(boxes: Boxes) -> np.ndarray:
    """``boxes`` as (N, 4) float64, or an InputError."""
    try:
        areas = np.asarray(boxes, np.float64)
    except (ValueError, TypeError) as error:
        raise InputError(f"boxes are (N, 4) numbers: x, y, width, height: {error}") from None
    if areas.size % 4 or (areas.ndim > 1 and areas.shape[-1] != 4):
        raise InputError(f"boxes are (N, 4): x, y, width, height; not {areas.shape}")
    areas = areas.reshape(-1, 4)
    is_right = is_valid_box(areas)
    if not is_right.all():
        number = int(np.flatnonzero(~is_right)[0])
        raise InputError(
            f"box {number} is {areas[number].tolist()}; a box is x, y, width, height, with a width "
            "and height above 0"
        )
    return areas


def _checked_scores(scores: Sequence[float] | None, count: int) -> np.ndarray:
    """The scores of ``count`` boxes, (count,) float64, 1 where None; or an InputError."""
    if scores is None:
        return np.ones(count)
    values = np.asarray(scores, np.float64).reshape(-1)
    if len(values) != count:
        raise InputError(
            f"box_scores: there are {len(values)} for {count} boxes; give one for each"
        )
    return values


def _whole(picture: np.ndarray) -> np.ndarray:
    """The box of a whole picture (1, 4)."""
    return np.array([[0.0, 0.0, picture.shape[1], picture.shape[0]]])


def _as_bgr(image: Image) -> np.ndarray:
    if not isinstance(image, np.ndarray):
        bgr = read_image(str(image), apply_exif=True)
    elif image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8 or not image.size:
        raise InputError(
            f"an image is a (height, width, 3) uint8 array, not {image.shape} {image.dtype}"
        )
    else:
        check_size(image.shape[1::-1], "an image")
        bgr = cv2.cvtColor(image, cv2.COLOR_RGB2BGR)
    return bgr
