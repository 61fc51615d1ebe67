"""One epoch of training."""

import logging
import math
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.utils.data import DataLoader

from lib.core.codecs.codec import Outputs
from lib.core.task import Losses, Task
from lib.dataset.loading import Batch, to_device
from lib.utils import distributed
from lib.utils.errors import InputError
from lib.utils.logs import progress

logger = logging.getLogger(__name__)


@dataclass
class EpochStats:
    """Means over an epoch or a part of it; without ``has_loss`` loss and accuracy are unknown,
    because an exported file hides the network's outputs or no joint is annotated."""

    loss: float
    accuracy: float
    samples: int
    seconds: float
    data_seconds: float  # of which spent waiting for data
    has_loss: bool = True

    @property
    def speed(self) -> float:
        """Samples a second."""
        return self.samples / max(self.seconds, 1e-9)


# Called with the step, the statistics since the last call, the batch and its outputs.
Observer = Callable[[int, EpochStats, Batch, Outputs], None]


class Meter:
    """Sums of loss and accuracy on the device: reading them there would make every step wait."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self.restart()

    def restart(self) -> None:
        self._sums = torch.zeros(3, device=self._device)
        self._samples = 0
        self._has_loss = True
        self._start = time.perf_counter()
        self._data_seconds = 0.0

    def add(self, losses: Losses | None, samples: int, data_seconds: float) -> None:
        """Add a batch of that size, and the seconds waited for it."""
        if losses is None:
            self._has_loss = False
        else:
            loss, joints = losses.total.detach(), losses.joints
            self._sums += torch.stack([loss * samples, losses.accuracy * joints, joints])
        self._samples += samples
        self._data_seconds += data_seconds

    def read(self) -> EpochStats:
        """The means so far in this process; waits for the device."""
        return self._stats(self._sums.tolist(), self._samples)

    def read_all(self) -> EpochStats:
        """The means so far over all processes, each of which must call this."""
        counted = torch.tensor([self._samples], dtype=torch.float64, device=self._device)
        *sums, samples = distributed.all_reduce_sum(
            torch.cat([self._sums.double(), counted])
        ).tolist()
        return self._stats(sums, int(samples))

    def _stats(self, sums: list[float], samples: int) -> EpochStats:
        loss, right, joints = sums
        return EpochStats(
            loss=loss / max(samples, 1),
            accuracy=right / max(joints, 1),
            samples=samples,
            seconds=time.perf_counter() - self._start,
            data_seconds=self._data_seconds,
            has_loss=self._has_loss,
        )


def train_epoch(
    task: Task,
    loader: DataLoader,
    optimizer: torch.optim.Optimizer,
    lr_at: Callable[[int, int], float],
    epoch: int,
    print_freq: int = 100,
    observe: Observer | None = None,
    augment: Callable[[Tensor, int], Tensor] | None = None,
) -> EpochStats:
    """Train the network of ``task`` in place, once on every batch of ``loader``
    (lib.dataset.loading.train_loader).

    Args:
        lr_at: the learning rate at (epoch, step).
        print_freq: steps between two calls of ``observe``.
        augment: changes the images (N, 3, H, W) of a batch, given the number of its step.

    Raises:
        InputError: the loss is no longer a finite number.
    """
    task.train()
    loader.sampler.epoch = epoch
    whole, part = Meter(task.device), Meter(task.device)
    asked = time.perf_counter()
    for step, batch in enumerate(progress(loader, len(loader), f"Epoch {epoch}")):
        waited = time.perf_counter() - asked
        for group in optimizer.param_groups:
            group["lr"] = lr_at(epoch, step)
        batch = to_device(batch, task.device)
        if augment is not None:
            batch["image"] = augment(batch["image"], step)
        outputs = task.forward(batch)
        losses = task.loss(outputs, batch)
        optimizer.zero_grad(set_to_none=True)
        losses.total.backward()
        optimizer.step()
        for meter in (whole, part):
            meter.add(losses, len(batch["index"]), waited)
        if step % print_freq == 0:
            stats = part.read()
            _check_finite(stats.loss, epoch, step)
            if observe is not None:
                observe(step, stats, batch, outputs)
            part.restart()
        asked = time.perf_counter()
    stats = whole.read_all()
    _check_finite(stats.loss, epoch, len(loader) - 1)
    return stats


def _check_finite(loss: float, epoch: int, step: int) -> None:
    if not math.isfinite(loss):
        raise InputError(
            f"epoch {epoch}, step {step}: the loss is {loss}; a smaller TRAIN.LR or a warm-up "
            "(TRAIN.WARMUP_ITERS) may help"
        )
