"""YOLOX and RT-DETR detectors in ONNX files. docs/demo.md describes their YAML files."""

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import cv2
import msgspec
import numpy as np
import torch
import yaml
from torchvision.transforms.v2.functional import resize

from lib.core.exported import onnx_session
from lib.keypoints.geometry import corners_to_boxes
from lib.nms import box_nms
from lib.utils.errors import InputError

# Boxes (N, 4) x, y, width, height; scores (N,).
Detections = tuple[np.ndarray, np.ndarray]
# Detections before thresholds and NMS: corners (N, 4) x1, y1, x2, y2; scores (N,); classes (N,).
Candidates = tuple[np.ndarray, np.ndarray, np.ndarray]


class Settings(msgspec.Struct, rename="upper", forbid_unknown_fields=True):
    """Content of the YAML file of an ONNX detector."""

    kind: Literal["yolox", "rtdetr"]
    model: str  # path of the ONNX file
    threshold: float = 0.5  # boxes with a lower score are dropped
    size: tuple[int, int] | None = None  # width, height of the input; None: from the ONNX file
    classes: tuple[str, ...] = ()  # names in the model's order; empty: COCO's 80


def read_settings(path: str | Path) -> Settings:
    """Read the YAML file of an ONNX detector.

    Raises:
        InputError: the file is missing, not YAML, or has missing or unknown keys.
    """
    try:
        content = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
        return msgspec.convert(content, Settings)
    except FileNotFoundError:
        raise InputError(f"--detector: {path}: there is no such file") from None
    except (OSError, yaml.YAMLError, ValueError) as error:  # msgspec's errors are ValueErrors
        reason = " ".join(str(error).split())
        raise InputError(
            f"{path}: must have KIND: yolox or KIND: rtdetr, MODEL: FILE.onnx, and may have "
            f"THRESHOLD, SIZE and CLASSES, but no other keys (docs/demo.md): {reason}"
        ) from None


class OnnxDetector:
    """Base class of detectors in ONNX files, called as described in lib.media.detectors.

    Args:
        settings: from ``read_settings``.
        classes: indices of the classes to keep.
        device: ``cuda`` runs on the GPU if ONNX Runtime supports it.

    Raises:
        InputError: the file is missing, its inputs are not supported, or ONNX Runtime is not
            installed.
    """

    nms_threshold: float | None = None  # IoU; None: no NMS

    def __init__(self, settings: Settings, classes: Sequence[int], device: torch.device) -> None:
        self._path, self._threshold, self._classes = settings.model, settings.threshold, classes
        if not Path(self._path).is_file():
            raise InputError(f"{self._path}: there is no such file (see docs/demo.md)")
        self._session = onnx_session(Path(self._path), device)
        self._inputs = [node.name for node in self._session.get_inputs()]
        self._outputs = [node.name for node in self._session.get_outputs()]
        shape = self._session.get_inputs()[0].shape
        self._size = settings.size or tuple(shape[:1:-1])  # (N, 3, H, W) -> (W, H)
        if len(shape) != 4 or not all(isinstance(n, int) and n > 0 for n in self._size):
            raise InputError(
                f"{self._path}: the input's shape is {shape}; it must be (N, 3, height, width). If "
                "height and width are not fixed, set SIZE: [width, height] in the YAML"
            )
        self._batch_size = shape[0] if isinstance(shape[0], int) else 0  # 0 if it is dynamic

    def prepare(self, image: np.ndarray) -> np.ndarray:
        """Convert an image (H, W, 3) uint8 RGB to the network's input (3, H, W) float32."""
        raise NotImplementedError

    def decode(self, outputs: Sequence[np.ndarray], image: np.ndarray) -> Candidates:
        """Decode the network's outputs for an image; the corners are in image pixels."""
        raise NotImplementedError

    def __call__(self, images: list[np.ndarray]) -> list[Detections]:
        """Return the boxes and scores of each image."""
        found: list[Detections] = []
        step = self._batch_size or max(1, len(images))
        for start in range(0, len(images), step):
            batch = images[start : start + step]
            # If the batch size is fixed, the last batch is padded.
            batch = batch + batch[-1:] * (self._batch_size - len(batch))
            found += map(self._select, zip(*self._run(batch), strict=True), batch)
        return found[: len(images)]

    def _run(self, batch: list[np.ndarray]) -> list[np.ndarray]:
        feed = {self._inputs[0]: np.stack([self.prepare(image) for image in batch])}
        if "orig_target_sizes" in self._inputs:  # RT-DETR: width and height of each image
            feed["orig_target_sizes"] = np.array([i.shape[1::-1] for i in batch], np.int64)
        try:
            outputs = self._session.run(self._outputs, feed)
        except Exception as error:  # ONNX Runtime's exceptions have no public base class
            reason = " ".join(str(error).split())
            raise InputError(f"{self._path}: ONNX Runtime: {reason}") from None
        if any(output.shape[:1] != (len(batch),) for output in outputs):
            shapes = ", ".join(str(output.shape) for output in outputs)
            raise InputError(
                f"{self._path}: the first dimension of every output must be the batch size "
                f"{len(batch)}, but the shapes are {shapes}"
            )
        return outputs

    def _select(self, outputs: Sequence[np.ndarray], image: np.ndarray) -> Detections:
        corners, scores, classes = self.decode(outputs, image)
        rows = np.flatnonzero(np.isin(classes, self._classes) & (scores >= self._threshold))
        if self.nms_threshold is not None:
            rows = rows[box_nms(np.column_stack([corners, scores])[rows], self.nms_threshold)]
        return corners_to_boxes(corners[rows], scores[rows], image)


class Yolox(OnnxDetector):
    """YOLOX, exported by its tools/export_onnx.py without --decode_in_inference.

    Preprocessing and decoding are those of demo/ONNXRuntime (Megvii-BaseDetection/YOLOX).
    """

    nms_threshold = 0.45

    def prepare(self, image: np.ndarray) -> np.ndarray:
        height, width = (max(1, int(n * self._ratio(image))) for n in image.shape[:2])
        padded = np.full((self._size[1], self._size[0], 3), 114, np.uint8)
        padded[:height, :width] = cv2.resize(image, (width, height))
        return padded[..., ::-1].transpose(2, 0, 1).astype(np.float32)  # BGR, 0 to 255

    def decode(self, outputs: Sequence[np.ndarray], image: np.ndarray) -> Candidates:
        output, grid = outputs[0], self._grid()
        is_expected = output.ndim == 2 and len(output) == len(grid) and output.shape[1] > 5
        # Raw sizes are logarithms, far below 20. With --decode_in_inference they are pixels.
        if not is_expected or output[:, 2:4].max() > 20:
            raise InputError(
                f"{self._path}: must be YOLOX exported without --decode_in_inference, with an "
                f"output of shape (N, {len(grid)}, 5 + classes)"
            )
        centers = (output[:, :2] + grid[:, :2]) * grid[:, 2:]
        sizes = np.exp(output[:, 2:4]) * grid[:, 2:]
        scores = output[:, 4:5] * output[:, 5:]
        return to_corners(centers, sizes) / self._ratio(image), scores.max(1), scores.argmax(1)

    def _ratio(self, image: np.ndarray) -> float:
        """Return the factor by which an image is resized to fit into the input."""
        return min(self._size[1] / image.shape[0], self._size[0] / image.shape[1])

    def _grid(self) -> np.ndarray:
        """Return column, row and stride (N, 3) of the grid cell of each output row."""
        cells = []
        for stride in (8, 16, 32):
            y, x = np.indices((self._size[1] // stride, self._size[0] // stride)).reshape(2, -1)
            cells.append(np.column_stack([x, y, np.full(len(x), stride)]))
        return np.concatenate(cells)


class RTDetr(OnnxDetector):
    """RT-DETR, exported by its tools/export_onnx.py (lyuwenyu/RT-DETR) or by Hugging Face Optimum.

    Files written by Optimum do not include decoding.
    """

    def __init__(self, settings: Settings, classes: Sequence[int], device: torch.device) -> None:
        super().__init__(settings, classes, device)
        self._is_raw = "pred_boxes" in self._outputs  # without decoding, as Optimum writes it
        self._outputs = ["pred_boxes", "logits"] if self._is_raw else ["boxes", "scores", "labels"]

    def prepare(self, image: np.ndarray) -> np.ndarray:
        tensor = torch.from_numpy(np.ascontiguousarray(image)).permute(2, 0, 1)
        # Antialiased, like Pillow's resize in the published code.
        return resize(tensor, self._size[::-1], antialias=True).numpy() / np.float32(255)

    def decode(self, outputs: Sequence[np.ndarray], image: np.ndarray) -> Candidates:
        if not self._is_raw:
            return tuple(outputs)
        boxes, logits = outputs
        corners = to_corners(boxes[:, :2], boxes[:, 2:]) * np.tile(image.shape[1::-1], 2)
        # Each pair of query and class is a candidate, as in the published code.
        queries, classes = np.indices(logits.shape).reshape(2, -1)
        return corners[queries], 1 / (1 + np.exp(-logits.ravel())), classes


def to_corners(centers: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    """Convert centers (N, 2) and sizes (N, 2) to corners (N, 4) x1, y1, x2, y2."""
    return np.concatenate([centers - sizes / 2, centers + sizes / 2], axis=1)


ONNX_DETECTORS = {"yolox": Yolox, "rtdetr": RTDetr}
