"""Time the prediction of keypoints from an image and a box, with each inference backend."""

import argparse
import tempfile
from functools import cache, partial
from pathlib import Path

import cv2
import numpy as np
import torch
from yacs.config import CfgNode

from benchmarks.forward import build_network, make_available
from benchmarks.measure import Row, add_common_options, fastest, wall_clock
from lib.config import is_bottom_up, load_config, skeleton_of
from lib.core.backends import Backend, build_backend, load_network
from lib.core.codecs import build_codec
from lib.core.exported import Description, trust_torchscript
from lib.core.inference import Predictor
from lib.dataset.image import read_image
from lib.deploy.export import MAIN_SUFFIX, ONNX, OPENVINO, TORCHSCRIPT, decoding_network, export
from lib.deploy.parity import difference, real_crops
from lib.figures.drawing import draw_scene
from lib.utils.devices import has_bfloat16, keep_memory
from lib.utils.errors import InputError

CPU = torch.device("cpu")
PLAIN, FOLDED, OPENVINO_BF16 = "PyTorch, plain", "PyTorch, folded", "openvino, bfloat16"
PEOPLE = 16  # crops to compare keypoints on
TOLERANCE = 0.05  # crop pixels, for joints that are stable (see lib.deploy.parity.difference)


def add_options(parser: argparse.ArgumentParser) -> None:
    add_common_options(parser, 15, "number of timed runs; the fastest is reported")
    text = "image of one person (default: a synthetic person)"
    parser.add_argument("--image", metavar="FILE", help=text)


def run(args: argparse.Namespace) -> list[Row]:
    """Time ``Predictor`` with each backend on one box, and compare keypoints on several crops."""
    if args.repeats < 1:
        raise InputError("--repeats: must be 1 or more")
    cfg = load_config(args.cfg, args.opts)
    if is_bottom_up(cfg):
        raise InputError(f"--cfg: {args.cfg} is a bottom-up network; use a top-down one")
    keep_memory()
    image, box = image_and_box(args.image)
    weights = build_network(cfg, args.weights, CPU).state_dict()
    with tempfile.TemporaryDirectory() as folder:
        backends = make_backends(cfg, weights, Path(folder))
        crops, _ = real_crops(cfg, PEOPLE)
        reference = backends[PLAIN]
        found = [difference(backend, reference, crops) for backend in backends.values()]
        predictors = [Predictor(cfg, backend=backend) for backend in backends.values()]
        runs = [partial(predictor, image, [box]) for predictor in predictors]
        times = fastest(runs, args.repeats, wall_clock, warm_up=True)
    return [
        Row(
            name,
            "ms",
            1e3 * seconds,
            1e3 * times[0],
            f"{d.stable} of {d.joints} joints stable, largest difference {d.stable_largest:.3f} px",
            # In bfloat16, differences above the tolerance are normal.
            name == OPENVINO_BF16 or d.stable_largest < TOLERANCE,
        )
        for name, seconds, d in zip(backends, times, found, strict=True)
    ]


def image_and_box(path: str | None) -> tuple[np.ndarray, tuple[float, ...]]:
    """Return an RGB image and the box of one person in it.

    If ``path`` is given, the box is the whole image. Otherwise, the image shows synthetic people.
    """
    if path:
        image = cv2.cvtColor(read_image(path), cv2.COLOR_BGR2RGB)
        return image, (0, 0, image.shape[1], image.shape[0])
    image, people = draw_scene(0, "val", 0)
    return image, people[0]["bbox"]


def make_backends(cfg: CfgNode, weights: dict, folder: Path) -> dict[str, Backend]:
    """Return the backends that can run on this machine, by name.

    Exported files have a batch size of 1.
    """
    skeleton = skeleton_of(cfg)
    codec = build_codec(cfg, skeleton)
    folded = load_network(cfg, weights, CPU)
    module = decoding_network(cfg, folded, codec)
    description = Description.of(cfg, skeleton, decodes=True, dynamic_batch=False)

    @cache
    def exported(kind: str) -> Path:
        for suffix, content in export(module, description, kind).items():
            (folder / kind).with_suffix(suffix).write_bytes(content)
        return (folder / kind).with_suffix(MAIN_SUFFIX[kind])

    trust_torchscript()
    makers = {
        PLAIN: lambda: build_backend(cfg, skeleton, weights, fold=False),
        FOLDED: lambda: build_backend(cfg, skeleton, weights),
        TORCHSCRIPT: lambda: build_backend(cfg, skeleton, exported(TORCHSCRIPT)),
        ONNX: lambda: build_backend(cfg, skeleton, exported(ONNX)),
        OPENVINO: lambda: build_backend(cfg, skeleton, exported(OPENVINO)),
    }
    if has_bfloat16(CPU):
        makers[OPENVINO_BF16] = lambda: build_backend(
            cfg, skeleton, exported(OPENVINO), precision="bfloat16"
        )
    return make_available(makers)
