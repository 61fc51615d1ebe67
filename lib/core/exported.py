"""Files written by ``lib.deploy.export``: their metadata, and a runner for each format."""

import contextlib
import hashlib
import importlib
import json
import os
import warnings
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import msgspec
import torch
from torch import Tensor
from yacs.config import CfgNode

from lib.config import is_bottom_up
from lib.core.codecs.codec import Outputs, as_outputs
from lib.keypoints.skeletons import Skeleton
from lib.utils.checkpoint import check_integrity
from lib.utils.devices import has_bfloat16
from lib.utils.errors import InputError, os_errors_as
from lib.utils.files import read_regular

METADATA_KEY = "hrpose"
PRECISIONS = ("float32", "bfloat16", "float16")
TRUST_VARIABLE = "HRPOSE_TRUST_TORCHSCRIPT"  # environment variable; 1 allows TorchScript files

NETWORK_KEYS = ("MODEL.NAME", "MODEL.HEAD", "MODEL.TARGET_TYPE", "MODEL.NUM_JOINTS")
CROP_KEYS = ("MODEL.IMAGE_SIZE", "MODEL.HEATMAP_SIZE", "MODEL.SIMDR_SPLIT_RATIO")
DECODING_KEYS = (
    "MODEL.SIGMA", "MODEL.SIMDR_SIGMA", "DATASET.COLOR_RGB", "TEST.FLIP_TEST",
    "TEST.SHIFT_HEATMAP", "TEST.POST_PROCESS", "TEST.REFINE", "TEST.BLUR_KERNEL",
)  # fmt: skip
BOTTOM_UP_DECODING_KEYS = (
    "DATASET.COLOR_RGB", "DATASET.MAX_NUM_PEOPLE", "TEST.FLIP_TEST", "TEST.PROJECT2IMAGE",
    "TEST.NMS_KERNEL",
)  # fmt: skip


@dataclass(frozen=True)
class Description:
    """Metadata of an exported file.

    Attributes:
        decodes: True if the file contains a ``DecodingNetwork`` or ``SceneNetwork``
            (lib/deploy/export.py), False if it maps normalised images to the network's outputs.
        dynamic_batch: True if the batch size may be any number, False if it must be 1.
        joints: names of the K joints.
        flip_pairs: flip pairs of the flip test in the file; empty if the file has no flip test.
        settings: the experiment's settings that the file depends on.
        dynamic_size: True if height and width may be any multiples of 64, as for whole images.
    """

    decodes: bool
    dynamic_batch: bool
    joints: list[str]
    flip_pairs: list[list[int]]
    settings: dict[str, Any]
    dynamic_size: bool = False

    @classmethod
    def of(
        cls, cfg: CfgNode, skeleton: Skeleton, decodes: bool, dynamic_batch: bool
    ) -> "Description":
        """Describe a file to be written for the experiment ``cfg``.

        Files of bottom-up networks have a dynamic size and never a dynamic batch.
        """
        bottom_up = is_bottom_up(cfg)
        keys = NETWORK_KEYS if bottom_up else NETWORK_KEYS + CROP_KEYS
        if decodes:
            keys += BOTTOM_UP_DECODING_KEYS if bottom_up else DECODING_KEYS
        settings = {key: _setting(cfg, key) for key in keys}
        has_flip_test = decodes and cfg.TEST.FLIP_TEST
        pairs = [list(pair) for pair in skeleton.flip_pairs] if has_flip_test else []
        dynamic_batch = dynamic_batch and not bottom_up
        return cls(decodes, dynamic_batch, list(skeleton.names), pairs, settings, bottom_up)

    @classmethod
    def from_json(cls, path: Path, text: str | None) -> "Description":
        """Parse the text that ``to_json`` returned; raise InputError if it is anything else."""
        try:
            return msgspec.json.decode(text or "", type=cls)
        except ValueError:
            raise InputError(
                f"{path} has no HRPose metadata of this version; export it with tools/export.py"
            ) from None

    def to_json(self) -> str:
        """Return the description as JSON."""
        return json.dumps(asdict(self))

    def check(self, path: Path, cfg: CfgNode, skeleton: Skeleton) -> None:
        """Raise an InputError if the file was exported for another experiment."""
        for key, value in self.settings.items():
            expected = _setting(cfg, key)
            if value != expected:
                raise InputError(
                    f"{path}: was exported with {key} {value}, but the experiment has {expected}"
                )
        if self.joints != list(skeleton.names):
            raise InputError(f"{path}: its joints differ from those of {cfg.DATASET.DATASET}")
        pairs = [list(pair) for pair in skeleton.flip_pairs]
        if self.flip_pairs and sorted(self.flip_pairs) != sorted(pairs):
            raise InputError(f"{path}: the pairs of its flip test differ from DATASET.FLIP_PAIRS")


def _setting(cfg: CfgNode, key: str) -> Any:
    section, _, name = key.partition(".")
    value = cfg.get(section, {}).get(name)  # files of other versions may have other keys
    return list(value) if isinstance(value, (list, tuple)) else value


# Bytes before and after the checksum at the end of a file. Together with the checksum, they form a
# comment in OpenVINO's XML and an entry of metadata_props in ONNX. The bytes of the entry are, in
# protobuf encoding: tag and length of the entry, tag and length of the key, the key, tag and length
# of the value, and the value, which is the checksum.
CHECKSUM_MARKS = {
    ".onnx": (b"\x72\x51\x0a\x0dhrpose.sha256\x12\x40", b""),
    ".xml": (b"<!-- sha256 ", b" -->\n"),
}


def checksum(suffix: str, content: bytes | memoryview, weights: bytes = b"") -> bytes:
    """Return the bytes to append to an exported file: its SHA-256 between CHECKSUM_MARKS.

    Args:
        suffix: suffix of the file.
        content: content of the file without the checksum.
        weights: content of OpenVINO's weights file, included in the SHA-256.
    """
    start, end = CHECKSUM_MARKS[suffix]
    digest = hashlib.sha256(content)
    digest.update(weights)
    return start + digest.hexdigest().encode() + end


def check_checksum(path: Path, weights: Path | None = None) -> None:
    """Raise InputError unless a file ends with its ``checksum``.

    This is checked because ONNX Runtime and OpenVINO can crash on a damaged file.
    """
    with os_errors_as(f"{path}: cannot be read"):
        content = read_regular(path)
        weights_content = read_regular(weights) if weights else b""
    suffix = path.suffix.lower()
    size = len(checksum(suffix, b""))
    if content[-size:] != checksum(suffix, memoryview(content)[:-size], weights_content):
        raise InputError(
            f"{path}: damaged, or not written by this version of tools/export.py; copy or export "
            "it again"
        )


class Runner:
    """Base class of runners, which map an input tensor on the CPU to output tensors on the CPU."""

    description: Description

    def __call__(self, x: Tensor) -> Outputs:
        if self.description.dynamic_batch or len(x) == 1:
            return self._run(x)
        outputs = [self._run(one) for one in x.split(1)]
        return tuple(torch.cat(parts) for parts in zip(*outputs, strict=True))

    def _run(self, x: Tensor) -> Outputs:
        raise NotImplementedError


class OnnxRunner(Runner):
    """Runner that uses ONNX Runtime, with as many threads as PyTorch."""

    def __init__(self, path: Path, precision: str, device: torch.device) -> None:
        check_checksum(path)
        self._session = onnx_session(path, device)
        stored = self._session.get_modelmeta().custom_metadata_map
        self.description = Description.from_json(path, stored.get(METADATA_KEY))
        self._name = self._session.get_inputs()[0].name

    def _run(self, x: Tensor) -> Outputs:
        return tuple(map(torch.from_numpy, self._session.run(None, {self._name: x.numpy()})))


def onnx_session(path: Path, device: torch.device) -> Any:
    """Open an ``onnxruntime.InferenceSession``.

    It runs on the GPU if ``device`` is one and the installed package supports it, and uses TF32 if
    PyTorch's convolutions do.
    """
    onnxruntime = import_optional("onnxruntime", str(path))
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.log_severity_level = 3  # errors only; the warnings are about its own optimisations
    providers: list[Any] = ["CPUExecutionProvider"]
    if device.type == "cuda" and "CUDAExecutionProvider" in onnxruntime.get_available_providers():
        settings = {
            "device_id": device.index or 0,
            "use_tf32": int(torch.backends.cudnn.allow_tf32),
        }
        providers.insert(0, ("CUDAExecutionProvider", settings))
    with _load_errors(path):
        return onnxruntime.InferenceSession(str(path), options, providers=providers)


class OpenVinoRunner(Runner):
    """Runner that uses OpenVINO on the CPU, with as many threads as PyTorch.

    The graph is compiled for a batch of one and for a dynamic batch, each when first needed: with a
    fixed batch size, networks with many small layers run twice as fast. Files with a dynamic size
    are compiled as they are.
    """

    def __init__(self, path: Path, precision: str, device: torch.device) -> None:
        openvino = import_optional("openvino", str(path))
        if precision == "bfloat16" and not has_bfloat16(torch.device("cpu")):
            raise InputError("precision: this CPU does not support bfloat16; use float32")
        weights = path.with_suffix(".bin")
        if not weights.is_file():
            raise InputError(f"{path}: the weights file {weights.name} is missing")
        check_checksum(path, weights)
        self._core = openvino.Core()
        with _load_errors(path):
            self._model = self._core.read_model(path)
        has_key = self._model.has_rt_info([METADATA_KEY])
        stored = self._model.get_rt_info([METADATA_KEY]).astype(str) if has_key else None
        self.description = Description.from_json(path, stored)
        self._settings = openvino_settings(precision)
        self._requests: dict[bool, Any] = {}  # key: dynamic batch

    def _run(self, x: Tensor) -> Outputs:
        dynamic_batch = len(x) > 1
        if dynamic_batch not in self._requests:
            model = self._model.clone()
            if not self.description.dynamic_size:
                model.reshape([-1 if dynamic_batch else 1, *x.shape[1:]])
            compiled = self._core.compile_model(model, "CPU", self._settings)
            self._requests[dynamic_batch] = compiled.create_infer_request()
        outputs = self._requests[dynamic_batch].infer({0: x.numpy()})
        return tuple(torch.from_numpy(output.copy()) for output in outputs.values())


def openvino_settings(precision: str) -> dict[str, Any]:
    """Return settings for ``openvino.Core.compile_model``: low latency, PyTorch's thread count."""
    return {
        "INFERENCE_PRECISION_HINT": {"float32": "f32", "bfloat16": "bf16"}[precision],
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_NUM_THREADS": torch.get_num_threads(),
    }


class TorchScriptRunner(Runner):
    """Runner that uses PyTorch on the CPU, the device that the file was traced on.

    A TorchScript file is a program, which can for example write files. It is opened only if the
    environment variable HRPOSE_TRUST_TORCHSCRIPT is 1.
    """

    def __init__(self, path: Path, precision: str, device: torch.device) -> None:
        if os.environ.get(TRUST_VARIABLE) != "1":
            raise InputError(
                f"{path}: a TorchScript file is a program that could write files; if you trust it, "
                f"set the environment variable {TRUST_VARIABLE}=1, or export to ONNX or OpenVINO "
                "instead"
            )
        check_integrity(path)
        extra = {METADATA_KEY: ""}
        with warnings.catch_warnings(), _load_errors(path):
            warnings.simplefilter("ignore")  # newer versions of PyTorch deprecate TorchScript
            self._module = torch.jit.load(str(path), map_location="cpu", _extra_files=extra)
        self._path = path
        stored = extra[METADATA_KEY]
        text = stored.decode(errors="replace") if isinstance(stored, bytes) else stored
        self.description = Description.from_json(path, text)

    @torch.inference_mode()
    def _run(self, x: Tensor) -> Outputs:
        try:
            return as_outputs(self._module(x))
        except Exception as error:  # the program may raise anything
            reason = str(error).strip().splitlines()[-1:]
            raise InputError(f"{self._path}: cannot run: {' '.join(reason)}") from None


def trust_torchscript() -> None:
    """Let this process open TorchScript files, for programs that write them themselves."""
    os.environ[TRUST_VARIABLE] = "1"


RUNNERS: dict[str, Callable[[Path, str, torch.device], Runner]] = {
    ".onnx": OnnxRunner,
    ".xml": OpenVinoRunner,
    ".ts": TorchScriptRunner,
    ".torchscript": TorchScriptRunner,
}


def is_exported(path: str | Path) -> bool:
    """Return True if the path has a suffix of an exported file."""
    return Path(path).suffix.lower() in RUNNERS


def check_precision(precision: str, weights: str | Path | None = None) -> None:
    """Raise an InputError for an unknown precision, or one that ``weights`` does not support."""
    if precision not in PRECISIONS:
        raise InputError(f"precision: must be one of {', '.join(PRECISIONS)}, not {precision!r}")
    if weights and is_exported(weights):
        path = Path(weights)
        is_openvino = path.suffix.lower() == ".xml"
        supported = ("float32", "bfloat16") if is_openvino else ("float32",)
        if precision not in supported:
            raise InputError(
                f"precision: {path.name} runs in {' or '.join(supported)}, not in {precision}"
            )


def open_exported(
    path: Path, precision: str = "float32", device: torch.device | None = None
) -> Runner:
    """Open an exported file with the runner for its suffix.

    Raises:
        InputError: the file is missing, cannot be read, was not written by ``lib.deploy.export``,
            or cannot run in ``precision``; or a package is not installed.
    """
    if not path.is_file():
        raise InputError(f"{path}: there is no such file")
    check_precision(precision, path)
    return RUNNERS[path.suffix.lower()](path, precision, device or torch.device("cpu"))


def import_optional(package: str, needed_by: str) -> ModuleType:
    """Import an optional package; raise an InputError that names ``needed_by`` if it is missing."""
    try:
        return importlib.import_module(package)
    except ImportError:
        raise InputError(
            f"{needed_by}: requires a package that is not installed: pip install {package} (or all "
            "packages for exporting: pip install -r requirements-export.txt)"
        ) from None


@contextlib.contextmanager
def _load_errors(path: Path) -> Iterator[None]:
    """Turn any error into an InputError; each package raises its own types."""
    try:
        yield
    except Exception as error:
        lines = [line for line in str(error).splitlines() if line.strip()]
        reason = lines[-1].strip() if lines else error
        raise InputError(f"{path}: cannot be read: {reason}") from None
