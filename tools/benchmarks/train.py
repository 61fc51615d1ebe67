"""Time training, including data loading, against a plain PyTorch implementation."""

import argparse
import copy
import tempfile
from collections.abc import Callable

import numpy as np
import torch
from torch import nn
from torch.utils.data import DataLoader
from yacs.config import CfgNode

from benchmarks import plain, recipes
from benchmarks.measure import Row
from lib.config import skeleton_of
from lib.core import build_task
from lib.core.backends import network_backend
from lib.core.codecs import build_codec
from lib.core.optim import build_optimizer
from lib.core.train import Stats, Updater, train_epoch
from lib.dataset import build_dataset
from lib.dataset.loading import train_loader
from lib.dataset.top_down import TopDownDataset
from lib.models import build_model
from lib.utils.compiling import compile_in_place
from lib.utils.devices import autocast_type, choose_devices, choose_workers, to_devices

LR = 1e-4
TOLERANCE = {torch.float32: 1e-3, torch.bfloat16: 0.05, torch.float16: 0.05}  # relative to the loss


def add_options(parser: argparse.ArgumentParser) -> None:
    recipes.add_options(parser, 8, "training steps per measurement", has_weights=False)


def run(args: argparse.Namespace) -> list[Row]:
    """Train with a plain PyTorch implementation and this project alternately.

    The mean losses of the first runs are compared.
    """
    with tempfile.TemporaryDirectory() as folder:
        cfg = recipes.load_with_synthetic_data(args, folder)
        samples = args.count * cfg.TRAIN.BATCH_SIZE_PER_GPU
        recipes.draw(folder, "train", samples)
        device = choose_devices(cfg.GPUS)[0]
        dataset = build_dataset(cfg, "train", is_train=True)
        dataset.table = dataset.table.select(np.arange(samples))
        torch.manual_seed(0)
        network = build_model(cfg)
        dtype = (cfg.TRAIN.AMP and autocast_type([device])) or torch.float32
        runs = [
            plain_training(cfg, copy.deepcopy(network).to(device), dataset),
            training(cfg, network, dataset, device, dtype),
        ]
        measured = recipes.take_turns(runs, args.repeats, device)
    expected, loss = (one.first.loss for one in measured)
    agrees = abs(loss - expected) < TOLERANCE[dtype] * expected
    flops = 3 * recipes.forward_flops(network, cfg)  # a backward pass takes twice as many
    return recipes.compare("training, per image", measured, flops, device, dtype, agrees)


def plain_training(
    cfg: CfgNode, network: nn.Module, dataset: TopDownDataset
) -> Callable[[int], Stats]:
    """Return a function that trains for an epoch with a plain PyTorch implementation."""
    codec = build_codec(cfg, skeleton_of(cfg))
    optimizer = torch.optim.Adam(network.parameters(), LR)
    size, workers = cfg.TRAIN.BATCH_SIZE_PER_GPU, choose_workers(cfg.WORKERS)
    sampler = train_loader(dataset, size, 0, cfg.TRAIN.SHUFFLE).sampler
    samples = plain.SamplesWithTargets(dataset, codec)
    loader = DataLoader(
        samples, size, sampler=sampler, num_workers=workers, persistent_workers=workers > 0
    )

    def train(epoch: int) -> Stats:
        sampler.epoch = epoch
        return plain.train_epoch(network, codec, loader, optimizer, cfg.DATASET.COLOR_RGB)

    return train


def training(
    cfg: CfgNode,
    network: nn.Module,
    dataset: TopDownDataset,
    device: torch.device,
    dtype: torch.dtype,
) -> Callable[[int], Stats]:
    """Return a function that trains for an epoch as tools/train.py does."""
    network = to_devices(network, [device])
    if cfg.TRAIN.COMPILE:
        compile_in_place(network, [device], "TRAIN.COMPILE")
    backend = network_backend(cfg, network, build_codec(cfg, skeleton_of(cfg)), device)
    task = build_task(cfg, backend, None if dtype == torch.float32 else dtype)
    optimizer = build_optimizer(cfg, network)
    scaler = torch.amp.GradScaler(device.type, enabled=dtype == torch.float16)
    update = Updater(optimizer, dataset.image_files, network.buffers(), scaler=scaler)
    size, workers = cfg.TRAIN.BATCH_SIZE_PER_GPU, choose_workers(cfg.WORKERS)
    pin_memory = cfg.PIN_MEMORY and device.type == "cuda"
    loader = train_loader(dataset, size, workers, cfg.TRAIN.SHUFFLE, pin_memory)

    def train(epoch: int) -> Stats:
        return train_epoch(
            task, loader, optimizer, lambda *_: LR, epoch, cfg.PRINT_FREQ, update=update
        )

    return train
