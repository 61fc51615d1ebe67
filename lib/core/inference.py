"""Keypoints of the people in a picture."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from yacs.config import CfgNode

from lib.core.engines import Engine, build_engine
from lib.dataset import crops_are_aligned
from lib.dataset.image import read_image
from lib.dataset.skeletons import skeleton_of
from lib.dataset.top_down import crop
from lib.dataset.transforms import box_to_center_scale, crop_matrix, to_image
from lib.utils.errors import InputError


@dataclass
class Person:
    """keypoints: (K, 2) image pixels; scores: (K,); box: (4,) x, y, width, height; score: mean of
    the scores."""

    keypoints: np.ndarray
    scores: np.ndarray
    box: np.ndarray
    score: float


class Predictor:
    """A trained experiment, ready for pictures.

    Args:
        cfg: the experiment, by lib.config.load_config.
        weights: a checkpoint's path or a state dict, in any layout that ``load_checkpoint`` knows;
            a file of ``tools/export.py``, told by its suffix; or an engine (lib/core/engines.py).
        device: by default the first GPU, else the CPU.
        precision: float32, or bfloat16 where device and engine have it.
    """

    def __init__(
        self,
        cfg: CfgNode,
        weights: str | Path | dict | Engine,
        device: torch.device | str | None = None,
        precision: str = "float32",
    ) -> None:
        self.skeleton = skeleton_of(cfg.DATASET.DATASET)
        if len(self.skeleton) != cfg.MODEL.NUM_JOINTS:
            raise InputError(
                f"MODEL.NUM_JOINTS: is {cfg.MODEL.NUM_JOINTS}, but {cfg.DATASET.DATASET} has "
                f"{len(self.skeleton)} joints"
            )
        device = device or ("cuda" if torch.cuda.is_available() else "cpu")
        self._engine = (
            weights
            if callable(weights)
            else build_engine(cfg, self.skeleton, weights, device, precision)
        )
        self._size = (cfg.MODEL.IMAGE_SIZE[0], cfg.MODEL.IMAGE_SIZE[1])
        self._is_aligned = crops_are_aligned(cfg)
        self._batch_size = cfg.TEST.BATCH_SIZE_PER_GPU

    def __call__(
        self, image: str | Path | np.ndarray, boxes: Sequence[Sequence[float]] | None = None
    ) -> list[Person]:
        """The people in ``boxes``, in that order.

        Args:
            image: a file, or (H, W, 3) uint8 RGB.
            boxes: (N, 4) x, y, width, height in pixels; None takes the whole image as one person.

        Raises:
            InputError: the image cannot be read, or a box has no area.
        """
        bgr = _as_bgr(image)
        if boxes is None:
            boxes = [(0, 0, bgr.shape[1], bgr.shape[0])]
        try:
            areas = np.asarray(boxes, np.float64)
        except (ValueError, TypeError) as error:
            raise InputError(f"boxes are (N, 4) numbers: x, y, width, height: {error}") from None
        if areas.size % 4 or (areas.ndim > 1 and areas.shape[-1] != 4):
            raise InputError(f"boxes are (N, 4): x, y, width, height; not {areas.shape}")
        areas = areas.reshape(-1, 4)
        is_wrong = ~(np.abs(areas) < 1e6).all(1) | (areas[:, 2:] <= 0).any(1)
        if is_wrong.any():
            number = int(np.flatnonzero(is_wrong)[0])
            raise InputError(
                f"box {number} is {areas[number].tolist()}; a box is x, y, width, height with an "
                "area"
            )
        center, scale = box_to_center_scale(areas, self._size[0] / self._size[1])
        people: list[Person] = []
        for start in range(0, len(areas), self._batch_size):
            part = slice(start, start + self._batch_size)
            people += self._people(bgr, areas[part], center[part], scale[part])
        return people

    def _people(
        self, bgr: np.ndarray, boxes: np.ndarray, center: np.ndarray, scale: np.ndarray
    ) -> list[Person]:
        crops = np.stack(
            [
                crop(bgr, crop_matrix(c, s, 0.0, self._size, self._is_aligned), self._size)
                for c, s in zip(center, scale, strict=True)
            ]
        )
        places, scores = self._engine(torch.from_numpy(crops))
        boxes_there = torch.from_numpy(center), torch.from_numpy(scale)
        places = to_image(places, *boxes_there, self._size, self._is_aligned)
        return [
            Person(place, score, box, float(score.mean()))
            for place, score, box in zip(places.numpy(), scores.numpy(), boxes, strict=True)
        ]


def _as_bgr(image: str | Path | np.ndarray) -> np.ndarray:
    if not isinstance(image, np.ndarray):
        return read_image(str(image))
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8 or not image.size:
        raise InputError(
            f"an image is a (height, width, 3) uint8 array, not {image.shape} {image.dtype}"
        )
    return np.ascontiguousarray(image[..., ::-1])
