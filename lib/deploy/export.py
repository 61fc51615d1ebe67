"""A network as a file that runs without this project: ONNX, TorchScript or OpenVINO.

With decoding inside, normalising, flip test and decoding are part of the graph, and it takes uint8
crops. Each file carries a ``Description`` of itself (lib/core/exported.py): ONNX in its metadata,
OpenVINO in its ``rt_info``, TorchScript as an extra file.
"""

import contextlib
import io
import logging
import tempfile
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from torch import Tensor, nn

from lib.core.backends import predict
from lib.core.codecs.codec import Codec
from lib.core.exported import ENTRY, Description, need
from lib.keypoints.geometry import normalize
from lib.utils.errors import InputError

INPUTS = {True: "crops", False: "images"}  # decoding inside or not


class Decoded(nn.Module):
    """uint8 RGB crops (N, 3, H, W) -> keypoints (N, K, 2) in crop pixels, scores (N, K)."""

    def __init__(self, network: nn.Module, codec: Codec, is_rgb: bool, flip_test: bool) -> None:
        super().__init__()
        self.network = network
        self._codec = codec
        self._is_rgb = is_rgb
        self._flip_test = flip_test

    def forward(self, crops: Tensor) -> tuple[Tensor, Tensor]:
        images = normalize(crops, self._is_rgb)
        outputs = predict(self.network, self._codec, images, self._flip_test)
        return self._codec.decode(outputs)


def example_input(description: Description) -> Tensor:
    """A random input of such a file: two crops with a dynamic batch, else one."""
    width, height = description.settings["MODEL.IMAGE_SIZE"]
    shape = (2 if description.dynamic_batch else 1, 3, height, width)
    generator = torch.Generator().manual_seed(0)
    if description.decodes:
        return torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator)
    return torch.randn(shape, generator=generator)


def export(module: nn.Module, description: Description, kind: str) -> dict[str, bytes]:
    """The files of ``module``, by suffix.

    Args:
        module: in evaluation mode, on the CPU; takes and gives what ``description`` says.
        kind: a key of ``EXPORTERS``.

    Raises:
        InputError: a package is missing, or PyTorch is too old.
    """
    for parameter in module.parameters():
        parameter.requires_grad_(False)
    example = example_input(description)
    with torch.no_grad():
        module(example)  # what is made once and kept must not be made inside of a trace
        return EXPORTERS[kind](module, example, description)


def to_onnx(module: nn.Module, example: Tensor, description: Description) -> dict[str, bytes]:
    proto = onnx_graph(module, example, description.dynamic_batch, INPUTS[description.decodes])
    need("onnx", "exporting").helper.set_model_props(proto, {ENTRY: description.write()})
    return {".onnx": proto.SerializeToString()}


def has_exporter() -> bool:
    """Whether this PyTorch makes ONNX graphs of every network here."""
    return tuple(map(int, torch.__version__.split(".")[:2])) >= (2, 6)


def onnx_graph(module: nn.Module, example: Tensor, dynamic_batch: bool, name: str = "images"):
    """An ``onnx.ModelProto``, for batches of any size if ``dynamic_batch``."""
    if not has_exporter():
        raise InputError(f"exporting: ONNX needs PyTorch 2.6 or newer; this is {torch.__version__}")
    for package in ("onnx", "onnxscript"):
        need(package, "exporting")
    with quiet():
        program = torch.onnx.export(
            module,
            (example,),
            dynamo=True,
            verbose=False,
            optimize=False,  # takes minutes for Dite-HRNet; what runs the graph does it again
            input_names=[name],
            dynamic_shapes=({0: torch.export.Dim("batch")},) if dynamic_batch else None,
        )
    proto = program.model_proto
    for node in proto.graph.node:
        # Where in which source file each comes from: four times the size of a Lite-HRNet's weights.
        del node.metadata_props[:]
    return proto


def to_torchscript(
    module: nn.Module, example: Tensor, description: Description
) -> dict[str, bytes]:
    file = io.BytesIO()
    with quiet():
        traced = torch.jit.freeze(torch.jit.trace(module, (example,), check_trace=False))
        torch.jit.save(traced, file, _extra_files={ENTRY: description.write()})
    return {".ts": file.getvalue()}


def to_openvino(module: nn.Module, example: Tensor, description: Description) -> dict[str, bytes]:
    """From the ONNX graph: what OpenVINO makes of PyTorch's own runs slower."""
    need("openvino", "exporting")
    return openvino_files(to_onnx(module, example, description)[".onnx"], description)


def openvino_files(graph: bytes, description: Description) -> dict[str, bytes]:
    """The same for the content of an ONNX file."""
    openvino = need("openvino", "exporting")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "network.xml"
        path.with_suffix(".onnx").write_bytes(graph)
        model = openvino.convert_model(path.with_suffix(".onnx"))
        model.set_rt_info(description.write(), [ENTRY])
        openvino.save_model(model, path, compress_to_fp16=False)
        # The weights first: where the .xml is, the file is whole.
        return {suffix: path.with_suffix(suffix).read_bytes() for suffix in (".bin", ".xml")}


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Without what the exporters say of themselves."""
    previous = logging.root.manager.disable
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        logging.disable(logging.WARNING)
        try:
            yield
        finally:
            logging.disable(previous)


Exporter = Callable[[nn.Module, Tensor, Description], dict[str, bytes]]
ONNX, TORCHSCRIPT, OPENVINO = "onnx", "torchscript", "openvino"
EXPORTERS: dict[str, Exporter] = {
    ONNX: to_onnx,
    TORCHSCRIPT: to_torchscript,
    OPENVINO: to_openvino,
}
MAIN_SUFFIX = {ONNX: ".onnx", TORCHSCRIPT: ".ts", OPENVINO: ".xml"}
