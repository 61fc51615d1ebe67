"""Evaluation: one pass over a split."""

import secrets
import shutil
import time
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from lib.core.task import Task
from lib.core.train import Meter, Observer, Stats
from lib.dataset.loading import SceneLoader, TestLoader, to_device
from lib.keypoints.poses import Poses
from lib.utils import distributed, signals
from lib.utils.errors import InputError
from lib.utils.files import make_folder
from lib.utils.logs import progress


@dataclass
class Validation:
    """Result of ``validate``: the predicted people of all processes, and statistics.

    The people are sorted as by ``Poses.sorted_unique``.
    """

    poses: Poses
    stats: Stats


@torch.inference_mode()
def validate(
    task: Task,
    loader: TestLoader | SceneLoader,
    print_freq: int = 100,
    observe: Observer | None = None,
    gather: Callable[[Poses], list[Poses]] = distributed.gather,
) -> Validation:
    """Predict all people of a split once.

    Loss and accuracy are unknown if the data set has no annotated joints, as with detected boxes.

    Args:
        observe: called every ``print_freq`` steps.
        gather: maps the poses of this process to a list with the poses of each process.

    Raises:
        InputError: a prediction is NaN or Inf, or more images are broken than allowed.
        Stopped: a signal arrived.
    """
    task.eval()
    predicted: list[Poses] = []
    total_meter, print_meter = Meter(task.device), Meter(task.device)
    step_end = time.perf_counter()
    for step, batch in enumerate(progress(loader, len(loader), "Test")):
        signals.check()
        data_seconds = time.perf_counter() - step_end
        batch = to_device(batch, task.device)
        outputs = task.forward(batch)
        losses = task.loss(outputs, batch) if loader.has_joints else None
        predicted.append(task.predict(outputs, batch))
        for meter in (total_meter, print_meter):
            meter.add(losses, len(batch["index"]), data_seconds)
        if observe is not None and step % print_freq == 0:
            observe(step, print_meter.read(), batch, outputs)
            print_meter.restart()
        step_end = time.perf_counter()
    loader.broken.report()
    joints = len(task.skeleton)
    local = Poses.concatenate([Poses.empty(joints), *(poses.numpy() for poses in predicted)])
    poses = Poses.concatenate(gather(local)).sorted_unique()
    poses.check_finite()
    return Validation(poses, total_meter.read_over_processes())


def gather_in_folder(folder: Path, own: Poses) -> list[Poses]:
    """Return the poses of each process, by rank, exchanged as files.

    The files are written to a new subfolder of ``folder``, and rank 0 removes it at the end.

    Raises:
        InputError: a file cannot be written or read.
    """
    if distributed.world_size() == 1:
        return [own]
    try:
        parts = make_folder(folder) / f"parts_{secrets.token_hex(4)}"
        parts = distributed.gather(parts)[0]
        parts.mkdir(exist_ok=True)
        np.savez(parts / f"{distributed.rank()}.npz", **vars(own))
        distributed.gather(None)  # wait until all files are written
        poses = []
        for rank in range(distributed.world_size()):
            with np.load(parts / f"{rank}.npz") as arrays:
                poses.append(Poses(**arrays))
        distributed.gather(None)  # wait until all files are read
        if distributed.is_main():
            shutil.rmtree(parts)
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        text = f"{folder}: {error}; --tmpdir must be a folder that all machines share"
        raise InputError(text) from None
    return poses
