"""Code shared by the comparisons with a plain PyTorch implementation (plain.py)."""

import argparse
import ctypes
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from cli import set_cudnn
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode
from yacs.config import CfgNode

from benchmarks.measure import Row, add_common_options, fastest, process_memory, wall_clock
from lib.config import is_bottom_up, load_config
from lib.core.train import Stats
from lib.figures.write import write_figures
from lib.keypoints.skeletons import COCO
from lib.utils.errors import InputError

# On GPUs, convolutions use TensorFloat-32, which has the 10 fraction bits of float16.
MAX_DISTANCE = 0.5  # pixels
MIN_SHARE = {"cpu": 0.99, "cuda": 0.95}  # of the keypoints; see keypoints_agree


class Measured(NamedTuple):
    """Statistics of the first and of the fastest run, and the peak memory of all runs in MiB."""

    first: Stats
    fastest: Stats
    memory: float


def add_options(
    parser: argparse.ArgumentParser, default_count: int, items: str, has_weights: bool = True
) -> None:
    text = "number of times to measure each implementation, at least 2; the fastest is reported"
    add_common_options(parser, 4, text, has_weights)
    text = f"number of {items} (default: %(default)s)"
    parser.add_argument("--count", type=int, default=default_count, metavar="N", help=text)


def load_with_synthetic_data(args: argparse.Namespace, folder: str) -> CfgNode:
    """Load the experiment's configuration, with a data set of synthetic people in ``folder``.

    Raises:
        InputError: an option is invalid, the experiment is bottom-up, or its joints are not COCO's.
    """
    settings = {
        "DATASET.DATASET": "figures",
        "DATASET.ROOT": folder,
        "DATASET.TRAIN_SET": "train",
        "DATASET.TEST_SET": "val",
        "DATASET.DATA_FORMAT": "jpg",
        "TEST.USE_GT_BBOX": "True",
        "TRAIN.OPTIMIZER": "adam",
    }
    words = [word for pair in settings.items() for word in pair]
    cfg = load_config(args.cfg, [*args.opts, *words])
    prepare(args, cfg)
    if len(COCO) != cfg.MODEL.NUM_JOINTS:
        raise InputError(
            f"--cfg: {args.cfg} must have COCO's 17 joints, as the synthetic people have"
        )
    return cfg


def prepare(args: argparse.Namespace, cfg: CfgNode) -> None:
    """Check the options, and apply the CUDNN.* settings to PyTorch.

    Raises:
        InputError: an option is invalid, or the experiment is bottom-up.
    """
    if args.count < 1 or args.repeats < 2:
        raise InputError("--count: must be 1 or more; --repeats: must be 2 or more")
    if is_bottom_up(cfg):
        raise InputError(f"--cfg: {args.cfg} is a bottom-up network; use a top-down one")
    set_cudnn(cfg)


def draw(folder: str, split: str, images: int) -> None:
    write_figures(Path(folder), {split: images}, workers=1)


def take_turns(
    runs: Sequence[Callable[[int], Stats]], repeats: int, device: torch.device
) -> list[Measured]:
    """Call the functions alternately, ``repeats`` times each, and measure them.

    Each call gets its number, from 0.
    """
    stats: list[list[Stats]] = [[] for _ in runs]
    memory = [0.0] * len(runs)
    for turn in range(repeats):
        for number, run in enumerate(runs):
            reset_memory(device)
            stats[number].append(run(turn))
            memory[number] = max(memory[number], peak_memory(device))
    best = [min(own, key=lambda one: one.seconds) for own in stats]
    return [Measured(own[0], *rest) for own, *rest in zip(stats, best, memory, strict=True)]


def compare(
    name: str,
    measured: Sequence[Measured],
    flops: float,
    device: torch.device,
    dtype: torch.dtype,
    agrees: bool,
) -> list[Row]:
    """Return the rows of the plain PyTorch implementation and of this project.

    A remark such as "40% of peak" compares the speed with that of a large matrix product.

    Args:
        measured: measurements of the plain PyTorch implementation and of this project.
        flops: floating-point operations of one image.
        dtype: data type of this project's network; the plain PyTorch implementation uses float32.
    """
    times = [1e3 / one.fastest.speed for one in measured]
    rows = []
    for implementation, one, time, own_dtype in zip(
        ("plain", "ours"), measured, times, (torch.float32, dtype), strict=True
    ):
        share = one.fastest.speed * flops / matmul_flops(device, own_dtype)
        waiting = one.fastest.data_seconds / one.fastest.seconds
        remark = f"{one.fastest.speed:.1f} images/s, {waiting:.0%} waiting for data, "
        remark += f"{one.memory:.0f} MiB, {share:.0%} of peak"
        rows.append(Row(f"{name}, {implementation}", "ms", time, times[0], remark, agrees))
    return rows


def keypoints_agree(found: Tensor, expected: Tensor, device: torch.device) -> bool:
    """Return True if nearly all keypoints (N, K, 2) are at most ``MAX_DISTANCE`` apart.

    If two maxima of a heatmap are almost equal, rounding decides which one is chosen.
    """
    is_equal = torch.linalg.vector_norm(found - expected, dim=-1) <= MAX_DISTANCE
    return bool(is_equal.float().mean() >= MIN_SHARE[device.type])


def forward_flops(network: nn.Module, cfg: CfgNode) -> float:
    """Count the floating-point operations of a forward pass for one image."""
    width, height = cfg.MODEL.IMAGE_SIZE
    image = torch.zeros(1, 3, height, width, device=next(network.parameters()).device)
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        network.eval()(image)
    return counter.get_total_flops()


def matmul_flops(device: torch.device, dtype: torch.dtype) -> float:
    """Measure the floating-point operations per second of a large matrix product."""
    size = 8192 if device.type == "cuda" else 2048
    matrix = torch.randn(size, size, device=device).to(dtype)
    settings = torch.backends.cuda.matmul
    before, settings.allow_tf32 = settings.allow_tf32, True  # as in convolutions
    (seconds,) = fastest([lambda: matrix @ matrix], 5, wall_clock, warm_up=True)
    settings.allow_tf32 = before
    return 2 * size**3 / seconds


def reset_memory(device: torch.device) -> None:
    """Start a new measurement for ``peak_memory``."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    else:
        process_memory("VmHWM")  # fails where memory cannot be measured
        trim = getattr(ctypes.CDLL(None), "malloc_trim", lambda _: None)
        trim(0)  # return free memory to the system
        Path("/proc/self/clear_refs").write_text("5", encoding="utf-8")  # 5 resets VmHWM


def peak_memory(device: torch.device) -> float:
    """Return the peak memory in MiB, of the tensors on a GPU or otherwise of the process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    return process_memory("VmHWM")
