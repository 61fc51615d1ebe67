"""Evaluation: one pass over a split."""

import time
from dataclasses import dataclass

import torch

from lib.core.task import Task
from lib.core.train import EpochStats, Meter, Observer
from lib.dataset.loading import SceneLoader, TestLoader, to_device
from lib.keypoints.poses import Poses
from lib.utils import distributed, signals
from lib.utils.logs import progress


@dataclass
class Validation:
    """Result of ``validate``: the predicted people, in the order of the table, and statistics.

    Every process has the poses of all processes.
    """

    poses: Poses
    stats: EpochStats


@torch.inference_mode()
def validate(
    task: Task,
    loader: TestLoader | SceneLoader,
    print_freq: int = 100,
    observe: Observer | None = None,
) -> Validation:
    """Predict all people of a split once.

    Loss and accuracy are unknown if the table has no annotated joints, as with detected boxes.

    Raises:
        InputError: a prediction is NaN or Inf, or more images are broken than allowed.
        Stopped: a signal arrived.
    """
    task.eval()
    predicted: list[Poses] = []
    total_meter, print_meter = Meter(task.device), Meter(task.device)
    step_end = time.perf_counter()
    for step, batch in enumerate(progress(loader, len(loader), "Test")):
        if distributed.world_size() == 1:  # with several, the others would wait for this one
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
    poses = Poses.concatenate(distributed.gather(local)).sorted_unique()
    poses.check_finite()
    return Validation(poses, total_meter.read_all())
