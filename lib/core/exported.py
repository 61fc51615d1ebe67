"""Files that ``lib.deploy.export`` wrote: what they say of themselves, and how each kind is run."""

import importlib
import json
import warnings
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import Tensor
from yacs.config import CfgNode

from lib.core.codecs.codec import Outputs, as_outputs
from lib.keypoints.skeletons import Skeleton
from lib.utils.devices import has_bfloat16
from lib.utils.errors import InputError

ENTRY = "hrpose"  # of the file's own metadata
PRECISIONS = ("float32", "bfloat16")

NETWORK_KEYS = (
    *("MODEL.NAME", "MODEL.HEAD", "MODEL.TARGET_TYPE", "MODEL.NUM_JOINTS"),
    *("MODEL.IMAGE_SIZE", "MODEL.HEATMAP_SIZE", "MODEL.SIMDR_SPLIT_RATIO"),
)
DECODING_KEYS = (
    *("MODEL.SIGMA", "MODEL.SIMDR_SIGMA", "DATASET.COLOR_RGB"),
    *("TEST.FLIP_TEST", "TEST.SHIFT_HEATMAP"),
    *("TEST.POST_PROCESS", "TEST.REFINE", "TEST.BLUR_KERNEL"),
)


@dataclass(frozen=True)
class Description:
    """What is inside a file.

    decodes: uint8 RGB crops (N, 3, H, W) in, keypoints (N, K, 2) in crop pixels and scores (N, K)
        out; else normalised crops in, the network's outputs out.
    dynamic_batch: N is any number; else it is 1.
    joints: names of the K joints.
    flip_pairs: of joints, where a flip test is inside.
    settings: the experiment's, as far as the file depends on them.
    """

    decodes: bool
    dynamic_batch: bool
    joints: list[str]
    flip_pairs: list[list[int]]
    settings: dict[str, Any]

    @classmethod
    def of(
        cls, cfg: CfgNode, skeleton: Skeleton, decodes: bool, dynamic_batch: bool
    ) -> "Description":
        """The description of a file to be written for the experiment ``cfg``."""
        keys = NETWORK_KEYS + (DECODING_KEYS if decodes else ())
        settings = {key: _setting(cfg, key) for key in keys}
        has_flip_test = decodes and cfg.TEST.FLIP_TEST
        pairs = [list(pair) for pair in skeleton.flip_pairs] if has_flip_test else []
        return cls(decodes, dynamic_batch, list(skeleton.names), pairs, settings)

    @classmethod
    def read(cls, path: Path, text: str | None) -> "Description":
        """From the text that ``write`` gave; an InputError where it is none of ours."""
        try:
            fields = json.loads(text or "")
            if "is_single" in fields:  # the opposite of dynamic_batch, in older files
                fields["dynamic_batch"] = not fields.pop("is_single")
            return cls(**fields)
        except (ValueError, TypeError):
            raise InputError(
                f"{path}: does not say what it holds; tools/export.py writes files that do"
            ) from None

    def write(self) -> str:
        return json.dumps(asdict(self))

    def check(self, path: Path, cfg: CfgNode, skeleton: Skeleton) -> None:
        """Refuse a file that was made for another experiment."""
        for key, value in self.settings.items():
            wanted = _setting(cfg, key)
            if value != wanted:
                raise InputError(
                    f"{path}: was exported with {key} {value}, but the experiment has {wanted}"
                )
        if self.joints != list(skeleton.names):
            raise InputError(f"{path}: its joints are not those of {cfg.DATASET.DATASET}")
        pairs = [list(pair) for pair in skeleton.flip_pairs]
        if self.flip_pairs and sorted(self.flip_pairs) != sorted(pairs):
            raise InputError(f"{path}: its flip test swaps other joints than DATASET.FLIP_PAIRS")


def _setting(cfg: CfgNode, key: str) -> Any:
    section, _, name = key.partition(".")
    value = cfg.get(section, {}).get(name)  # the file may be of another version
    return list(value) if isinstance(value, (list, tuple)) else value


class Runner:
    """An exported file, opened: a function of its input that returns its outputs, on the CPU."""

    description: Description

    def __call__(self, x: Tensor) -> Outputs:
        if self.description.dynamic_batch or len(x) == 1:
            return self._run(x)
        outputs = [self._run(one) for one in x.split(1)]
        return tuple(torch.cat(parts) for parts in zip(*outputs, strict=True))

    def _run(self, x: Tensor) -> Outputs:
        raise NotImplementedError


class OnnxRunner(Runner):
    """By ONNX Runtime, on as many threads as PyTorch."""

    def __init__(self, path: Path, precision: str, device: torch.device) -> None:
        self._session = onnx_session(path, device)
        stored = self._session.get_modelmeta().custom_metadata_map
        self.description = Description.read(path, stored.get(ENTRY))
        self._name = self._session.get_inputs()[0].name

    def _run(self, x: Tensor) -> Outputs:
        return tuple(map(torch.from_numpy, self._session.run(None, {self._name: x.numpy()})))


def onnx_session(path: Path, device: torch.device) -> Any:
    """An ``onnxruntime.InferenceSession``; on a GPU where the device is one and the package has
    it."""
    onnxruntime = need("onnxruntime", str(path))
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.log_severity_level = 3  # what it would say of its own optimisations helps nobody
    wanted = ["CPUExecutionProvider"]
    if device.type == "cuda":
        wanted.insert(0, "CUDAExecutionProvider")
    providers = [name for name in wanted if name in onnxruntime.get_available_providers()]
    return _opened(
        path, lambda: onnxruntime.InferenceSession(str(path), options, providers=providers)
    )


class OpenVinoRunner(Runner):
    """By OpenVINO on the CPU, on as many threads as PyTorch.

    The graph is compiled for the first single crop, and once more for any number of them when
    several come: knowing the number makes networks with many small layers twice as fast.
    """

    def __init__(self, path: Path, precision: str, device: torch.device) -> None:
        openvino = need("openvino", str(path))
        if precision == "bfloat16" and not has_bfloat16(torch.device("cpu")):
            raise InputError("precision: this CPU has no bfloat16; float32 is what it can do")
        if not path.with_suffix(".bin").is_file():
            raise InputError(f"{path}: its weights are missing: {path.with_suffix('.bin').name}")
        self._core = openvino.Core()
        self._model = _opened(path, lambda: self._core.read_model(path))
        stored = self._model.get_rt_info([ENTRY]).astype(str) if self._has_entry() else None
        self.description = Description.read(path, stored)
        self._settings = openvino_settings(precision)
        self._requests: dict[bool, Any] = {}  # by whether the batch is dynamic

    def _has_entry(self) -> bool:
        return self._model.has_rt_info([ENTRY])

    def _run(self, x: Tensor) -> Outputs:
        dynamic_batch = len(x) > 1
        if dynamic_batch not in self._requests:
            model = self._model.clone()
            model.reshape([-1 if dynamic_batch else 1, *x.shape[1:]])
            compiled = self._core.compile_model(model, "CPU", self._settings)
            self._requests[dynamic_batch] = compiled.create_infer_request()
        outputs = self._requests[dynamic_batch].infer({0: x.numpy()})
        return tuple(torch.from_numpy(output.copy()) for output in outputs.values())


def openvino_settings(precision: str) -> dict[str, Any]:
    """For ``openvino.Core.compile_model``: quick single answers, on as many threads as PyTorch."""
    return {
        "INFERENCE_PRECISION_HINT": {"float32": "f32", "bfloat16": "bf16"}[precision],
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_NUM_THREADS": torch.get_num_threads(),
    }


class TorchScriptRunner(Runner):
    """By PyTorch, without this project's code; on the CPU, on which it was traced."""

    def __init__(self, path: Path, precision: str, device: torch.device) -> None:
        extra = {ENTRY: ""}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # PyTorch would rather have its newer format
            self._module = _opened(
                path, lambda: torch.jit.load(str(path), map_location="cpu", _extra_files=extra)
            )
        stored = extra[ENTRY]
        text = stored.decode(errors="replace") if isinstance(stored, bytes) else stored
        self.description = Description.read(path, text)

    @torch.inference_mode()
    def _run(self, x: Tensor) -> Outputs:
        return as_outputs(self._module(x))


RUNNERS: dict[str, Callable[[Path, str, torch.device], Runner]] = {
    ".onnx": OnnxRunner,
    ".xml": OpenVinoRunner,
    ".ts": TorchScriptRunner,
    ".torchscript": TorchScriptRunner,
}


def is_exported(path: str | Path) -> bool:
    """Whether a file is called as those of ``lib.deploy.export`` are."""
    return Path(path).suffix.lower() in RUNNERS


def check_precision(precision: str, weights: str | Path | None = None) -> None:
    """Refuse what is none of ``PRECISIONS``, or not what the file ``weights`` can be run in."""
    if precision not in PRECISIONS:
        raise InputError(f"precision: must be {' or '.join(PRECISIONS)}, not {precision!r}")
    is_fixed = weights and is_exported(weights) and Path(weights).suffix != ".xml"
    if is_fixed and precision != "float32":
        raise InputError(
            f"precision: {Path(weights).name} runs in float32; {precision} is for OpenVINO's .xml "
            "and for PyTorch's weights"
        )


def open_exported(
    path: Path, precision: str = "float32", device: torch.device | None = None
) -> Runner:
    """The file at ``path``, run by what its suffix, a key of ``RUNNERS``, stands for.

    Raises:
        InputError: no such file, one that cannot be read or is not from ``lib.deploy.export``, a
            package that is missing, a precision that it cannot be run in.
    """
    if not path.is_file():
        raise InputError(f"{path}: there is no such file")
    check_precision(precision, path)
    return RUNNERS[path.suffix.lower()](path, precision, device or torch.device("cpu"))


def need(package: str, what: str) -> ModuleType:
    """An optional package; an InputError that says how to get it where it is missing."""
    try:
        return importlib.import_module(package)
    except ImportError:
        raise InputError(
            f"{what}: needs a package that is not here: pip install {package} (all that exporting "
            "needs: pip install -r requirements-export.txt)"
        ) from None


def _opened(path: Path, opening: Callable[[], Any]) -> Any:
    try:
        return opening()
    except Exception as error:  # each package has its own kinds
        lines = [line for line in str(error).splitlines() if line.strip()]
        raise InputError(
            f"{path}: cannot be read: {lines[-1].strip() if lines else error}"
        ) from None
