"""Time inference from crops to keypoints, against a plain PyTorch implementation."""

import argparse
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from benchmarks import plain, recipes
from benchmarks.forward import build_network
from benchmarks.measure import Row, wall_clock
from lib.config import load_config, skeleton_of
from lib.core.backends import build_backend, load_network
from lib.core.codecs import build_codec
from lib.core.train import Stats
from lib.deploy.parity import drawn_crops
from lib.utils.devices import choose_devices

PEOPLE = 16  # crops to compare keypoints on
PRECISIONS = {"float32": torch.float32, "bfloat16": torch.bfloat16}


def add_options(parser: argparse.ArgumentParser) -> None:
    recipes.add_options(parser, 1, "crops in a batch")
    text = "precision of this project's network; the plain code uses float32 (default: %(default)s)"
    parser.add_argument("--precision", default="float32", choices=PRECISIONS, help=text)


def run(args: argparse.Namespace) -> list[Row]:
    """Predict with a plain PyTorch implementation and this project alternately.

    The keypoints are compared, too, unless the precision is bfloat16.
    """
    cfg = load_config(args.cfg, args.opts)
    recipes.prepare(args, cfg)
    device = choose_devices(cfg.GPUS)[0]
    weights = build_network(cfg, args.weights, torch.device("cpu")).state_dict()
    skeleton = skeleton_of(cfg)
    codec = build_codec(cfg, skeleton)
    network = load_network(cfg, weights, device, fold=False)
    backend = build_backend(cfg, skeleton, weights, device, args.precision)
    crops = drawn_crops(cfg, max(args.count, PEOPLE))
    settings = (cfg.DATASET.COLOR_RGB, cfg.TEST.FLIP_TEST)
    own_crops = crops[: args.count]
    backend(own_crops)  # first, because only the first batch size gets a CUDA graph
    found, _ = backend(crops[:PEOPLE])
    expected, _ = plain.predict(network, codec, crops[:PEOPLE], *settings)
    agrees = args.precision != "float32" or recipes.keypoints_agree(found, expected, device)
    runs = [
        timed(partial(plain.predict, network, codec, own_crops, *settings), args.count),
        timed(partial(backend, own_crops), args.count),
    ]
    measured = recipes.take_turns(runs, args.repeats, device)
    flops = recipes.forward_flops(network, cfg) * (2 if cfg.TEST.FLIP_TEST else 1)
    name = f"inference, batch of {args.count}, per image"
    return recipes.compare(name, measured, flops, device, PRECISIONS[args.precision], agrees)


def timed(predict: Callable[[], tuple[Tensor, Tensor]], samples: int) -> Callable[[int], Stats]:
    """Return a function that times a call of ``predict``, after an untimed one as warm-up."""

    def run(_: int) -> Stats:
        predict()
        start = wall_clock()
        predict()
        return Stats(0.0, 0.0, samples, wall_clock() - start, 0.0, False)

    return run
