"""One epoch of training."""

import logging
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.utils.data import DataLoader

from lib.core.averaging import AveragedWeights
from lib.core.codecs.codec import Outputs
from lib.core.guard import StepGuard
from lib.core.task import Losses, Task
from lib.dataset.loading import Batch, to_device
from lib.utils import distributed
from lib.utils.logs import progress

logger = logging.getLogger(__name__)


@dataclass
class Stats:
    """Statistics of an epoch of training, a part of it, or a validation.

    ``has_loss`` is False if loss and accuracy are unknown, because ``Task.loss`` returned None or
    no joint of the data set is annotated.
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
Observer = Callable[[int, Stats, Batch, Outputs], None]


class Meter:
    """Running sums of loss and accuracy.

    The sums stay on the device. If they were read at every step, the CPU would wait for the device.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self.restart()

    def restart(self) -> None:
        """Set all sums to 0 and restart the clock."""
        # Sums over the steps with a finite loss: loss, accuracy, weight of the accuracy, samples.
        self._sums = torch.zeros(4, device=self._device)
        self._samples = 0
        self._has_loss = True
        self._start = time.perf_counter()
        self._data_seconds = 0.0

    def add(self, losses: Losses | None, samples: int, data_seconds: float) -> None:
        """Add a batch of ``samples`` samples and the time spent waiting for it.

        A loss that is NaN or infinite is not counted.
        """
        if losses is None:
            self._has_loss = False
        else:
            # Accuracy is a mean over joints or joint types; their number is its weight.
            loss, weight = losses.total.detach(), losses.joints
            count = torch.full_like(loss, samples)
            values = torch.stack([loss * samples, losses.accuracy * weight, weight, count])
            self._sums += torch.where(loss.isfinite(), values, 0.0)
        self._samples += samples
        self._data_seconds += data_seconds

    def state(self) -> list[dict]:
        """Return the sums of each process for a checkpoint; every process must call this."""
        seconds = time.perf_counter() - self._start
        numbers = [self._samples, seconds, self._data_seconds]
        return distributed.gather({"sums": self._sums.tolist(), "numbers": numbers})

    def load(self, states: list[dict]) -> None:
        """Continue from what ``state`` returned, even if the number of processes has changed."""
        own = distributed.rank()
        if len(states) != distributed.world_size():  # rank 0 continues from the sums of all
            if own > 0:
                return
            sums = [
                sum(column) for column in zip(*(state["sums"] for state in states), strict=True)
            ]
            samples = sum(state["numbers"][0] for state in states)
            states = [{"sums": sums, "numbers": [samples, *states[0]["numbers"][1:]]}]
        self._sums = torch.tensor(states[own]["sums"], device=self._device)
        self._samples, seconds, self._data_seconds = states[own]["numbers"]
        self._start = time.perf_counter() - seconds

    def read(self) -> Stats:
        """Return the statistics of this process. Waits for the device."""
        return self._stats(self._sums.tolist(), self._samples)

    def read_over_processes(self) -> Stats:
        """Return the statistics over all processes; every process must call this."""
        count = torch.tensor([self._samples], dtype=torch.float64, device=self._device)
        sums = torch.cat([self._sums.double(), count])
        *sums, samples = distributed.all_reduce_sum(sums).tolist()
        return self._stats(sums, int(samples))

    def _stats(self, sums: list[float], samples: int) -> Stats:
        loss, accuracy, weight, counted = sums
        return Stats(
            loss=loss / max(counted, 1),
            accuracy=accuracy / max(weight, 1),
            samples=samples,
            seconds=time.perf_counter() - self._start,
            data_seconds=self._data_seconds,
            has_loss=self._has_loss,
        )


class Updater:
    """Trains on one batch at a time and updates the weights after every ``accumulate`` batches.

    Args:
        files_of: maps indices of samples to image files, for error messages.
        buffers: batch norm statistics, restored by ``StepGuard`` if they may be damaged.
        average: moving average of the weights, if any; updated together with them.
        accumulate: number of batches whose gradients are averaged for one update.
        no_sync: returns a context in which gradients are not averaged over processes.
        scaler: scales the loss, for gradients in float16.
    """

    def __init__(
        self,
        optimizer: torch.optim.Optimizer,
        files_of: Callable[[Sequence[int]], list[str]],
        buffers: Iterable[Tensor] = (),
        average: AveragedWeights | None = None,
        accumulate: int = 1,
        no_sync: Callable[[], AbstractContextManager] = nullcontext,
        scaler: torch.amp.GradScaler | None = None,
    ) -> None:
        buffers = [*buffers, *(average.buffers if average else [])]
        self.guard = StepGuard(optimizer, files_of, buffers, scaler)
        self._scaler = scaler or torch.amp.GradScaler("cpu", enabled=False)
        self._optimizer = optimizer
        self._average = average
        self._accumulate = accumulate
        self._no_sync = no_sync

    def is_due(self, step: int, steps: int) -> bool:
        """Return True if an update follows ``step`` of an epoch with ``steps`` steps."""
        return (step + 1) % self._accumulate == 0 or step + 1 == steps

    def __call__(
        self, task: Task, batch: Batch, index: Tensor, step: int, steps: int
    ) -> tuple[Outputs, Losses]:
        """Train on a batch; ``index`` is the batch's ``index`` tensor on the CPU."""
        first = step - step % self._accumulate
        count = min(self._accumulate, steps - first)  # the last update may have fewer batches
        is_due = self.is_due(step, steps)
        with nullcontext() if is_due else self._no_sync():
            outputs = task.forward(batch)
            losses = task.loss(outputs, batch)
            if step == first:
                self._optimizer.zero_grad(set_to_none=True)
            self._scaler.scale(losses.total / count).backward()
        self.guard.add(losses.total.detach(), index)
        if is_due:
            self.guard.step()
            if self._average is not None:
                self._average.update()
        return outputs, losses


def train_epoch(
    task: Task,
    loader: DataLoader,
    optimizer: torch.optim.Optimizer,
    lr_at: Callable[[int, int], float],
    epoch: int,
    print_freq: int = 100,
    observe: Observer | None = None,
    augment: Callable[[Tensor, int], Tensor] | None = None,
    update: Updater | None = None,
    before_step: Callable[[int], None] | None = None,
    after_step: Callable[[int, Meter], None] | None = None,
    first_step: int = 0,
    meter_state: list[dict] | None = None,
) -> Stats:
    """Train the network of ``task`` in place for one epoch.

    Args:
        loader: from lib.dataset.loading.train_loader.
        lr_at: maps (epoch, step) to the learning rate.
        print_freq: number of steps between calls of ``observe``.
        augment: maps the images (N, 3, H, W) of a batch and the step to augmented images.
        update: trains on a batch; pass the same one every epoch, so that skipped steps are
            counted across epochs.
        before_step, after_step: called with the step; ``after_step`` also gets the epoch's meter.
        first_step: number of steps that an interrupted run has already taken in this epoch.
        meter_state: ``Meter.state`` after these steps.

    Raises:
        InputError: the loss or gradients of ten steps in a row (26 in float16) are NaN or Inf.
    """
    task.train()
    loader.sampler.epoch, loader.sampler.first = epoch, first_step * loader.batch_size
    update = update or Updater(optimizer, loader.dataset.image_files)
    epoch_meter, print_meter = Meter(task.device), Meter(task.device)
    if meter_state:
        epoch_meter.load(meter_state)
    steps, step_end = len(loader), time.perf_counter()
    batches = progress(loader, steps - first_step, f"Epoch {epoch}")
    for step, batch in enumerate(batches, first_step):
        data_seconds = time.perf_counter() - step_end
        for group in optimizer.param_groups:
            group["lr"] = lr_at(epoch, step)
        if before_step is not None:
            before_step(step)
        index, batch = batch["index"], to_device(batch, task.device)
        batch["image"] = augment(batch["image"], step) if augment else batch["image"]
        outputs, losses = update(task, batch, index, step, steps)
        for meter in (epoch_meter, print_meter):
            meter.add(losses, len(index), data_seconds)
        # Checking waits for the device. On a GPU, do not wait at every step.
        if step % print_freq == 0 or task.device.type == "cpu":
            update.guard.check(f"epoch {epoch}, step {step}")
        if step % print_freq == 0:
            if observe is not None:
                observe(step, print_meter.read(), batch, outputs)
            print_meter.restart()
        if after_step is not None:
            after_step(step, epoch_meter)
        step_end = time.perf_counter()
    update.guard.check(f"epoch {epoch}")
    return epoch_meter.read_over_processes()
