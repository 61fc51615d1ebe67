"""One epoch of training."""

import logging
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader

from lib.core.codecs.codec import Codec, Outputs, as_float
from lib.dataset.loading import Batch
from lib.dataset.transforms import normalize
from lib.utils.errors import InputError
from lib.utils.logs import progress

logger = logging.getLogger(__name__)


@dataclass
class Pass:
    """What went by: batches, and means over an epoch or a part of it. ``is_judged``: loss and
    accuracy are known, because the network's outputs were to be seen."""

    loss: float
    accuracy: float
    samples: int
    seconds: float
    data_seconds: float  # of them spent waiting for data
    is_judged: bool = True

    @property
    def speed(self) -> float:
        """Samples a second."""
        return self.samples / max(self.seconds, 1e-9)


# Called with the step, what went by since the last call, and the batch at hand.
Observer = Callable[[int, Pass, Batch, Outputs, Any], None]


class Meter:
    """Sums of loss and accuracy on the device: reading them there would make every step wait."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self.restart()

    def restart(self) -> None:
        self._sums = torch.zeros(3, device=self._device)
        self._samples = 0
        self._is_judged = True
        self._start = time.perf_counter()
        self._data_seconds = 0.0

    def add(
        self, judged: tuple[torch.Tensor, ...] | None, samples: int, data_seconds: float
    ) -> None:
        """One batch: its mean loss, its accuracy and over how many kinds of joints that is, or None
        where its outputs were not to be seen; and its size."""
        if judged is None:
            self._is_judged = False
        else:
            loss, accuracy, joints = judged
            self._sums += torch.stack([loss.detach() * samples, accuracy * joints, joints])
        self._samples += samples
        self._data_seconds += data_seconds

    def read(self) -> Pass:
        """The means so far; waits for the device."""
        loss, right, joints = self._sums.tolist()
        return Pass(
            loss=loss / max(self._samples, 1),
            accuracy=right / max(joints, 1),
            samples=self._samples,
            seconds=time.perf_counter() - self._start,
            data_seconds=self._data_seconds,
            is_judged=self._is_judged,
        )


def train_epoch(
    model: torch.nn.Module,
    loader: DataLoader,
    codec: Codec,
    optimizer: torch.optim.Optimizer,
    rate: Callable[[int, int], float],
    epoch: int,
    device: torch.device,
    is_rgb: bool = True,
    autocast: bool = False,
    print_freq: int = 100,
    observe: Observer | None = None,
    augment: Callable[[Tensor, int], Tensor] | None = None,
) -> Pass:
    """Train ``model`` in place on every batch of ``loader`` (lib.dataset.loading.train_loader)
    once.

    Args:
        rate: the learning rate at (epoch, step).
        autocast: run the network in bfloat16 where PyTorch holds that to be safe.
        print_freq: steps between two calls of ``observe``.
        augment: changes the images (N, 3, H, W) of a batch, given the number of its step.

    Raises:
        InputError: the loss is no longer a finite number.
    """
    model.train()
    loader.sampler.epoch = epoch
    whole, part = Meter(device), Meter(device)
    asked = time.perf_counter()
    for step, batch in enumerate(progress(loader, len(loader), f"Epoch {epoch}")):
        waited = time.perf_counter() - asked
        for group in optimizer.param_groups:
            group["lr"] = rate(epoch, step)
        batch = to_device(batch, device)
        if augment is not None:
            batch["image"] = augment(batch["image"], step)
        with torch.autocast(device.type, torch.bfloat16, enabled=autocast):
            outputs = as_float(model(normalize(batch["image"], is_rgb)))
        target = codec.encode(batch["joints"], batch["visible"])
        loss = codec.loss(outputs, target)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        with torch.no_grad():
            accuracy, joints = codec.accuracy(outputs, target)
        for meter in (whole, part):
            meter.add((loss, accuracy, joints), len(batch["index"]), waited)
        if step % print_freq == 0:
            passed = part.read()
            _check_finite(passed.loss, epoch, step)
            if observe is not None:
                observe(step, passed, batch, outputs, target)
            part.restart()
        asked = time.perf_counter()
    passed = whole.read()
    _check_finite(passed.loss, epoch, len(loader) - 1)
    return passed


def to_device(batch: Batch, device: torch.device) -> Batch:
    """The batch on ``device``; from pinned memory the copy does not wait."""
    return {name: value.to(device, non_blocking=True) for name, value in batch.items()}


def _check_finite(loss: float, epoch: int, step: int) -> None:
    if not math.isfinite(loss):
        raise InputError(
            f"epoch {epoch}, step {step}: the loss is {loss}; a smaller TRAIN.LR or a warm-up "
            "(TRAIN.WARMUP_ITERS) may help"
        )
