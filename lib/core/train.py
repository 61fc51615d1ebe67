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
    """Statistics of an epoch or a part of it.

    ``has_loss`` is False if loss and accuracy are unknown, because an exported file returns decoded
    keypoints, or because no joint is annotated.
    """

    loss: float
    accuracy: float
    samples: int
    seconds: float
    data_seconds: float  # time spent waiting for data, included in ``seconds``
    has_loss: bool = True

    @property
    def speed(self) -> float:
        """Samples per second."""
        return self.samples / max(self.seconds, 1e-9)


# Called with the step, the statistics since the last call, the batch and its outputs.
Observer = Callable[[int, EpochStats, Batch, Outputs], None]


class Meter:
    """Running sums of loss and accuracy.

    They stay on the device, because reading them at every step would make the CPU wait for it.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self.restart()

    def restart(self) -> None:
        """Set all sums to 0 and restart the clock."""
        self._sums = torch.zeros(3, device=self._device)
        self._samples = 0
        self._has_loss = True
        self._start = time.perf_counter()
        self._data_seconds = 0.0

    def add(self, losses: Losses | None, samples: int, data_seconds: float) -> None:
        """Add a batch of ``samples`` samples and the time spent waiting for it."""
        if losses is None:
            self._has_loss = False
        else:
            loss, joints = losses.total.detach(), losses.joints
            self._sums += torch.stack([loss * samples, losses.accuracy * joints, joints])
        self._samples += samples
        self._data_seconds += data_seconds

    def read(self) -> EpochStats:
        """Return the statistics of this process. Waits for the device."""
        return self._stats(self._sums.tolist(), self._samples)

    def read_all(self) -> EpochStats:
        """Return the statistics of all processes, each of which must call this."""
        count = torch.tensor([self._samples], dtype=torch.float64, device=self._device)
        *sums, samples = distributed.all_reduce_sum(
            torch.cat([self._sums.double(), count])
        ).tolist()
        return self._stats(sums, int(samples))

    def _stats(self, sums: list[float], samples: int) -> EpochStats:
        loss, correct, joints = sums
        return EpochStats(
            loss=loss / max(samples, 1),
            accuracy=correct / max(joints, 1),
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
    """Train the network of ``task`` in place for one epoch.

    Args:
        loader: from lib.dataset.loading.train_loader.
        lr_at: maps (epoch, step) to the learning rate.
        print_freq: number of steps between calls of ``observe``.
        augment: maps the images (N, 3, H, W) of a batch and the step to augmented images.

    Raises:
        InputError: the loss is NaN or Inf.
    """
    task.train()
    loader.sampler.epoch = epoch
    epoch_meter, print_meter = Meter(task.device), Meter(task.device)
    step_end = time.perf_counter()
    for step, batch in enumerate(progress(loader, len(loader), f"Epoch {epoch}")):
        data_seconds = time.perf_counter() - step_end
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
        for meter in (epoch_meter, print_meter):
            meter.add(losses, len(batch["index"]), data_seconds)
        if step % print_freq == 0:
            stats = print_meter.read()
            _check_finite(stats.loss, epoch, step)
            if observe is not None:
                observe(step, stats, batch, outputs)
            print_meter.restart()
        step_end = time.perf_counter()
    stats = epoch_meter.read_all()
    _check_finite(stats.loss, epoch, len(loader) - 1)
    return stats


def _check_finite(loss: float, epoch: int, step: int) -> None:
    if not math.isfinite(loss):
        raise InputError(
            f"epoch {epoch}, step {step}: the loss is {loss}; try a lower TRAIN.LR or a warm-up "
            "(TRAIN.WARMUP_ITERS)"
        )
