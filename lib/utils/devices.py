"""Devices, memory settings and random seeds."""

import ctypes
import functools
import logging
import os
import random
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from lib.utils import distributed
from lib.utils.logs import counted

logger = logging.getLogger(__name__)

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # options of glibc's mallopt, from malloc.h
RANK_STRIDE = 1_000_003  # difference between the seeds of consecutive ranks


def choose_devices(gpus: Sequence[int]) -> list[torch.device]:
    """Return the GPUs of ``gpus`` that exist, or the CPU if none does; log those that are missing.

    In a distributed run, each process uses one GPU, whatever ``gpus`` is. The first GPU becomes
    PyTorch's current device. On the CPU, this calls ``keep_memory``.
    """
    if distributed.world_size() > 1:
        gpus = [distributed.local_gpu()]
    available = torch.cuda.device_count()
    chosen = [torch.device("cuda", gpu) for gpu in gpus if 0 <= gpu < available]
    if not chosen:
        found = f"none of GPUS {tuple(gpus)} exists (GPUs found: {available})"
        reason = found if available else "no GPU found"
        threads = counted(torch.get_num_threads(), "thread")
        logger.info("=> %s; running on the CPU with %s", reason, threads)
        keep_memory()
        return [torch.device("cpu")]
    if len(chosen) < len(gpus):
        found = f"{len(chosen)} of the {len(gpus)} devices in GPUS {tuple(gpus)}"
        logger.info("=> only %s exist: the total batch size is reduced accordingly", found)
    # Memory is pinned for the current device, and torch.cuda.synchronize waits for it.
    torch.cuda.set_device(chosen[0])
    return chosen


@functools.cache
def keep_memory() -> None:
    """Make malloc keep freed memory for later tensors instead of returning it to the system.

    On a CPU a network frees megabytes after every layer. By default glibc returns them to the
    system, and page faults then take up to a quarter of the time of a lightweight network. With
    this setting, malloc keeps up to 1 GiB per arena (each thread may have one). Blocks above 32 MiB
    are still returned.

    The setting is permanent and affects the whole process and its forks. So only programs
    should call this function or ``choose_devices``, not the rest of ``lib``. Without glibc, this
    function has no effect.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if os.name == "posix" else None
    if mallopt is not None:
        mallopt(M_TRIM_THRESHOLD, 1 << 30)
        mallopt(M_MMAP_THRESHOLD, 32 << 20)  # the maximum allowed


def to_channels_last(model: torch.nn.Module) -> torch.nn.Module:
    """Convert the weights of ``model`` to the channels-last layout, in place.

    Small HRNets train 1.3 to 1.5 times as fast with this layout, on 2 CPU cores in float32 and on
    an H200 in bfloat16.
    """
    for parameter in model.parameters():
        # The layout exists only for 4 dimensions; Dite-HRNet has kernels with 5.
        if parameter.dim() == 4:
            parameter.data = parameter.data.contiguous(memory_format=torch.channels_last)
    return model


def to_devices(model: torch.nn.Module, devices: list[torch.device]) -> torch.nn.Module:
    """Move ``model`` to one device, in channels-last, or to several with DataParallel."""
    model = model.to(devices[0])
    if len(devices) > 1:
        return torch.nn.DataParallel(model, device_ids=devices)
    return to_channels_last(model)


def to_like(values: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    """Convert ``values`` to the dtype and device of ``like``; the CPU does not wait for a GPU."""
    return values.to(like, non_blocking=True)


def choose_workers(requested: int) -> int:
    """Return the number of data-loading workers: ``requested``, but at most one for each core.

    More workers than cores would only use memory.
    """
    if hasattr(os, "sched_getaffinity"):
        return min(requested, len(os.sched_getaffinity(0)))
    return min(requested, os.cpu_count() or 1)


def has_bfloat16(device: torch.device) -> bool:
    """Return True if ``device`` supports bfloat16 in hardware; emulation is slower than float32."""
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    try:
        flags = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:  # not Linux
        return False
    return device.type == "cpu" and ("avx512_bf16" in flags or "amx_bf16" in flags)


def autocast_type(devices: list[torch.device]) -> torch.dtype | None:
    """Return the type for training with autocast, or None for float32; log the choice.

    The type is bfloat16 if the hardware supports it, else float16 on a GPU, which needs a
    ``GradScaler``.
    """
    chosen, reason = None, ""
    if len(devices) > 1:  # autocast does not extend to the threads of DataParallel
        reason = ": DataParallel does not support autocast"
    elif has_bfloat16(devices[0]):
        chosen = torch.bfloat16
    elif devices[0].type == "cuda":
        chosen = torch.float16
    else:
        reason = ": this CPU has no bfloat16"
    logger.info("=> training in %s%s", str(chosen or torch.float32).removeprefix("torch."), reason)
    return chosen


def rank_seed(seed: int) -> int:
    """Return the seed of this process: ``seed`` for rank 0, a different one for each other rank."""
    return seed + distributed.rank() * RANK_STRIDE


def step_seed(seed: int, epoch: int, step: int) -> int:
    """Return the seed of a training step."""
    # The 3 keeps this seed apart from those in lib/dataset, which have shorter tuples, or tuples
    # that end in 1 or 2.
    return int(np.random.SeedSequence((seed, epoch, step, 3)).generate_state(1)[0])


def seed_everything(seed: int) -> None:
    """Seed the global generators of Python, NumPy and PyTorch, differently for each rank."""
    seed = rank_seed(seed)
    random.seed(seed)
    np.random.seed(seed % 2**32)  # noqa: NPY002 - other libraries may use it
    torch.manual_seed(seed)
