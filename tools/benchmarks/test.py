"""Time a test on images with several people, against a plain PyTorch implementation."""

import argparse
import tempfile

import torch
from torch.utils.data import DataLoader

from benchmarks import plain, recipes
from benchmarks.forward import build_network
from benchmarks.measure import Row
from lib.config import skeleton_of
from lib.core import build_task
from lib.core.backends import build_backend, load_network
from lib.core.codecs import build_codec
from lib.core.train import Stats
from lib.core.validate import validate
from lib.dataset import build_dataset
from lib.dataset.loading import test_loader
from lib.utils.devices import choose_devices, choose_workers


def add_options(parser: argparse.ArgumentParser) -> None:
    recipes.add_options(parser, 48, "images per measurement")


def run(args: argparse.Namespace) -> list[Row]:
    """Test with a plain PyTorch implementation and this project, and compare all keypoints."""
    found: dict[str, torch.Tensor] = {}
    with tempfile.TemporaryDirectory() as folder:
        cfg = recipes.load_with_synthetic_data(args, folder)
        recipes.draw(folder, "val", args.count)
        device = choose_devices(cfg.GPUS)[0]
        weights = build_network(cfg, args.weights, torch.device("cpu")).state_dict()
        dataset = build_dataset(cfg, "val", is_train=False)
        size, workers = cfg.TEST.BATCH_SIZE_PER_GPU, choose_workers(cfg.WORKERS)
        network = load_network(cfg, weights, device, fold=False)
        codec = build_codec(cfg, dataset.skeleton)
        one_by_one = DataLoader(dataset, size, num_workers=workers, persistent_workers=workers > 0)
        backend = build_backend(cfg, skeleton_of(cfg), weights, device)
        task = build_task(cfg, backend)
        loader = test_loader(dataset, size, workers, cfg.PIN_MEMORY and device.type == "cuda")

        def plain_test(_: int) -> Stats:
            settings = (cfg.DATASET.COLOR_RGB, cfg.TEST.FLIP_TEST)
            found["plain"], stats = plain.test(network, codec, dataset.crop, one_by_one, *settings)
            return stats

        def test(_: int) -> Stats:
            result = validate(task, loader)
            found["ours"] = torch.from_numpy(result.poses.keypoints[result.poses.row.argsort()])
            return result.stats

        measured = recipes.take_turns([plain_test, test], args.repeats, device)
    flops = recipes.forward_flops(network, cfg) * (2 if cfg.TEST.FLIP_TEST else 1)
    agrees = recipes.keypoints_agree(found["ours"], found["plain"], device)
    return recipes.compare("test, per person", measured, flops, device, torch.float32, agrees)
