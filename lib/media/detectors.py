"""Person detectors.

A detector is any callable that takes a list of (H, W, 3) uint8 RGB images and returns a tuple
(boxes, scores) for each: boxes (N, 4) as x, y, width, height in pixels, and scores (N,). The
detectors here sort the boxes by descending score. All images of a call share one forward pass.
There are two exceptions: ONNX files with a fixed batch size, and ``hrpose``, which takes one image
at a time. To support another detection model in ONNX files, see ``ONNX_DETECTORS`` in
lib/media/onnx_detector.py.
"""

from collections.abc import Sequence
from enum import Enum
from pathlib import Path

import numpy as np
import torch
import torchvision
from torchvision.models import detection

from lib.core.inference import PERSON_THRESHOLD, Detector, PersonDetector
from lib.keypoints.geometry import corners_to_boxes
from lib.media.onnx_detector import ONNX_DETECTORS, read_settings
from lib.utils.errors import InputError
from lib.utils.zoo import DETECTOR_FOLDER, download_hint

BUILT_IN = "hrpose"  # name of the detector that uses the built-in bottom-up network
PERSON = "person"
PLACEHOLDER_CLASSES = ("__background__", "N/A")  # in torchvision's list of classes
# The COCO_V1 weights of these models need batch norms with eps 0. torchvision's builders set eps
# only if they load the weights themselves (overwrite_eps in faster_rcnn.py and others).
ZERO_EPS_MODELS = frozenset(
    f"{name}_resnet50_fpn" for name in ("fasterrcnn", "keypointrcnn", "maskrcnn", "retinanet")
)


def build_detector(
    name: str,
    weights: str = "",
    threshold: float | None = None,
    classes: Sequence[str] = (),
    device: torch.device | str = "cpu",
    precision: str = "float32",
) -> Detector:
    """Build a detector.

    Args:
        name: ``hrpose`` for the built-in bottom-up network, a detection model of torchvision, or
            the path of a YAML file that describes a YOLOX or RT-DETR model in an ONNX file
            (docs/demo.md).
        weights: a local file or, for torchvision, the name of published weights such as COCO_V1.
            Default for torchvision: the model's file in models/detectors/ or, if there is none,
            torchvision's download. Default for ONNX: the file named in the YAML file.
        threshold: boxes with a lower score are dropped. Default: 0.5 for torchvision, THRESHOLD of
            the YAML file for ONNX, and 0.1 for ``hrpose``.
        classes: names or numbers of the classes to keep; person if empty.
        precision: float32, bfloat16 or float16; only for ``hrpose``.

    Raises:
        InputError: the detector is unknown, or its weights are missing; the message says where to
            get them.
    """
    if name == BUILT_IN:
        if weights or list(classes) not in ([], [PERSON]):
            raise InputError(
                "--detector-weights, --detector-classes: the detector hrpose finds only people and "
                "has built-in weights; omit these options"
            )
        threshold = PERSON_THRESHOLD if threshold is None else threshold
        return PersonDetector(device, precision, threshold)
    if Path(name).suffix in (".yaml", ".yml"):
        settings = read_settings(name)
        settings.model = weights or settings.model
        settings.threshold = settings.threshold if threshold is None else threshold
        listed = detection.FasterRCNN_ResNet50_FPN_Weights.DEFAULT.meta["categories"]
        coco_classes = [name for name in listed if name not in PLACEHOLDER_CLASSES]  # COCO's 80
        numbers = _class_numbers(settings.classes or coco_classes, classes)
        return ONNX_DETECTORS[settings.kind](settings, numbers, torch.device(device))
    threshold = 0.5 if threshold is None else threshold
    return TorchvisionDetector(name, weights, threshold, classes, device)


class TorchvisionDetector:
    """A detection model of torchvision. The arguments are those of ``build_detector``."""

    def __init__(
        self,
        name: str,
        weights: str,
        threshold: float,
        classes: Sequence[str],
        device: torch.device | str,
    ) -> None:
        known = torchvision.models.list_models(module=detection)
        if name not in known:
            raise InputError(
                f"--detector: unknown detector {name!r}; must be {BUILT_IN}, the YAML file of an "
                f"ONNX detector or a torchvision model: {', '.join(known)}"
            )
        enum = torchvision.models.get_model_weights(name)
        self._classes = _class_numbers(enum.DEFAULT.meta["categories"], classes)
        self._threshold = threshold
        self._device = torch.device(device)
        entry, state = _load(name, enum, weights)
        # ``state`` has all weights, so torchvision should not load any.
        model = torchvision.models.get_model(name, weights=None, weights_backbone=None)
        try:
            model.load_state_dict(state)
        except (RuntimeError, TypeError, AttributeError):
            raise InputError(
                f"--detector-weights: {weights or 'the file'} is not a state dict of {name}"
            ) from None
        if name in ZERO_EPS_MODELS and entry is not None and entry.name == "COCO_V1":
            for module in model.modules():
                if isinstance(module, torch.nn.BatchNorm2d):
                    module.eps = 0.0
        self._model = model.to(self._device).eval()

    @torch.inference_mode()
    def __call__(self, images: list[np.ndarray]) -> list[tuple[np.ndarray, np.ndarray]]:
        """Return the boxes and scores of each image."""
        if not images:
            return []
        tensors = [
            torch.from_numpy(np.ascontiguousarray(image)).to(self._device).permute(2, 0, 1) / 255
            for image in images
        ]
        outputs = self._model(tensors)
        return [self._select(output, image) for output, image in zip(outputs, images, strict=True)]

    def _select(self, output: dict, image: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        labels, scores = output["labels"].cpu().numpy(), output["scores"].cpu().numpy()
        keep = np.isin(labels, self._classes) & (scores >= self._threshold)
        return corners_to_boxes(output["boxes"].cpu().numpy()[keep], scores[keep], image)


def _class_numbers(names: Sequence[str], classes: Sequence[str]) -> list[int]:
    """Convert class names or numbers to numbers. If ``classes`` is empty, use the class person."""
    numbers = []
    for text in classes or (PERSON,):
        if text in names:
            numbers.append(names.index(text))
        elif text.isdecimal() and int(text) < len(names):
            numbers.append(int(text))
        else:
            known = ", ".join(name for name in names if name not in PLACEHOLDER_CLASSES)
            raise InputError(f"--detector-classes: unknown class {text!r}; choose from {known}")
    return numbers


def _load(name: str, enum: type, weights: str) -> tuple[Enum | None, dict]:
    """Load a state dict for a torchvision model.

    ``enum`` lists the weights that torchvision publishes for the model.

    Returns:
        The member of ``enum`` that was loaded, or None for other weights; and the state dict.
    """
    entry = enum.DEFAULT if weights in ("", "DEFAULT") else enum.__members__.get(weights)
    path = Path(DETECTOR_FOLDER, Path(entry.url).name) if entry else Path(weights)
    if path.exists():
        published = {Path(member.url).name: member for member in enum}
        try:
            state = torch.load(path, map_location="cpu", weights_only=True)
            return published.get(path.name), state
        except Exception as error:  # torch does not document its exceptions for damaged files
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise InputError(f"{path}: cannot be read as weights: {reason}") from None
    if entry is None:
        known = ", ".join(enum.__members__)
        raise InputError(
            f"--detector-weights: {weights}: there is no such file, and {name} has no weights of "
            f"that name{download_hint(path) or f'; choose from {known}'}"
        )
    try:
        return entry, entry.get_state_dict(progress=True, check_hash=True)
    except (OSError, RuntimeError) as error:  # no network, or a wrong checksum
        raise InputError(
            f"--detector: downloading the weights of {name} failed ({error})"
            f"{download_hint(path) or f'; get {entry.url} and put it at {path}'}"
        ) from None
