"""Keypoints of the people in a picture."""

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch
from yacs.config import CfgNode

from lib.config import load_config, skeleton_of
from lib.core.backends import Backend, build_backend
from lib.dataset import crops_are_aligned
from lib.dataset.image import check_size, read_image
from lib.dataset.top_down import crop
from lib.keypoints.geometry import box_to_center_scale, crop_matrix, is_box, to_image
from lib.models import built_in
from lib.utils.errors import InputError

Image = str | Path | np.ndarray
Boxes = Sequence[Sequence[float]] | np.ndarray
Detector = Callable[[list[np.ndarray]], list[tuple[np.ndarray, np.ndarray]]]

_NOBODY = np.zeros((0, 4))


@dataclass
class Person:
    """keypoints: (K, 2) image pixels; scores: (K,); box: (4,) x, y, width, height; score: mean of
    the scores; box_score: the detector's, 1 where the box was given."""

    keypoints: np.ndarray
    scores: np.ndarray
    box: np.ndarray
    score: float
    box_score: float = 1.0


class Predictor:
    """A trained experiment, ready for pictures; ``Predictor()`` is the network that comes with the
    project (models/hrpose/), for COCO's 17 joints.

    Args:
        cfg: the experiment, by lib.config.load_config; by default the built-in network's.
        weights: a checkpoint's path or a state dict, in any layout that ``load_checkpoint`` knows;
            a file of ``tools/export.py``, told by its suffix; or a backend (lib/core/backends.py).
            By default TEST.MODEL_FILE of ``cfg``, and without ``cfg`` the built-in weights.
        device: by default the first GPU, else the CPU.
        detector: finds people where no boxes are given: called with a list of (H, W, 3) uint8 RGB
            images it gives for each boxes (N, 4) x, y, width, height and scores (N,), as those of
            lib.media.detectors do.
        precision: float32, or bfloat16 where device and backend have it.

    Raises:
        InputError: weights without ``cfg``; ``cfg`` without weights or TEST.MODEL_FILE; a file that
            cannot be read or does not fit.
    """

    def __init__(
        self,
        cfg: CfgNode | None = None,
        weights: str | Path | dict | Backend | None = None,
        device: torch.device | str | None = None,
        detector: Detector | None = None,
        precision: str = "float32",
    ) -> None:
        cfg, weights = _experiment(cfg, weights)
        self._detector = detector
        self.skeleton = skeleton_of(cfg)
        if len(self.skeleton) != cfg.MODEL.NUM_JOINTS:
            raise InputError(
                f"MODEL.NUM_JOINTS: is {cfg.MODEL.NUM_JOINTS}, but {cfg.DATASET.DATASET} has "
                f"{len(self.skeleton)} joints"
            )
        device = device or ("cuda" if torch.cuda.is_available() else "cpu")
        self._backend = (
            weights
            if callable(weights)
            else build_backend(cfg, self.skeleton, weights, device, precision)
        )
        self._size = (cfg.MODEL.IMAGE_SIZE[0], cfg.MODEL.IMAGE_SIZE[1])
        self._is_aligned = crops_are_aligned(cfg)
        self._batch_size = cfg.TEST.BATCH_SIZE_PER_GPU

    @property
    def names(self) -> tuple[str, ...]:
        """The joints, in the order of everybody's keypoints."""
        return self.skeleton.names

    def __call__(
        self, image: Image | Sequence[Image], boxes: Boxes | Sequence[Boxes | None] | None = None
    ) -> list[Person] | list[list[Person]]:
        """The people in ``boxes``, in that order; of several images a list for each.

        All people of all images share batches of TEST.BATCH_SIZE_PER_GPU.

        Args:
            image: a file, turned upright as its EXIF header says, or (H, W, 3) uint8 RGB; or a list
                or tuple of these.
            boxes: (N, 4) x, y, width, height in pixels, for several images one such for each. None
                takes what the detector finds, and without a detector the whole image as one person.

        Raises:
            InputError: an image cannot be read, or a box has no area.
        """
        if not isinstance(image, (list, tuple)):
            return self._of_images([image], [boxes])[0]
        wanted = [None] * len(image) if boxes is None else boxes
        if len(wanted) != len(image):
            raise InputError(
                f"boxes: there are {len(wanted)} lists of boxes for {len(image)} images; give one "
                "for each, or None"
            )
        return self._of_images(image, wanted)

    def _of_images(
        self, images: Sequence[Image], boxes: Sequence[Boxes | None]
    ) -> list[list[Person]]:
        pictures = [_as_bgr(image) for image in images]
        areas, scores = self._areas(pictures, boxes)
        counts = [len(area) for area in areas]
        pictures = [p for p, count in zip(pictures, counts, strict=True) for _ in range(count)]
        everybody, box_scores = np.concatenate([*areas, _NOBODY]), np.concatenate([*scores, []])
        center, scale = box_to_center_scale(everybody, self._size[0] / self._size[1])
        people: list[Person] = []
        for start in range(0, len(everybody), self._batch_size):
            part = slice(start, start + self._batch_size)
            people += self._people(pictures[part], everybody[part], center[part], scale[part])
        for person, score in zip(people, box_scores, strict=True):
            person.box_score = float(score)
        in_turn = iter(people)
        return [list(itertools.islice(in_turn, count)) for count in counts]

    def _areas(
        self, pictures: list[np.ndarray], boxes: Sequence[Boxes | None]
    ) -> tuple[list[np.ndarray], list[np.ndarray]]:
        """For each picture its boxes (N, 4), given, found or the whole picture, and their scores
        (N,)."""
        areas = [None if one is None else _checked(one) for one in boxes]
        scores = [np.ones(0 if one is None else len(one)) for one in areas]
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
            scores[number] = np.asarray(score, np.float64).reshape(-1)
        return areas, scores

    def _people(
        self, pictures: list[np.ndarray], boxes: np.ndarray, center: np.ndarray, scale: np.ndarray
    ) -> list[Person]:
        """One batch: of each person the picture in BGR, the box, and the crop's place."""
        crops = np.stack(
            [
                crop(bgr, crop_matrix(c, s, 0.0, self._size, self._is_aligned), self._size)
                for bgr, c, s in zip(pictures, center, scale, strict=True)
            ]
        )
        places, scores = self._backend(torch.from_numpy(crops))
        if not (places.isfinite().all() and scores.isfinite().all()):
            raise InputError("the network's answers are not finite numbers: its weights are spoilt")
        boxes_there = torch.from_numpy(center), torch.from_numpy(scale)
        places = to_image(places, *boxes_there, self._size, self._is_aligned)
        return [
            Person(place, score, box, float(score.mean()))
            for place, score, box in zip(places.numpy(), scores.numpy(), boxes, strict=True)
        ]


def _experiment(
    cfg: CfgNode | None, weights: str | Path | dict | Backend | None
) -> tuple[CfgNode, str | Path | dict | Backend]:
    """The complete configuration and the weights; what is None is filled in."""
    if cfg is None:
        if weights is not None:
            raise InputError("weights: also give cfg, the experiment they were trained with")
        cfg, weights = load_config(built_in.EXPERIMENT), built_in.WEIGHTS
    elif weights is None:
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
    is_right = is_box(areas)
    if not is_right.all():
        number = int(np.flatnonzero(~is_right)[0])
        raise InputError(
            f"box {number} is {areas[number].tolist()}; a box is x, y, width, height with an area"
        )
    return areas


def _whole(picture: np.ndarray) -> np.ndarray:
    """The box of a whole picture (1, 4)."""
    return np.array([[0.0, 0.0, picture.shape[1], picture.shape[0]]])


def _as_bgr(image: Image) -> np.ndarray:
    if not isinstance(image, np.ndarray):
        bgr = read_image(str(image), is_upright=True)
    elif image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8 or not image.size:
        raise InputError(
            f"an image is a (height, width, 3) uint8 array, not {image.shape} {image.dtype}"
        )
    else:
        check_size(image.shape[1::-1], "an image")
        bgr = cv2.cvtColor(image, cv2.COLOR_RGB2BGR)
    return bgr
