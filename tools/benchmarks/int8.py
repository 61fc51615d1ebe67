"""Quantization for tools/export.py: comparison with float32, and a report (the certificate)."""

import json
import sys
import tempfile
from collections.abc import Callable
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from yacs.config import CfgNode

from benchmarks.measure import fastest, machine, wall_clock
from lib.config import is_bottom_up, skeleton_of
from lib.core import build_task
from lib.core.backends import Backend, build_backend, exported_backend
from lib.core.exported import open_exported
from lib.core.validate import validate
from lib.dataset import build_dataset
from lib.dataset.loading import test_loader
from lib.deploy.distances import CropDistances, SceneDistances, build_distances
from lib.deploy.export import ONNX, OPENVINO, openvino_content, openvino_model, write_draft
from lib.deploy.int8 import AccuracyControl, Quantized, calibration_inputs, quantize
from lib.utils.devices import choose_workers
from lib.utils.errors import InputError

FLOAT_NAMES = {"onnxruntime_float32": "ONNX Runtime", "openvino_float32": "OpenVINO"}
PACKAGES = ("nncf", "onnxruntime", "openvino")


class Counts(NamedTuple):
    """Numbers of inputs for calibration and for distances between keypoints, and of timed runs."""

    calibration: int
    distances: int
    runs: int


CROPS = Counts(300, 64, 30)
IMAGES = Counts(100, 32, 10)  # of bottom-up networks; one takes as long as many crops


class TestSet:
    """The experiment's test set, which gives scores in percent.

    Raises:
        InputError: the test set is missing or has no ground truth.
    """

    def __init__(self, cfg: CfgNode) -> None:
        dataset = build_dataset(cfg, cfg.DATASET.TEST_SET, is_train=False)
        self._cfg = cfg
        self._source = dataset.source
        unit = "images" if is_bottom_up(cfg) else "people"
        self.name = f"{cfg.DATASET.DATASET} {cfg.DATASET.TEST_SET}: {len(dataset)} {unit}"
        if not self._source.has_ground_truth:
            raise InputError(f"--int8: {self.name}: has no ground truth, so AP cannot be measured")
        self.metric = "PCKh" if self._source.metric == "PCKh" else "AP"
        workers = choose_workers(cfg.WORKERS)
        self._batches = test_loader(
            dataset, cfg.TEST.BATCH_SIZE_PER_GPU, workers, max_broken=cfg.TEST.MAX_BROKEN
        )

    def score(self, backend: Backend) -> float:
        """Return the AP or PCKh of a backend, in percent."""
        poses = validate(build_task(self._cfg, backend), self._batches).poses
        with tempfile.TemporaryDirectory() as folder:
            _, score = self._source.evaluate(poses, folder)
        return score if self.metric == "PCKh" else 100 * score


def quantize_and_check(
    cfg: CfgNode,
    float_file: Path,
    file_format: str,
    test_set: TestSet,
    calibration: Path | None,
    max_loss: float,
) -> tuple[dict[str, bytes], dict[str, Any]]:
    """Quantize a network, and compare it with float32.

    Args:
        float_file: the network as an ONNX file. Temporary files are written next to it.
        file_format: ``ONNX`` or ``OPENVINO``.
        calibration: a folder of images, or None.
        max_loss: the largest drop in the score that is accepted, in percentage points.

    Returns:
        The content of each file by suffix, and the content of the certificate.

    Raises:
        InputError: the score drops by more than ``max_loss``.
    """
    open_file = partial(build_backend, cfg, skeleton_of(cfg))
    reference = open_file(float_file)
    counts = IMAGES if is_bottom_up(cfg) else CROPS
    inputs, source = calibration_inputs(cfg, calibration, counts.calibration)
    print(f"calibration: {source}", flush=True)
    expected = test_set.score(reference)
    print(f"float32: {test_set.metric} {expected:.2f} on {test_set.name}", flush=True)
    distances = build_distances(cfg, reference, counts.distances)
    as_backend = partial(exported_backend, cfg, codec=reference.codec)
    control = AccuracyControl(test_set.score, max_loss, distances, as_backend)
    graph, description = float_file.read_bytes(), open_exported(float_file).description
    run = partial(quantize, graph, description, file_format, inputs)

    def open_draft(files: dict[str, bytes]) -> Backend:
        return open_file(write_draft(float_file.with_name("quantized") / float_file.name, files))

    quantized, layers, score = quantize_within_limit(
        run, open_draft, control, expected, test_set.metric
    )
    backend = open_draft(quantized.files)
    float_backends = {"onnxruntime_float32": reference}
    if file_format == OPENVINO:
        float_backends["openvino_float32"] = open_draft(
            openvino_content(openvino_model(graph), description)
        )
    return quantized.files, {
        "format": file_format,
        "metric": test_set.metric,
        "float32": round(expected, 2),
        "int8": round(score, 2),
        "loss": round(round(expected, 2) - round(score, 2), 2),
        "max_loss": max_loss,
        "layers": {"int8": quantized.layers, "float32": layers - quantized.layers},
        "pixels_apart": pixels_apart(backend, distances),
        "milliseconds": milliseconds(backend, float_backends, distances.inputs[0], counts.runs),
        "test_set": test_set.name,
        "calibration": source,
        **machine_entries(),
    }


def quantize_within_limit(
    run: Callable[[AccuracyControl | None], Quantized],
    open_draft: Callable[[dict[str, bytes]], Backend],
    control: AccuracyControl,
    expected: float,
    metric: str,
) -> tuple[Quantized, int, float]:
    """Quantize all layers; if the score drops too far, keep the worst layers in float32.

    Args:
        run: quantizes all layers, or fewer if it is called with ``control`` (see ``quantize``).
        open_draft: returns the backend of quantized files.
        expected: score of float32.

    Returns:
        The quantized network, the number of layers that can be quantized, and the score.

    Raises:
        InputError: the score drops too far even with the worst layers in float32.
    """
    layers = 0
    for attempt in (None, control):
        quantized = run(attempt)
        layers = layers or quantized.layers  # the first attempt quantizes all layers
        score = control.score(open_draft(quantized.files))
        loss = expected - score
        kept = f"int8 in {quantized.layers} of {layers} layers"
        change = f"{abs(loss):.2f} {'less' if loss >= 0 else 'more'}"
        print(f"{kept}: {metric} {score:.2f}, {change} than float32", flush=True)
        if loss <= control.max_loss:
            return quantized, layers, score
        if attempt is None:
            print("looking for layers to keep in float32 ...", file=sys.stderr, flush=True)
    raise InputError(
        f"--int8: loses {loss:.2f} points of {metric}, more than --max-ap-loss "
        f"{control.max_loss:g}, so nothing was written; try other images with --calibration, or "
        "a larger --max-ap-loss"
    )


def pixels_apart(backend: Backend, distances: CropDistances | SceneDistances) -> dict[str, Any]:
    """Return statistics of the distances between int8's and float32's keypoints, in input pixels.

    For a bottom-up network they include the numbers of people found by float32, int8 and both.
    The distances are those of the people that both find.
    """
    count = len(distances.inputs)
    compared = distances.compare(backend, range(count))
    entries: dict[str, Any] = {"source": distances.source, distances.unit: count}
    if distances.unit == "images":
        names = {"float32": "expected", "int8": "found", "both": "common"}
        entries["people"] = {
            name: sum(getattr(one, attribute) for one in compared)
            for name, attribute in names.items()
        }
    distance = torch.cat([one.distances for one in compared]).numpy()
    distance = distance[distance < np.inf]
    if len(distance):
        values = {
            "median": np.median(distance),
            "mean": distance.mean(),
            "percentile_99": np.percentile(distance, 99),
            "largest": distance.max(),
        }
        entries |= {name: round(float(value), 3) for name, value in values.items()}
    return entries


def milliseconds(
    backend: Backend, float_backends: dict[str, Backend], image: Tensor, repeats: int
) -> dict[str, Any]:
    """Return each backend's time for one input, and the ratio of int8 to each float32 backend."""
    runs = [partial(run.outputs, image) for run in (backend, *float_backends.values())]
    int8, *others = fastest(runs, repeats, wall_clock, warm_up=True)
    float32 = dict(zip(float_backends, others, strict=True))
    times = {name: round(1e3 * seconds, 2) for name, seconds in {"int8": int8, **float32}.items()}
    ratios = {f"ratio_to_{name}": round(int8 / value, 3) for name, value in float32.items()}
    size = f"{image.shape[2]}x{image.shape[3]}"  # height x width, as in the names of experiments
    return {"size": size} | times | ratios | {"faster_than_float32": int8 < min(others)}


def machine_entries() -> dict[str, Any]:
    """Return the machine, the versions of packages, and whether the CPU has VNNI instructions."""
    info = Path("/proc/cpuinfo")
    versions = ", ".join(f"{name} {version(name)}" for name in PACKAGES)
    vnni = "vnni" in info.read_text(encoding="utf-8") if info.exists() else None
    return {"machine": f"{machine()}, {versions}", "vnni": vnni}


def certificate_file(certificate: dict[str, Any]) -> bytes:
    """Return the content of the certificate's file."""
    return json.dumps(certificate, indent=2).encode() + b"\n"


def certificate_summary(certificate: dict[str, Any]) -> str:
    """Return the main numbers of a certificate in one line."""
    apart, times = certificate["pixels_apart"], certificate["milliseconds"]
    parts = [
        f"{certificate['metric']} {certificate['int8']:.2f} (float32: {certificate['float32']:.2f})"
    ]
    if people := apart.get("people"):
        parts.append(f"{people['both']} of {people['float32']} people found")
    if "median" in apart:
        parts.append(
            f"distance {apart['median']:.2f} pixels (median), {apart['percentile_99']:.2f} (99th "
            "percentile)"
        )
    ratio = times["ratio_to_onnxruntime_float32"]
    parts.append(
        f"{times['int8']:.1f} ms for {times['size']} ({ratio:.2f}x of float32 in ONNX Runtime)"
    )
    return ", ".join(parts)


def slower_than_float32(certificate: dict[str, Any]) -> str | None:
    """Return a warning if int8 is not faster than float32, otherwise None."""
    times = certificate["milliseconds"]
    if times["faster_than_float32"]:
        return None
    name = min((key for key in FLOAT_NAMES if key in times), key=times.get)
    other = "; --to openvino may be faster" if certificate["format"] == ONNX else ""
    return (
        f"warning: int8 is not faster here: {times['int8']:.1f} ms, float32 in "
        f"{FLOAT_NAMES[name]} {times[name]:.1f} ms{other}"
    )
