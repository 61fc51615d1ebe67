"""Detectors: images in, boxes of people out, one forward pass for all images of a call.

A detector is any callable that takes a list of (H, W, 3) uint8 RGB images and returns for each its
boxes (N, 4), x, y, width, height in pixels, and their scores (N,). Those here put the best first.
"""

from collections.abc import Sequence
from enum import Enum
from pathlib import Path

import numpy as np
import torch
import torchvision
from torchvision.models import detection

from lib.core.inference import Detector
from lib.media.boxes import inside
from lib.media.onnx_detector import ONNX_DETECTORS, read_settings
from lib.utils.errors import InputError
from lib.utils.zoo import DETECTORS, download_hint

PERSON = "person"
NO_CLASSES = ("__background__", "N/A")  # of torchvision's names of COCO's classes
# Their weights COCO_V1 were trained with batch norms that add no eps, which torchvision's builders
# see to only where they load the weights themselves (overwrite_eps in faster_rcnn.py and others).
WITHOUT_EPS = frozenset(
    f"{name}_resnet50_fpn" for name in ("fasterrcnn", "keypointrcnn", "maskrcnn", "retinanet")
)


def build_detector(
    name: str,
    weights: str = "",
    threshold: float | None = None,
    classes: Sequence[str] = (),
    device: torch.device | str = "cpu",
) -> Detector:
    """The detector called ``name``.

    Args:
        name: one of torchvision's detection models, or the YAML of a YOLOX or RT-DETR in an ONNX
            file (docs/demo.md).
        weights: a local file; for torchvision's also a name of its weights, such as COCO_V1. ''
            takes the file in models/detectors/, else torchvision's own loader; of an ONNX detector
            the file that the YAML names.
        threshold: boxes with a lower score are left out; None: 0.5, or what the YAML says.
        classes: names or numbers of the wanted classes; none: people.

    Raises:
        InputError: there is no such detector, or its weights are not here; the message says where
            to get them.
    """
    if Path(name).suffix in (".yaml", ".yml"):
        settings = read_settings(name)
        settings.model = weights or settings.model
        settings.threshold = settings.threshold if threshold is None else threshold
        numbers = _class_numbers(settings.classes or _coco_classes(), classes)
        return ONNX_DETECTORS[settings.kind](settings, numbers, torch.device(device))
    return TorchvisionDetector(
        name, weights, 0.5 if threshold is None else threshold, classes, device
    )


def _coco_classes() -> list[str]:
    """COCO's 80 classes, as detectors without a background class number them."""
    names = detection.FasterRCNN_ResNet50_FPN_Weights.DEFAULT.meta["categories"]
    return [name for name in names if name not in NO_CLASSES]


class TorchvisionDetector:
    """One of torchvision's detection models; arguments as in ``build_detector``."""

    def __init__(
        self,
        name: str,
        weights: str = "",
        threshold: float = 0.5,
        classes: Sequence[str] = (),
        device: torch.device | str = "cpu",
    ) -> None:
        known = torchvision.models.list_models(module=detection)
        if name not in known:
            raise InputError(
                f"--detector: there is no {name!r}; it is none, the YAML of an ONNX detector, or "
                f"one of torchvision's: {', '.join(known)}"
            )
        enum = torchvision.models.get_model_weights(name)
        self._classes = _class_numbers(enum.DEFAULT.meta["categories"], classes)
        self._threshold = threshold
        self._device = torch.device(device)
        entry, state = _load(name, enum, weights)
        # No weights, neither of the whole nor of its backbone: the state dict has them all.
        model = torchvision.models.get_model(name, weights=None, weights_backbone=None)
        try:
            model.load_state_dict(state)
        except (RuntimeError, TypeError, AttributeError):
            raise InputError(
                f"--detector-weights: {weights or 'the file'} does not hold {name}'s state dict"
            ) from None
        if name in WITHOUT_EPS and entry is not None and entry.name == "COCO_V1":
            for module in model.modules():
                if isinstance(module, torch.nn.BatchNorm2d):
                    module.eps = 0.0
        self._model = model.to(self._device).eval()

    @torch.inference_mode()
    def __call__(self, images: list[np.ndarray]) -> list[tuple[np.ndarray, np.ndarray]]:
        """Boxes and scores of each image, as this module says."""
        if not images:
            return []
        tensors = [
            torch.from_numpy(np.ascontiguousarray(image)).to(self._device).permute(2, 0, 1) / 255
            for image in images
        ]
        found = self._model(tensors)
        return [self._people(one, image) for one, image in zip(found, images, strict=True)]

    def _people(self, found: dict, image: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        labels, scores = found["labels"].cpu().numpy(), found["scores"].cpu().numpy()
        is_wanted = np.isin(labels, self._classes) & (scores >= self._threshold)
        return inside(found["boxes"].cpu().numpy()[is_wanted], scores[is_wanted], image)


def _class_numbers(names: Sequence[str], wanted: Sequence[str]) -> list[int]:
    """The numbers of the classes ``wanted``, by number or by name."""
    numbers = []
    for one in wanted or (PERSON,):
        if one in names:
            numbers.append(names.index(one))
        elif one.isdecimal() and int(one) < len(names):
            numbers.append(int(one))
        else:
            there = ", ".join(name for name in names if name not in NO_CLASSES)
            raise InputError(f"--detector-classes: there is no {one!r}; there are {there}")
    return numbers


def _load(name: str, enum: type, weights: str) -> tuple[Enum | None, dict]:
    """The state dict of a model of torchvision, and which of its published weights it is."""
    entry = enum.DEFAULT if weights in ("", "DEFAULT") else enum.__members__.get(weights)
    path = Path(DETECTORS, Path(entry.url).name) if entry else Path(weights)
    if path.exists():
        published = {Path(one.url).name: one for one in enum}
        try:
            state = torch.load(path, map_location="cpu", weights_only=True)
            return published.get(path.name), state
        except Exception as error:  # what torch raises for a damaged file is not documented
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise InputError(f"{path}: cannot be read as weights: {reason}") from None
    if entry is None:
        known = ", ".join(enum.__members__)
        raise InputError(
            f"--detector-weights: {weights}: there is no such file, and {name} has no weights of "
            f"that name{download_hint(path) or f'; name one of {known}'}"
        )
    try:
        return entry, entry.get_state_dict(progress=True, check_hash=True)
    except (OSError, RuntimeError) as error:  # no network; another file than was promised
        raise InputError(
            f"--detector: the weights of {name} cannot be downloaded ({error})"
            f"{download_hint(path) or f'; get {entry.url} and put it at {path}'}"
        ) from None
