"""Any detector in an ONNX file that a YAML describes; docs/demo.md has the YAML's keys."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import msgspec
import numpy as np
import torch
import yaml

from lib.core.exported import onnx_session
from lib.media.boxes import inside
from lib.nms import box_nms
from lib.utils.errors import InputError

MAX_BOXES = 300  # of an image, the best, before suppression and after


class Input(msgspec.Struct, forbid_unknown_fields=True):
    """What goes into the file. A pixel's value is (pixel * scale - mean) / std."""

    size: tuple[int, int]  # width, height
    name: str = ""  # '' is the first input
    fit: str = "letterbox"  # keeps the aspect ratio; or stretch
    place: str = "corner"  # of a letterbox's picture: corner or center
    pad: int = 114  # the letterbox's grey
    order: str = "RGB"
    layout: str = "NCHW"
    scale: float = 1.0
    mean: tuple[float, float, float] = (0.0, 0.0, 0.0)  # in the channels' order
    std: tuple[float, float, float] = (1.0, 1.0, 1.0)
    sizes: str = ""  # a second input, int64 (N, 2) width, height of each picture


class Output(msgspec.Struct, forbid_unknown_fields=True):
    """What comes out. Each place is ``name``, ``name[column]`` or ``name[first:end]``."""

    boxes: str
    scores: str
    objectness: str = ""  # multiplied with the scores
    labels: str = ""  # '' : the best of several scores says the class
    format: str = "xyxy"  # or xywh, or cxcywh
    pixels: str = "input"  # of the input, of the image, or unit: 0 to 1 over the input
    transposed: bool = False  # (N, columns, boxes) in place of (N, boxes, columns)
    strides: tuple[int, ...] = ()  # boxes relative to cells of grids, as YOLOX exports them


class Description(msgspec.Struct, forbid_unknown_fields=True):
    """A detector's YAML."""

    file: str
    input: Input
    output: Output
    url: str = ""
    classes: tuple[int, ...] = (0,)
    threshold: float = 0.5
    nms: float = 0.0  # overlap above which the worse box goes; 0: the file does it itself


CHOICES = {
    "input.fit": ("letterbox", "stretch"),
    "input.place": ("corner", "center"),
    "input.order": ("RGB", "BGR"),
    "input.layout": ("NCHW", "NHWC"),
    "output.format": ("xyxy", "xywh", "cxcywh"),
    "output.pixels": ("input", "image", "unit"),
}


def read_description(path: str | Path) -> Description:
    """The YAML of a detector; an InputError names the key that is wrong."""
    try:
        content = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
        description = msgspec.convert(content, Description)
    except FileNotFoundError:
        raise InputError(f"--detector: {path}: there is no such file") from None
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        reason = " ".join(str(error).split())
        raise InputError(f"{path}: cannot be read as YAML: {reason}") from None
    except msgspec.ValidationError as error:
        raise InputError(f"{path}: does not describe a detector (docs/demo.md): {error}") from None
    for key, choices in CHOICES.items():
        section, name = key.split(".")
        value = getattr(getattr(description, section), name)
        if value not in choices:
            raise InputError(f"{path}: {key}: must be one of {', '.join(choices)}, not {value!r}")
    if min(description.input.size) < 1:
        raise InputError(f"{path}: input.size: must be width and height in pixels")
    return description


@dataclass
class Place:
    """Where a picture lies in the network's input: input pixels = image pixels * zoom + shift."""

    zoom: np.ndarray
    shift: np.ndarray


class OnnxDetector:
    """The detector that the YAML ``path`` describes.

    Args:
        file: the ONNX file, '' for the YAML's.
        threshold: None for the YAML's.
        classes: None for the YAML's.
        device: ``cuda`` uses ONNX Runtime's CUDA where it is installed.

    Raises:
        InputError: the YAML, the file, or ONNX Runtime is not there or not right.
    """

    def __init__(
        self,
        path: str | Path,
        file: str = "",
        threshold: float | None = None,
        classes: list[int] | None = None,
        device: torch.device | None = None,
    ) -> None:
        self._path = path
        self._about = read_description(path)
        self._threshold = self._about.threshold if threshold is None else threshold
        self._classes = list(self._about.classes if classes is None else classes)
        self._session = _open(Path(file or self._about.file), self._about.url, device)
        inputs = {one.name: one for one in self._session.get_inputs()}
        self._input = self._about.input.name or next(iter(inputs))
        wanted = {self._input, self._about.input.sizes} - {""}
        self._check_names("input", wanted, inputs)
        batch = inputs[self._input].shape[0]
        self._batch = batch if isinstance(batch, int) else 0
        output = self._about.output
        texts = {"boxes": output.boxes, "scores": output.scores}
        texts |= {"objectness": output.objectness, "labels": output.labels}
        self._places = {key: _parse(path, key, text) for key, text in texts.items() if text}
        outputs = [one.name for one in self._session.get_outputs()]
        self._outputs = sorted({name for name, _ in self._places.values()})
        self._check_names("output", self._outputs, outputs)

    def _check_names(self, what: str, wanted: Any, there: Any) -> None:
        for name in wanted:
            if name not in there:
                raise InputError(
                    f"{self._path}: the file has no {what} {name!r}; it has {', '.join(there)}"
                )

    def __call__(self, images: list[np.ndarray]) -> list[tuple[np.ndarray, np.ndarray]]:
        """Boxes and scores of each image, as lib.media.detectors says."""
        found: list[tuple[np.ndarray, np.ndarray]] = []
        step = self._batch or max(1, len(images))
        for start in range(0, len(images), step):
            found += self._pass(images[start : start + step])
        return found

    def _pass(self, images: list[np.ndarray]) -> list[tuple[np.ndarray, np.ndarray]]:
        about = self._about.input
        fitted = [fit(image, about) for image in images]
        # A file for a fixed number of pictures gets its last ones filled up.
        fitted += [fitted[-1]] * (self._batch - len(fitted))
        feed = {self._input: to_input(np.stack([picture for picture, _ in fitted]), about)}
        if about.sizes:
            sizes = [image.shape[1::-1] for image in images]
            sizes += [sizes[-1]] * (self._batch - len(sizes))
            feed[about.sizes] = np.array(sizes, np.int64)
        try:
            values = self._session.run(self._outputs, feed)
        except Exception as error:  # ONNX Runtime's own errors share no public base
            reason = " ".join(str(error).split())
            raise InputError(f"{self._path}: ONNX Runtime: {reason}") from None
        arrays = dict(zip(self._outputs, values, strict=True))
        return [
            self._people({k: self._take(arrays, k, n) for k in self._places}, place, image)
            for n, (image, (_, place)) in enumerate(zip(images, fitted, strict=False))
        ]

    def _take(self, arrays: dict[str, np.ndarray], key: str, number: int) -> np.ndarray:
        """The values of one image (boxes, columns)."""
        name, columns = self._places[key]
        if arrays[name].ndim not in (2, 3) or number >= len(arrays[name]):
            raise InputError(
                f"{self._path}: output.{key}: {name} is {arrays[name].shape}; it must be "
                "(pictures, boxes) or (pictures, boxes, columns)"
            )
        values = arrays[name][number]
        values = values.reshape(-1, 1) if values.ndim == 1 else values
        values = values.T if self._about.output.transposed else values
        return values[:, columns]

    def _people(
        self, found: dict[str, np.ndarray], place: Place, image: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        output = self._about.output
        boxes = found["boxes"].astype(np.float64)
        if boxes.shape[1:] != (4,):
            raise InputError(
                f"{self._path}: output.boxes: {output.boxes} has {boxes.shape[1]} columns, not 4"
            )
        for key, values in found.items():
            if len(values) != len(boxes):
                raise InputError(
                    f"{self._path}: output.boxes: {output.boxes} gives {len(boxes)} boxes, "
                    f"output.{key}: {getattr(output, key)}, {len(values)} rows"
                )
        scores = found["scores"] * found.get("objectness", 1)
        # Of several classes the best decides, before any is left out.
        labels = found["labels"][:, 0] if "labels" in found else scores.argmax(1)
        scores = scores.max(1)
        if output.strides:
            boxes = from_cells(boxes, output.strides, self._about.input.size, self._path)
        rows = np.flatnonzero(np.isin(labels, self._classes) & (scores >= self._threshold))
        rows = rows[np.argsort(-scores[rows], kind="stable")][:MAX_BOXES]
        corners = to_corners(boxes[rows], output.format)
        if output.pixels == "unit":
            corners = corners * np.tile(self._about.input.size, 2)
        if output.pixels != "image":
            corners = (corners - np.tile(place.shift, 2)) / np.tile(place.zoom, 2)
        if self._about.nms:
            dets = np.column_stack([corners, scores[rows]]).astype(np.float32)
            kept = box_nms(dets, self._about.nms)
            corners, rows = corners[kept], rows[kept]
        return inside(corners, scores[rows], image)


def fit(image: np.ndarray, about: Input) -> tuple[np.ndarray, Place]:
    """An image (H, W, 3) in the network's size, and where it lies there."""
    size = np.array(about.size)
    whole = np.array(image.shape[1::-1])
    inner = size
    if about.fit == "letterbox":
        inner = np.maximum(1, np.minimum(size, np.rint(whole * (size / whole).min()))).astype(int)
    small = cv2.resize(image, inner.tolist(), interpolation=cv2.INTER_LINEAR)
    shift = (size - inner) // 2 if about.place == "center" else np.zeros(2, int)
    page = np.full((size[1], size[0], 3), about.pad, np.uint8)
    page[shift[1] : shift[1] + inner[1], shift[0] : shift[0] + inner[0]] = small
    return page, Place(inner / whole, shift.astype(np.float64))


def to_input(pages: np.ndarray, about: Input) -> np.ndarray:
    """(N, H, W, 3) uint8 RGB as float32 in the network's order, layout and range."""
    pages = pages if about.order == "RGB" else pages[..., ::-1]
    values = pages.astype(np.float32) * np.float32(about.scale)
    values = (values - np.float32(about.mean)) / np.float32(about.std)
    values = values if about.layout == "NHWC" else values.transpose(0, 3, 1, 2)
    return np.ascontiguousarray(values)


def to_corners(boxes: np.ndarray, layout: str) -> np.ndarray:
    """(N, 4) x1, y1, x2, y2 from a box's layout."""
    first, last = boxes[:, :2], boxes[:, 2:]
    if layout == "xywh":
        last = first + last
    elif layout == "cxcywh":
        first, last = first - last / 2, first + last / 2
    return np.concatenate([first, last], axis=1)


def from_cells(
    boxes: np.ndarray, strides: tuple[int, ...], size: tuple[int, int], path: str | Path
) -> np.ndarray:
    """Boxes (N, 4) cx, cy, width, height in input pixels, from boxes relative to the cells of one
    grid for each stride, row by row: the centre in cells from the cell's corner, the logarithm of
    the size in cells (YOLOX, yolox/models/yolo_head.py, ``decode_outputs``)."""
    cells, widths = [], []
    for stride in strides:
        columns, rows = size[0] // stride, size[1] // stride
        x, y = np.meshgrid(np.arange(columns), np.arange(rows))
        cells.append(np.stack([x.ravel(), y.ravel()], axis=1))
        widths.append(np.full((rows * columns, 1), stride))
    cell, stride = np.concatenate(cells), np.concatenate(widths)
    if len(cell) != len(boxes):
        raise InputError(
            f"{path}: output.strides: give {len(cell)} boxes for that input, the file {len(boxes)}"
        )
    # No box is larger than e ** 20 cells; a wild value must not overflow.
    sizes = np.exp(np.minimum(boxes[:, 2:], 20)) * stride
    return np.concatenate([(boxes[:, :2] + cell) * stride, sizes], axis=1)


def _parse(path: str | Path, key: str, text: str) -> tuple[str, slice | list[int]]:
    """The output and the columns that a place names."""
    match = re.fullmatch(r"([^\[\]]+)(?:\[(\d+)(?::(\d+))?\])?", text)
    if not match:
        raise InputError(
            f"{path}: output.{key}: must be name, name[column] or name[first:end], not {text!r}"
        )
    name, first, end = match.groups()
    if first is None:
        return name, slice(None)
    return name, slice(int(first), int(end) if end else int(first) + 1)


def _open(file: Path, url: str, device: torch.device | None) -> Any:
    """A session of ONNX Runtime."""
    if not file.exists():
        where = f"; get {url} and put it there" if url else ""
        raise InputError(f"--detector-weights: {file}: there is no such file{where}")
    return onnx_session(file, device or torch.device("cpu"))
