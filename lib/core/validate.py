"""Evaluation: one pass over a split."""

import time
from dataclasses import dataclass

import torch

from lib.core.task import Task
from lib.core.train import EpochStats, Meter, Observer
from lib.dataset.loading import TestLoader, to_device
from lib.keypoints.poses import Poses
from lib.utils import distributed
from lib.utils.logs import progress


@dataclass
class Validation:
    """poses: everybody of the split, in the order of its table, on all processes."""

    poses: Poses
    stats: EpochStats


@torch.inference_mode()
def validate(
    task: Task, loader: TestLoader, print_freq: int = 100, observe: Observer | None = None
) -> Validation:
    """Predict everybody of a split once.

    There is no loss and no accuracy if the table has no annotated joints, as with detected boxes.

    Raises:
        InputError: a prediction is NaN or Inf.
    """
    task.eval()
    found: list[Poses] = []
    whole, part = Meter(task.device), Meter(task.device)
    asked = time.perf_counter()
    for step, batch in enumerate(progress(loader, len(loader), "Test")):
        waited = time.perf_counter() - asked
        batch = to_device(batch, task.device)
        outputs = task.forward(batch)
        losses = task.loss(outputs, batch) if loader.has_joints else None
        found.append(task.predict(outputs, batch))
        for meter in (whole, part):
            meter.add(losses, len(batch["index"]), waited)
        if observe is not None and step % print_freq == 0:
            observe(step, part.read(), batch, outputs)
            part.restart()
        asked = time.perf_counter()
    joints = len(task.skeleton)
    own = Poses.concatenate([Poses.empty(joints), *(poses.numpy() for poses in found)])
    poses = Poses.concatenate(distributed.gather(own)).sorted_unique()
    poses.check_finite()
    return Validation(poses, whole.read_all())
