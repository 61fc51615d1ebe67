"""Prediction of the keypoints of people in images."""

from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path

import cv2
import numpy as np
import torch
from yacs.config import CfgNode

from lib.config import load_config, skeleton_of
from lib.core import build_task
from lib.core.backends import Backend, build_backend
from lib.dataset.bottom_up import is_too_long
from lib.dataset.image import check_size, read_image
from lib.dataset.loading import to_device
from lib.keypoints.geometry import corners_to_boxes, is_valid_box
from lib.keypoints.poses import Poses
from lib.models import shipped
from lib.utils.errors import InputError

BOX_MARGIN = 0.07  # relative to the longer side; people extend beyond the box of their keypoints
PERSON_THRESHOLD = 0.1  # minimum score of a person, which is the mean of the joints' scores

Image = str | Path | np.ndarray
Boxes = Sequence[Sequence[float]] | np.ndarray
Detector = Callable[[list[np.ndarray]], list[tuple[np.ndarray, np.ndarray]]]


class Predictor:
    """Predictor of the keypoints of people in images.

    ``Predictor()`` uses the built-in networks (models/hrpose/) for COCO's 17 joints, and finds
    people by itself.

    Args:
        cfg: configuration from ``load_config``, or the path of the YAML file. Default: that of the
            built-in top-down network.
        weights: a state dict or the path of a checkpoint, in any layout that ``load_checkpoint``
            reads, or the path of a file written by ``tools/export.py``. Default: TEST.MODEL_FILE
            of ``cfg``; without ``cfg``, the built-in weights.
        device: the device to run on. Default: the first GPU, or the CPU if there is none.
        detector: finds people in images given without boxes. It takes a list of (H, W, 3) uint8
            RGB images and returns (boxes, scores) for each: boxes (N, 4) as x, y, width, height,
            and scores (N,). See lib/media/detectors.py. Default without ``cfg``: the built-in
            bottom-up network.
        precision: ``float32``, ``bfloat16`` or, on a GPU, ``float16``.
        backend: a backend (lib/core/backends.py) to use instead of building one from ``weights``.

    Raises:
        InputError: arguments are missing or exclude each other, a file cannot be read or does not
            match the experiment, or the precision is not supported.
    """

    def __init__(
        self,
        cfg: CfgNode | str | Path | None = None,
        weights: str | Path | dict | None = None,
        device: torch.device | str | None = None,
        detector: Detector | None = None,
        precision: str = "float32",
        backend: Backend | None = None,
    ) -> None:
        if cfg is None and detector is None:
            detector = PersonDetector(device, precision)
        cfg, weights = _with_defaults(cfg, weights, backend)
        self.skeleton = skeleton_of(cfg)
        if len(self.skeleton) != cfg.MODEL.NUM_JOINTS:
            raise InputError(
                f"MODEL.NUM_JOINTS is {cfg.MODEL.NUM_JOINTS}, but {cfg.DATASET.DATASET} has "
                f"{len(self.skeleton)} joints"
            )
        device = device or ("cuda" if torch.cuda.is_available() else "cpu")
        backend = backend or build_backend(cfg, self.skeleton, weights, device, precision)
        self._task = build_task(cfg, backend)
        self._task.eval()
        if detector is not None and not self._task.uses_boxes:
            raise InputError("detector: this network finds people by itself; remove the detector")
        self._detector = detector
        self._batch_size = cfg.TEST.BATCH_SIZE_PER_GPU

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the joints, in the order of the keypoints."""
        return self.skeleton.names

    def __call__(
        self,
        image: Image | Sequence[Image],
        boxes: Boxes | Sequence[Boxes | None] | None = None,
        box_scores: Sequence[float] | Sequence[Sequence[float] | None] | None = None,
    ) -> Poses | list[Poses]:
        """Predict the keypoints of the person in each box, in the order of ``boxes``.

        For a top-down network, the people of all images share batches of
        TEST.BATCH_SIZE_PER_GPU.

        Args:
            image: the path of a file, which is rotated by its EXIF orientation, or an (H, W, 3)
                uint8 RGB array, tensor or Pillow image; or a list or tuple of these.
            boxes: (N, 4) x, y, width, height in pixels; a list of these for several images. If
                None, the detector finds the boxes; without a detector, the whole image is one box.
                A bottom-up network (MODEL.TARGET_TYPE tags) finds everybody without boxes.
            box_scores: (N,) scores of the boxes; a list of these for several images. Default: 1.

        Returns:
            A ``Poses``, or a list with one ``Poses`` per image.

        Raises:
            InputError: an image cannot be read, a box has no area, or the numbers of images, boxes
                and scores do not match.
        """
        if not isinstance(image, (list, tuple)):
            return self._predict([image], [boxes], [box_scores])[0]
        given = {"boxes": boxes, "box_scores": box_scores}
        for name, lists in given.items():
            if lists is None:
                given[name] = [None] * len(image)
            elif not isinstance(lists, (Sequence, np.ndarray)):
                raise InputError(
                    f"{name}: must be a list with an entry for each image, not {lists}"
                )
            elif len(lists) != len(image):
                raise InputError(
                    f"{name}: got {len(lists)} lists of {name.removeprefix('box_')} for "
                    f"{len(image)} images; give one list (or None) for each image"
                )
        return self._predict(image, **given)

    @torch.inference_mode()
    def _predict(
        self,
        images: Sequence[Image],
        boxes: Sequence[Boxes | None],
        box_scores: Sequence[np.ndarray | None],
    ) -> list[Poses]:
        if not self._task.uses_boxes and any(given is not None for given in boxes):
            raise InputError("boxes: this network finds people by itself; do not pass boxes")
        bgr_images = [_as_bgr(image) for image in images]
        checked_boxes, scores = self._choose_boxes(bgr_images, boxes, box_scores)
        predicted = [Poses.empty(len(self.skeleton))]
        for batch in self._task.batches(bgr_images, checked_boxes, scores, self._batch_size):
            batch = to_device(batch, self._task.device)
            predicted.append(self._task.predict(self._task.forward(batch), batch).numpy())
        poses = Poses.concatenate(predicted)
        poses.check_finite()
        return [poses[poses.image == index] for index in range(len(images))]

    def _choose_boxes(
        self,
        bgr_images: list[np.ndarray],
        boxes: Sequence[Boxes | None],
        box_scores: Sequence[np.ndarray | None],
    ) -> tuple[list[np.ndarray], list[np.ndarray]]:
        """Return boxes (N, 4) and scores (N,) per image: given, detected, or the whole image."""
        chosen = [None if given is None else _check_boxes(given) for given in boxes]
        counts = [0 if given is None else len(given) for given in chosen]
        scores = list(map(_check_scores, box_scores, counts))
        missing = [index for index, given in enumerate(chosen) if given is None]
        if self._detector is None:
            sizes = [bgr_images[index].shape[1::-1] for index in missing]
            found = [(np.array([[0, 0, *size]], np.float64), np.ones(1)) for size in sizes]
        elif missing:
            rgb = [cv2.cvtColor(bgr_images[index], cv2.COLOR_BGR2RGB) for index in missing]
            found = self._detector(rgb)
        else:
            found = []
        for index, (detected, score) in zip(missing, found, strict=True):
            chosen[index] = _check_boxes(detected)
            scores[index] = _check_scores(score, len(detected))
        return chosen, scores


class PersonDetector:
    """Person detector that uses the built-in bottom-up network, loaded on the first call.

    A box is the bounding box of a person's keypoints, enlarged by ``BOX_MARGIN``, with the person's
    score. If an image is too long and narrow for one pass, its only box is the whole image, with a
    score of 1.

    Args:
        device, precision: as for ``Predictor``.
        threshold: people with a lower score are dropped.
    """

    def __init__(
        self,
        device: torch.device | str | None = None,
        precision: str = "float32",
        threshold: float = PERSON_THRESHOLD,
    ) -> None:
        self._device = device
        self._precision = precision
        self._threshold = threshold

    def __call__(self, images: list[np.ndarray]) -> list[tuple[np.ndarray, np.ndarray]]:
        return [self._find(image) for image in images]

    def _find(self, image: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        height, width = image.shape[:2]
        if is_too_long(width, height):
            return np.array([[0.0, 0.0, width, height]]), np.ones(1)
        poses = self._predictor(image)
        box = poses.box.astype(np.float64)
        margin = BOX_MARGIN * box[:, 2:].max(1, keepdims=True, initial=0)
        corners = np.concatenate([box[:, :2] - margin, box[:, :2] + box[:, 2:] + margin], axis=1)
        is_kept = poses.score >= self._threshold
        return corners_to_boxes(corners[is_kept], poses.score[is_kept], image)

    @cached_property
    def _predictor(self) -> Predictor:
        cfg = load_config(shipped.BOTTOM_UP.experiment)
        weights = shipped.BOTTOM_UP.weights
        return Predictor(cfg, weights, self._device, precision=self._precision)


def _with_defaults(
    cfg: CfgNode | str | Path | None, weights: str | Path | dict | None, backend: Backend | None
) -> tuple[CfgNode, str | Path | dict | None]:
    """Fill in the defaults of the configuration and the weights."""
    if weights is not None and backend is not None:
        raise InputError("backend: give weights or a backend, not both")
    if cfg is None:
        if weights is not None or backend is not None:
            raise InputError(
                "cfg: required with weights or backend; pass the experiment that they belong to"
            )
        return load_config(shipped.TOP_DOWN.experiment), shipped.TOP_DOWN.weights
    if isinstance(cfg, (str, Path)):
        cfg = load_config(cfg)
    if weights is None and backend is None:
        weights = cfg.TEST.MODEL_FILE
        if not weights:
            raise InputError("weights: give a file; TEST.MODEL_FILE of cfg is empty")
    return cfg, weights


def _check_boxes(boxes: Boxes) -> np.ndarray:
    """Return ``boxes`` as (N, 4) float64, or raise an InputError."""
    values = _as_array(boxes, "boxes must be an (N, 4) array of x, y, width, height")
    if not values.ndim or values.size % 4 or (values.ndim > 1 and values.shape[-1] != 4):
        raise InputError(f"boxes must be (N, 4): x, y, width, height; not {values.shape}")
    values = values.reshape(-1, 4)
    is_valid = is_valid_box(values)
    if not is_valid.all():
        index = int(np.flatnonzero(~is_valid)[0])
        raise InputError(
            f"box {index} is {values[index].tolist()}; a box is x, y, width, height, with a width "
            "and height above 0, and all values below a million"
        )
    return values


def _check_scores(scores: Sequence[float] | None, count: int) -> np.ndarray:
    """Return scores (count,) as float64, all 1 if ``scores`` is None, or raise an InputError."""
    if scores is None:
        return np.ones(count)
    values = _as_array(scores, "box_scores must be numbers").reshape(-1)
    if len(values) != count:
        raise InputError(
            f"box_scores: got {len(values)} scores for {count} boxes; give one for each box"
        )
    return values


def _as_array(values: object, expected: str) -> np.ndarray:
    """Return ``values`` as float64, or raise an InputError that begins with ``expected``."""
    if isinstance(values, torch.Tensor):
        values = values.detach().cpu()
    try:
        return np.asarray(values, np.float64)
    except (ValueError, TypeError, OverflowError) as error:
        raise InputError(f"{expected}: {error}") from None


def _as_bgr(image: Image) -> np.ndarray:
    if isinstance(image, torch.Tensor):
        image = image.detach().cpu().numpy()
    elif hasattr(type(image), "__array_interface__"):  # such as a Pillow image
        image = np.asarray(image)
    if not isinstance(image, np.ndarray):
        if not isinstance(image, (str, Path)):
            raise InputError(f"an image must be a path or an array, not a {type(image).__name__}")
        return read_image(str(image), apply_exif=True)
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8 or not image.size:
        raise InputError(
            f"an image must be a (height, width, 3) uint8 array, not {image.shape} {image.dtype}"
        )
    check_size(image.shape[1::-1], "an image")
    return cv2.cvtColor(image, cv2.COLOR_RGB2BGR)
