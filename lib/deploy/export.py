"""Export of networks to ONNX, TorchScript or OpenVINO files.

An export with decoding takes uint8 images and includes normalisation, flip test and decoding. Files
of top-down networks need nothing else; those of bottom-up networks leave the grouping to
lib/core/codecs/grouping.py. Each file stores a ``Description`` (lib/core/exported.py): ONNX in its
metadata, OpenVINO in its ``rt_info``, TorchScript as an extra file. A checksum at the end of ONNX
and .xml files shows damage.
"""

import contextlib
import io
import logging
import tempfile
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from yacs.config import CfgNode

from lib.config import is_bottom_up
from lib.core.backends import predict
from lib.core.codecs.codec import Codec
from lib.core.codecs.tags import TagCodec
from lib.core.exported import METADATA_KEY, Description, checksum, import_optional
from lib.dataset.bottom_up import SIZE_STEP
from lib.keypoints.geometry import normalize
from lib.utils.errors import InputError
from lib.utils.files import write_atomically

NETWORK_PREFIX = "network."
SCOPES_KEY = "pkg.torch.onnx.name_scopes"  # written by PyTorch
NETWORK_SCOPE = "'network'"


class DecodingNetwork(nn.Module):
    """A network with normalisation, flip test and decoding.

    It maps uint8 RGB crops (N, 3, H, W) to keypoints (N, K, 2) in crop pixels and scores (N, K).
    """

    input_name, output_names = "crops", ("keypoints", "scores")

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


class SceneNetwork(DecodingNetwork):
    """A bottom-up network with normalisation, flip test and search for candidates.

    It maps a whole uint8 RGB image (1, 3, H, W) to heatmaps (1, K, H, W), tags (1, K, H, W, T), and
    the highest peaks of the heatmaps: x, y (1, K, M, 2), scores (1, K, M) and tags (1, K, M, T).
    With TEST.PROJECT2IMAGE False, heatmaps and tags have the size of the network's finest output.
    """

    input_name = "images"
    output_names = ("heatmaps", "tags", "candidates", "candidate_scores", "candidate_tags")

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        codec = self._codec
        normalised = normalize(images, self._is_rgb)
        merged = codec.merge(predict(self.network, codec, normalised, self._flip_test))
        if codec.enlarges_to_input:
            merged = codec.enlarge(merged, tuple(images.shape[2:]))
        return (*merged, *codec.candidates(merged))


def decoding_network(cfg: CfgNode, network: nn.Module, codec: Codec | TagCodec) -> nn.Module:
    """Wrap a network in a ``DecodingNetwork``, or in a ``SceneNetwork`` if it is bottom-up."""
    kind = SceneNetwork if is_bottom_up(cfg) else DecodingNetwork
    return kind(network, codec, cfg.DATASET.COLOR_RGB, cfg.TEST.FLIP_TEST).eval()


def example_input(description: Description) -> Tensor:
    """Return a random input for a file: two crops with a dynamic batch, otherwise one."""
    if description.dynamic_size:
        width, height = 3 * SIZE_STEP, 2 * SIZE_STEP
    else:
        width, height = description.settings["MODEL.IMAGE_SIZE"]
    shape = (2 if description.dynamic_batch else 1, 3, height, width)
    generator = torch.Generator().manual_seed(0)
    if description.decodes:
        return torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator)
    return torch.randn(shape, generator=generator)


def export(module: nn.Module, description: Description, file_format: str) -> dict[str, bytes]:
    """Export a network.

    Args:
        module: in evaluation mode, on the CPU, with inputs and outputs as in ``description``.
        file_format: a key of ``EXPORTERS``.

    Returns:
        The content of each file, by suffix.

    Raises:
        InputError: a package is not installed, or PyTorch is too old.
    """
    for parameter in module.parameters():
        parameter.requires_grad_(False)
    example = example_input(description)
    with torch.no_grad():
        module(example)  # cached tensors must be created outside of tracing
        return EXPORTERS[file_format](module, example, description)


def to_onnx(module: nn.Module, example: Tensor, description: Description) -> dict[str, bytes]:
    """Export to ONNX; returns the files as ``export`` does."""
    dimensions = {}
    if description.dynamic_batch:
        dimensions[0] = torch.export.Dim("batch")
    if description.dynamic_size:
        dimensions[2] = SIZE_STEP * torch.export.Dim("rows", min=1, max=256)
        dimensions[3] = SIZE_STEP * torch.export.Dim("columns", min=1, max=256)
    return onnx_content(onnx_graph(module, example, dimensions), description)


def onnx_content(proto: Any, description: Description) -> dict[str, bytes]:
    """Return the ONNX file of an ``onnx.ModelProto``."""
    helper = import_optional("onnx", "exporting").helper
    helper.set_model_props(proto, {METADATA_KEY: description.to_json()})
    content = proto.SerializeToString()
    return {".onnx": content + checksum(".onnx", content)}


def onnx_graph(module: nn.Module, example: Tensor, dynamic: dict[int, Any] | None = None) -> Any:
    """Export to an ``onnx.ModelProto``.

    Names of nodes in a submodule ``network`` start with ``NETWORK_PREFIX``. ``dynamic`` has a
    ``torch.export.Dim`` for each dimension of the input that may vary.
    """
    if tuple(map(int, torch.__version__.split(".")[:2])) < (2, 6):
        raise InputError(f"exporting: ONNX needs PyTorch 2.6 or newer, not {torch.__version__}")
    for package in ("onnx", "onnxscript"):
        import_optional(package, "exporting")
    with quiet():
        program = torch.onnx.export(
            module,
            (example,),
            dynamo=True,
            verbose=False,
            optimize=False,  # takes minutes for Dite-HRNet, and runtimes optimise the graph anyway
            input_names=[getattr(module, "input_name", "images")],
            output_names=getattr(module, "output_names", None),
            dynamic_shapes=(dynamic,) if dynamic else None,
        )
    proto = program.model_proto
    for node in proto.graph.node:
        scopes = [prop.value for prop in node.metadata_props if prop.key == SCOPES_KEY]
        if any(NETWORK_SCOPE in scope for scope in scopes):
            node.name = NETWORK_PREFIX + node.name
        # Remove stack traces, which take four times as much space as the weights of Lite-HRNet.
        del node.metadata_props[:]
    return proto


def to_torchscript(
    module: nn.Module, example: Tensor, description: Description
) -> dict[str, bytes]:
    """Export to TorchScript; returns the files as ``export`` does."""
    file = io.BytesIO()
    with quiet():
        traced = torch.jit.freeze(torch.jit.trace(module, (example,), check_trace=False))
        torch.jit.save(traced, file, _extra_files={METADATA_KEY: description.to_json()})
    return {".ts": file.getvalue()}


def to_openvino(module: nn.Module, example: Tensor, description: Description) -> dict[str, bytes]:
    """Export to OpenVINO through ONNX; the result runs faster than a direct conversion."""
    import_optional("openvino", "exporting")
    graph = to_onnx(module, example, description)[".onnx"]
    return openvino_content(openvino_model(graph), description)


def openvino_model(graph: bytes) -> Any:
    """Convert the content of an ONNX file to an ``openvino.Model`` without metadata."""
    openvino = import_optional("openvino", "exporting")
    proto = import_optional("onnx", "exporting").load_from_string(graph)
    del proto.metadata_props[:]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "network.onnx"
        path.write_bytes(proto.SerializeToString())
        return openvino.convert_model(path)


def openvino_content(model: Any, description: Description) -> dict[str, bytes]:
    """Return the files of an ``openvino.Model``."""
    openvino = import_optional("openvino", "exporting")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "network.xml"
        model.set_rt_info(description.to_json(), [METADATA_KEY])
        openvino.save_model(model, path, compress_to_fp16=False)
        content, weights = path.read_bytes(), path.with_suffix(".bin").read_bytes()
        # The weights come first, so that an .xml is never without them.
        return {".bin": weights, ".xml": content + checksum(".xml", content, weights)}


def write_draft(path: Path, files: dict[str, bytes]) -> Path:
    """Write each file to ``path`` with its suffix; return the path of the main file, the last."""
    path.parent.mkdir(exist_ok=True)
    for suffix, content in files.items():
        # A new file each time: OpenVINO still reads the previous one.
        write_atomically(path.with_suffix(suffix), content)
    return path.with_suffix(suffix)


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Silence the warnings and logs of the exporters."""
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
EXPORTERS: dict[str, Exporter] = {ONNX: to_onnx, TORCHSCRIPT: to_torchscript, OPENVINO: to_openvino}
MAIN_SUFFIX = {ONNX: ".onnx", TORCHSCRIPT: ".ts", OPENVINO: ".xml"}
