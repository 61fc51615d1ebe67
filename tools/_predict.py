"""The whole way's part of tools/benchmark.py: from an image to keypoints, by each backend."""

import argparse
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import cv2
import torch
from _forward import enliven, fastest_turns
from _measure import Row, digits
from torch import Tensor
from yacs.config import CfgNode

from lib.config import load_config, skeleton_of
from lib.core.backends import Backend, TorchBackend, build_backend, load_network
from lib.core.codecs import build_codec
from lib.core.exported import Description
from lib.core.inference import Predictor
from lib.dataset.image import read_image
from lib.deploy.export import Decoded, export, openvino_files
from lib.deploy.parity import STABLE_DISTANCE, Difference, difference, real_crops
from lib.figures.drawing import draw_scene
from lib.models import build_model
from lib.utils.devices import has_bfloat16, keep_memory
from lib.utils.errors import InputError

CPU = torch.device("cpu")
EAGER, FOLDED, TORCHSCRIPT = "PyTorch, as it is", "PyTorch, batch norms folded", "TorchScript"
ONNX, OPENVINO, OPENVINO_HALF = "ONNX Runtime", "OpenVINO", "OpenVINO, bfloat16"


@dataclass
class Way:
    """One backend: seconds of its fastest call, and how far its keypoints are from the first's."""

    name: str
    seconds: float
    difference: Difference


def add_predict(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--cfg", required=True, metavar="FILE", help="the experiment's YAML")
    parser.add_argument("--weights", type=Path, help="a checkpoint; else the weights are random")
    parser.add_argument("--image", metavar="FILE", help="with one person; else a drawn one")
    parser.add_argument("--repeats", type=int, default=15, help="of which the fastest counts (15)")
    parser.add_argument(
        "--people", type=int, default=16, help="crops on which keypoints are compared (16)"
    )
    parser.add_argument(
        "--dynamic-batch",
        action="store_true",
        help="export for any number of crops, not for one at a time",
    )
    parser.add_argument("opts", nargs="*", metavar="KEY VALUE", help="settings over the YAML's")


def predict(args: argparse.Namespace) -> list[Way]:
    """Time Predictor with each backend, in turns, one box a call."""
    cfg = load_config(args.cfg, args.opts)
    if args.repeats < 1 or args.people < 1:
        raise InputError("--repeats and --people must be 1 or more")
    keep_memory()
    image, box = picture(args.image)
    weights = args.weights or random_weights(cfg)
    with tempfile.TemporaryDirectory() as folder:
        backends = make_backends(cfg, weights, Path(folder), args.dynamic_batch)
        crops, _ = real_crops(cfg, args.people)
        eager = backends[EAGER]
        found = {name: difference(backend, eager, crops) for name, backend in backends.items()}
        predictors = [Predictor(cfg, backend) for backend in backends.values()]
        runs = [lambda _, p=p: p(image, [box]) for p in predictors]
        best = fastest_turns(args.repeats, CPU, runs, crops)
    return [Way(name, s, found[name]) for name, s in zip(backends, best, strict=True)]


def picture(path: str | None) -> tuple:
    """An RGB image and the box of somebody in it."""
    if path:
        image = cv2.cvtColor(read_image(path), cv2.COLOR_BGR2RGB)
        return image, (0, 0, image.shape[1], image.shape[0])
    image, people = draw_scene(0, "val", 0)
    return image, people[0]["bbox"]


def random_weights(cfg: CfgNode) -> dict[str, Tensor]:
    torch.manual_seed(0)
    network = build_model(cfg)
    width, height = cfg.MODEL.IMAGE_SIZE
    enliven(network, torch.randn(2, 3, height, width))
    return network.state_dict()


def make_backends(
    cfg: CfgNode, weights: Path | dict, folder: Path, dynamic_batch: bool
) -> dict[str, Backend]:
    """By name, the plain one first; what cannot run here is left out, and that is said."""
    skeleton = skeleton_of(cfg)
    how = (build_codec(cfg, skeleton), cfg.DATASET.COLOR_RGB, cfg.TEST.FLIP_TEST)
    network = load_network(cfg, weights, CPU)
    whole = Decoded(network, *how).eval()
    description = Description.of(cfg, skeleton, decodes=True, dynamic_batch=dynamic_batch)
    backends: dict[str, Backend] = {
        EAGER: TorchBackend(load_network(cfg, weights, CPU, folds=False), *how),
        FOLDED: TorchBackend(network, *how),
    }

    def written(files: dict[str, bytes]) -> Path:
        for suffix, content in files.items():
            (folder / "network").with_suffix(suffix).write_bytes(content)
        return (folder / "network").with_suffix([*files][-1])

    def add(name: str, path: Path, precision: str = "float32") -> None:
        backends[name] = build_backend(cfg, skeleton, path, CPU, precision)

    try:
        add(TORCHSCRIPT, written(export(whole, description, "torchscript")))
        onnx = export(whole, description, "onnx")
        add(ONNX, written(onnx))
        path = written(openvino_files(onnx[".onnx"], description))
        add(OPENVINO, path)
        if has_bfloat16(CPU):
            add(OPENVINO_HALF, path, "bfloat16")
    except InputError as error:
        print(f"the rest is left out: {error}", file=sys.stderr)
    return backends


def predict_rows(ways: list[Way]) -> list[Row]:
    """For a report in JSON: milliseconds beside the plain network's."""
    return [
        Row(way.name, "ms", 1e3 * way.seconds, 1e3 * ways[0].seconds, agree(way)) for way in ways
    ]


def agree(way: Way) -> bool | None:
    """bfloat16 is another answer on purpose."""
    return None if way.name == OPENVINO_HALF else way.difference.stable_largest < STABLE_DISTANCE


def predict_table(ways: list[Way], has_weights: bool) -> str:
    """Each backend's time, its share of the plain one's, and differences in crop pixels."""
    lines = [
        f"{'from image to keypoints, one person':<38}{'time':>9}{'ratio':>8}"
        f"{'largest':>11}{'mean':>9}  scores"
    ]
    for way in ways:
        found = way.difference
        lines.append(
            f"{way.name:<36}{digits(1e3 * way.seconds):>8} ms{way.seconds / ways[0].seconds:>7.2f}x"
            f"{found.largest:>8.3f} px{found.mean:>6.3f} px{found.scores:>8.1e}"
        )
    first = ways[0].difference
    joints = f"{first.joints} joints"
    lines.append(f"differences from the first, in pixels of the crop, over {joints}")
    if not has_weights:
        lines.append(
            f"the weights are random, {first.joints - first.stable} joints have two maxima as good "
            "as equal: give --weights for differences that mean something"
        )
    return "\n".join(lines)
