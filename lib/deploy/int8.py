"""Post-training quantization to int8 with NNCF, for ONNX Runtime and OpenVINO on CPUs.

Only the network itself is quantized. Normalisation, flip test and decoding stay in float32.
"""

import contextlib
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import cv2
import numpy as np
import torch
from torch import Tensor
from yacs.config import CfgNode

from lib.config import is_bottom_up
from lib.core.backends import Backend
from lib.core.codecs.codec import Outputs
from lib.core.exported import Description, Runner, import_optional
from lib.core.inference import PersonDetector
from lib.dataset import build_dataset
from lib.dataset.bottom_up import scene_batch
from lib.dataset.image import read_image
from lib.deploy.distances import CropDistances, SceneDistances
from lib.deploy.export import (
    NETWORK_PREFIX,
    ONNX,
    onnx_content,
    openvino_content,
    openvino_model,
    quiet,
)
from lib.deploy.parity import crops_of_people, drawn_crops, drawn_scenes
from lib.utils.errors import InputError

LARGE_DISTANCE = 10  # input pixels; larger distances between keypoints are clamped to this


@dataclass(frozen=True)
class AccuracyControl:
    """How to find the layers that have to stay in float32.

    Attributes:
        score: returns the score of a backend on the test set.
        max_loss: how far the score may fall below that of float32.
        distances: compares a backend with float32. It must have more than
            ``distances.ranking_size`` inputs, because ``_validate`` tells a complete test from a
            ranking by the number of inputs.
        backend: builds a backend from a runner.
    """

    score: Callable[[Backend], float]
    max_loss: float
    distances: CropDistances | SceneDistances
    backend: Callable[[Runner], Backend]


@dataclass(frozen=True)
class Quantized:
    """A quantized network: the content of each file by suffix, and the number of int8 layers."""

    files: dict[str, bytes]
    layers: int


def quantize(
    graph: bytes,
    description: Description,
    file_format: str,
    inputs: Sequence[Tensor],
    control: AccuracyControl | None = None,
) -> Quantized:
    """Quantize a network.

    Args:
        graph: content of an ONNX file.
        description: its metadata.
        file_format: ``ONNX`` or ``OPENVINO``, the format to return.
        inputs: inputs of ``graph`` for calibration, uint8 (1, 3, H, W) each.
        control: how to return layers to float32 until the score is high enough. Without it,
            all layers are quantized.

    Raises:
        InputError: a package is not installed.
    """
    nncf = import_nncf()
    proto = import_optional("onnx", "--int8").load_from_string(graph)
    name = proto.graph.input[0].name
    is_onnx = file_format == ONNX
    model = proto if is_onnx else openvino_model(graph)
    data = nncf.Dataset(inputs, lambda x: {name: x.numpy()})
    options = {
        "subset_size": len(inputs),
        "ignored_scope": nncf.IgnoredScope(
            names=_operations_outside_network(proto, model, description), validate=False
        ),
    }
    with quiet_nncf(nncf):
        if control is None:
            model = nncf.quantize(model, data, **options)
        else:
            tested = control.distances.inputs
            scores: list[float] = []  # of complete tests; NNCF tests float32 first

            def validate(model: Any, rows: Iterable[int]) -> tuple[float, list[float]]:
                rows = list(rows)
                score, values = _validate(control, model, description, rows)
                if len(rows) == len(tested):
                    scores.append(score)
                    # If the score falls, NNCF ranks all layers again, which takes as long as
                    # everything else. As noise would cause that often, report the best score.
                    score = max(scores[1:], default=score)
                return score, values

            advanced = nncf.AdvancedAccuracyRestorerParameters(
                ranking_subset_size=control.distances.ranking_size,
                num_ranking_workers=1,  # with several, NNCF shows no progress
            )
            model = nncf.quantize_with_accuracy_control(
                model,
                data,
                nncf.Dataset(range(len(tested)), lambda i: {name: tested[i].numpy()}),
                validate,
                max_drop=control.max_loss,
                advanced_accuracy_restorer_parameters=advanced,
                **options,
            )
    write = onnx_content if is_onnx else openvino_content
    return Quantized(write(model, description), _count_layers(model))


def _operations_outside_network(proto: Any, model: Any, description: Description) -> list[str]:
    """Return the names of the operations of ``model`` that do not belong to the network."""
    if not description.decodes:
        return []
    nodes = [node for node in proto.graph.node if not node.name.startswith(NETWORK_PREFIX)]
    if model is proto:
        return [node.name for node in nodes]
    # OpenVINO names an operation after ONNX's node or its output.
    names = {name for node in nodes for name in (node.name, *node.output)}
    return sorted(names & {operation.get_friendly_name() for operation in model.get_ops()})


def _validate(
    control: AccuracyControl, model: Any, description: Description, rows: list[int]
) -> tuple[float, list[float]]:
    """Return a score of ``model`` and the scores of the inputs ``rows``; higher is better.

    An input's score is minus the mean distance of its keypoints from those of float32. To decide
    whether to accept a model, NNCF calls this function with all inputs; the score is then that of
    the test set. To rank layers, it calls it with some of them; the score is then the mean of the
    inputs' scores.
    """
    backend = control.backend(ModelRunner(model, description))
    compared = control.distances.compare(backend, rows)
    clamped = [one.distances.clamp(max=LARGE_DISTANCE) for one in compared]
    values = [-float(distances.mean()) if len(distances) else 0.0 for distances in clamped]
    is_complete = len(rows) == len(control.distances.inputs)
    score = control.score(backend) if is_complete else float(np.mean(values))
    return score, values


class ModelRunner(Runner):
    """Runner of an ``onnx.ModelProto`` or a compiled OpenVINO model."""

    def __init__(self, model: Any, description: Description) -> None:
        self.description = description
        self._model = model
        self._session = None
        if hasattr(model, "SerializeToString"):
            onnxruntime = import_optional("onnxruntime", "--int8")
            options = onnxruntime.SessionOptions()
            options.log_severity_level = 3  # errors only
            self._session = onnxruntime.InferenceSession(model.SerializeToString(), options)

    def _run(self, x: Tensor) -> Outputs:
        if self._session is not None:
            name = self._session.get_inputs()[0].name
            return tuple(map(torch.from_numpy, self._session.run(None, {name: x.numpy()})))
        outputs = self._model({0: x.numpy()})
        return tuple(torch.from_numpy(output.copy()) for output in outputs.values())


def _count_layers(model: Any) -> int:
    """Return the number of layers with int8 weights."""
    if hasattr(model, "SerializeToString"):
        int8 = import_optional("onnx", "--int8").TensorProto.INT8
        shapes = [t.dims for t in model.graph.initializer if t.data_type == int8]
    else:
        constants = [op for op in model.get_ops() if op.get_type_name() == "Constant"]
        shapes = [op.shape for op in constants if op.get_element_type().to_string() == "i8"]
    return sum(len(shape) > 1 for shape in shapes)


def import_nncf() -> ModuleType:
    """Import NNCF without its telemetry.

    Raises:
        InputError: it is not installed.
    """
    os.environ.setdefault("NNCF_CI", "1")  # otherwise it may send usage statistics
    try:
        with quiet(), contextlib.redirect_stdout(sys.stderr):
            import nncf
    except ImportError:
        raise InputError("--int8: needs NNCF: pip install -r requirements-int8.txt") from None
    return nncf


@contextlib.contextmanager
def quiet_nncf(nncf: ModuleType) -> Iterator[None]:
    """Silence warnings and logs, and show NNCF's progress on standard error."""
    nncf.set_log_level(40)  # logging.ERROR
    with quiet(), contextlib.redirect_stdout(sys.stderr):
        yield


def calibration_inputs(
    cfg: CfgNode, folder: Path | None, count: int
) -> tuple[Sequence[Tensor], str]:
    """Return inputs for calibration, and the name of their source.

    The inputs are crops of people or, for a bottom-up network, whole images. They come from
    ``folder`` if it is given, else from the experiment's training set, or, if that is missing, from
    synthetic images.

    Returns:
        Up to ``count`` inputs, uint8 (1, 3, H, W) each, and the source for display.

    Raises:
        InputError: ``folder`` has no images.
    """
    unit = "images" if is_bottom_up(cfg) else "crops"
    if folder is not None:
        inputs = _inputs_of_folder(cfg, folder, count)
        return inputs, f"{folder}: {len(inputs)} {unit}"
    cfg = cfg.clone()
    cfg.defrost()
    cfg.TEST.USE_GT_BBOX = True  # detected boxes exist only for the test set
    try:
        dataset = build_dataset(cfg, cfg.DATASET.TRAIN_SET, is_train=False)
    except InputError:
        return _drawn_inputs(cfg, count), f"synthetic people: {count} {unit}"
    inputs = []
    for row in np.unique(np.linspace(0, len(dataset) - 1, count).astype(int)):
        with contextlib.suppress(InputError):  # a broken image
            sample = dataset[int(row)]
            inputs.append(sample["image0"] if is_bottom_up(cfg) else sample["image"][None])
    if not inputs:
        raise InputError(f"--int8: no image of {cfg.DATASET.TRAIN_SET} can be read")
    return inputs, f"{cfg.DATASET.DATASET} {cfg.DATASET.TRAIN_SET}: {len(inputs)} {unit}"


def _drawn_inputs(cfg: CfgNode, count: int) -> Sequence[Tensor]:
    if is_bottom_up(cfg):
        return [batch["image0"] for batch in drawn_scenes(cfg, count, "train")]
    return drawn_crops(cfg, count, "train").split(1)


def _inputs_of_folder(cfg: CfgNode, folder: Path, count: int) -> Sequence[Tensor]:
    """Return whole images for a bottom-up network, otherwise crops of the people in them.

    An image in which nobody is found becomes a single crop.
    """
    paths = sorted(path for path in folder.rglob("*") if cv2.haveImageReader(str(path)))
    if not paths:
        raise InputError(f"--calibration: {folder}: no images found")
    detector = PersonDetector("cpu")
    inputs: list[Tensor] = []
    for row in np.unique(np.linspace(0, len(paths) - 1, count).astype(int)):
        name = str(paths[row])
        try:
            image = read_image(name, apply_exif=True)
            if is_bottom_up(cfg):
                size = int(cfg.MODEL.IMAGE_SIZE[0])
                inputs.append(scene_batch(image, 0, size, name=name)["image0"])
                continue
        except InputError as error:  # broken, or too long and narrow
            print(f"--calibration: skipped: {error}", file=sys.stderr)
            continue
        boxes, _ = detector([cv2.cvtColor(image, cv2.COLOR_BGR2RGB)])[0]
        if not len(boxes):
            boxes = np.array([[0, 0, image.shape[1], image.shape[0]]], np.float64)
        inputs += [crop[None] for crop in crops_of_people(cfg, image, boxes)]
    if not inputs:
        raise InputError(f"--calibration: {folder}: no image can be used")
    return inputs[:count]
