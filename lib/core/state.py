"""The state of a training run, saved in ``checkpoint.pth``, from which the run resumes exactly."""

import contextlib
import logging
import math
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import yaml
from yacs.config import CfgNode

from lib.core.averaging import AveragedWeights
from lib.core.guard import check_weights
from lib.core.optim import add_missing_momentum
from lib.models.checkpoint import load_checkpoint
from lib.utils import checkpoint, distributed
from lib.utils.errors import InputError
from lib.utils.files import write_atomically

logger = logging.getLogger(__name__)

# Settings, or sections of settings, whose changes are not logged when a run resumes.
UNLOGGED_KEYS = (
    "AUTO_RESUME", "CUDNN", "DATASET.MAX_BROKEN", "DATASET.ROOT", "DATA_DIR", "DEBUG", "GPUS",
    "LOG_DIR", "MODEL.PRETRAINED", "OUTPUT_DIR", "PIN_MEMORY", "PRINT_FREQ", "TEST",
    "TRAIN.CHECKPOINT", "TRAIN.CHECKPOINT_EVERY", "TRAIN.COMPILE", "TRAIN.END_EPOCH",
    "TRAIN.EVAL_INTERVAL", "TRAIN.KEEP", "TRAIN.LOG_GRAPH", "TRAIN.RESUME", "WORKERS",
)  # fmt: skip


@dataclass
class Position:
    """Position of a run: ``step`` steps of epoch ``epoch`` are done.

    Attributes:
        meter: statistics of these steps, from ``Meter.state``.
        best: the best score so far.
        is_validated: False if the previous epoch still has to be validated.
    """

    epoch: int
    step: int = 0
    meter: list[dict] | None = None
    best: float = -math.inf
    is_validated: bool = True


@dataclass(eq=False)
class TrainingState:
    """Saves and loads the state of a run.

    Attributes:
        folder: output folder of the run.
        batch_size: number of samples in a step, over all processes.
        samples: number of samples in the training set.
        scaler: scales the loss, for gradients in float16.
    """

    cfg: CfgNode
    folder: Path
    network: torch.nn.Module
    optimizer: torch.optim.Optimizer
    average: AveragedWeights
    batch_size: int
    samples: int
    scaler: torch.amp.GradScaler

    def save(self, position: Position) -> None:
        """Write ``checkpoint.pth``, with most keys of the HRNet repository's checkpoints.

        With several processes, every process must call this.

        Raises:
            InputError: the weights are not finite, or the file cannot be written.
        """
        path = self.folder / "checkpoint.pth"
        check_weights(self.network, path)
        state = {
            "epoch": position.epoch,
            "model": self.cfg.MODEL.NAME,
            "state_dict": self.network.state_dict(),
            "best_perf": position.best,
            "optimizer": self.optimizer.state_dict(),
            "validated": position.is_validated,
            "average": self.average.weights,
            "samples_done": position.step * self.batch_size,
            "samples": self.samples,
            "meter": position.meter,
            "settings": self.cfg.dump(),
        }
        if self.scaler.is_enabled():
            state["scaler"] = self.scaler.state_dict()
        if position.step and distributed.world_size() > 1:
            # Batch norm statistics differ between processes within an epoch.
            state["buffers"] = distributed.gather([value.cpu() for value in self._buffers()])
        checkpoint.save(state, path)
        if not position.step and self.cfg.TRAIN.KEEP > 1 and distributed.is_main():
            self._keep(path, position.epoch)

    def _buffers(self) -> list[torch.Tensor]:
        """Return the batch norm statistics of the network and of its average."""
        return [*self.network.buffers(), *self.average.buffers]

    def _keep(self, path: Path, epoch: int) -> None:
        """Keep a copy of this epoch's checkpoint; remove the copy from TRAIN.KEEP epochs ago."""
        kept = path.with_name(f"checkpoint_{epoch}.pth")
        kept.unlink(missing_ok=True)
        try:
            os.link(path, kept)
        except OSError:  # a file system without hard links
            write_atomically(kept, path.read_bytes())
        path.with_name(f"checkpoint_{epoch - self.cfg.TRAIN.KEEP}.pth").unlink(missing_ok=True)

    def save_weights(self, name: str) -> None:
        """Write the weights alone: the averaged ones, if there are any."""
        with self.average.applied():
            check_weights(self.network, self.folder / name)
            checkpoint.save(self.network.state_dict(), self.folder / name)

    def load(self, path: Path) -> Position:
        """Load a checkpoint and return its position.

        Raises:
            InputError: the file cannot be read, or belongs to another experiment.
        """
        state = checkpoint.read(path)
        with _file_named_in_errors(path):
            load_checkpoint(self.network, state["state_dict"])
            load_optimizer(self.optimizer, state["optimizer"])
            self._load_average(state.get("average") or state["state_dict"])
            if self.scaler.is_enabled() and state.get("scaler"):
                self.scaler.load_state_dict(state["scaler"])
            self._log_changes(path, state.get("settings"))
            best = float(state.get("best_perf", state.get("perf", -math.inf)))
            if not (self.folder / "model_best.pth").exists():
                best = -math.inf  # so that the next validated network is saved as model_best.pth
            is_validated = bool(state.get("validated", True))
            position = Position(state["epoch"], best=best, is_validated=is_validated)
            if samples_done := state.get("samples_done", 0):
                self._resume_within_epoch(position, state, samples_done)
        where = f"epoch {position.epoch}" + (f", step {position.step}" if position.step else "")
        logger.info("=> %s: resuming at %s, best score so far %.4f", path, where, best)
        return position

    def _load_average(self, weights: Mapping[str, Any]) -> None:
        if self.average.weights:
            with self.average.applied():
                load_checkpoint(self.network, weights)
                for key, value in self.network.state_dict().items():
                    self.average.weights[key].copy_(value)

    def _resume_within_epoch(self, position: Position, state: dict, samples_done: int) -> None:
        """Restore the step, statistics and batch norm buffers of an unfinished epoch.

        If the number or the order of the samples has changed, the epoch starts again.
        """
        old = _settings(state["settings"])
        order = old.get("SEED"), old.get("TRAIN.SHUFFLE"), state["samples"]
        if order != (self.cfg.SEED, self.cfg.TRAIN.SHUFFLE, self.samples):
            logger.warning("=> the order of the samples changed: the epoch starts again")
            return
        position.step = samples_done // self.batch_size
        meter = state["meter"]  # one dict, the sums over all processes, in older checkpoints
        position.meter = [meter] if isinstance(meter, dict) else meter
        buffers = state.get("buffers", [])
        if len(buffers) == distributed.world_size():
            for buffer, value in zip(self._buffers(), buffers[distributed.rank()], strict=True):
                buffer.copy_(value)

    def _log_changes(self, path: Path, text: str | None) -> None:
        """Log the settings that differ from those of the checkpoint."""
        if text is None:
            return
        old, new = _settings(text), _settings(self.cfg.dump())
        unlogged = tuple(f"{key}." for key in UNLOGGED_KEYS)
        changes = [
            f"{key} {old.get(key)} -> {new.get(key)}"
            for key in sorted(old.keys() | new.keys())
            if old.get(key) != new.get(key) and not f"{key}.".startswith(unlogged)
        ]
        if changes:
            logger.warning("=> %s: settings have changed since: %s", path, "; ".join(changes))


def load_optimizer(optimizer: torch.optim.Optimizer, state: dict) -> None:
    """Load an optimizer's state, but keep the experiment's settings such as learning rates.

    Raises:
        InputError: the state belongs to another optimizer or network.
    """
    current = [{k: v for k, v in g.items() if k != "params"} for g in optimizer.param_groups]
    # Only Adam has betas and only SGD has momentum; load_state_dict does not check either.
    distinctive = {"betas", "momentum"}
    try:
        if current[0].keys() & distinctive != state["param_groups"][0].keys() & distinctive:
            raise InputError("was written with an optimizer other than TRAIN.OPTIMIZER")
        _check_shapes(optimizer, state["state"])
        groups = zip(state["param_groups"], current, strict=True)
        # Merge the current options before loading: they include ``fused``, which decides on which
        # device PyTorch puts the state.
        groups = [{**group, **options} for group, options in groups]
        optimizer.load_state_dict({**state, "param_groups": groups})
        _match_layouts(optimizer)
        add_missing_momentum(optimizer)
    except (ValueError, KeyError, TypeError, IndexError, AttributeError) as error:
        raise InputError(f"the optimizer state does not fit: {error}") from None


def _match_layouts(optimizer: torch.optim.Optimizer) -> None:
    """Convert the state to the memory format of the parameters, which fused optimizers require.

    Parameters are contiguous with DataParallel, and channels last without it.
    """
    for parameter, state in optimizer.state.items():
        for name, value in state.items():
            if isinstance(value, torch.Tensor) and value.dim() > 0:
                state[name] = torch.empty_like(parameter).copy_(value)


def _check_shapes(optimizer: torch.optim.Optimizer, states: Mapping[int, Mapping]) -> None:
    """Raise ValueError if a tensor of the state differs in shape from its parameter."""
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    for number, state in states.items():
        for name, value in state.items():
            is_tensor = isinstance(value, torch.Tensor) and value.dim() > 0
            if is_tensor and value.shape != parameters[number].shape:
                shapes = f"{tuple(value.shape)}, not {tuple(parameters[number].shape)}"
                raise ValueError(f"{name} of parameter {number} has the shape {shapes}")


@contextlib.contextmanager
def _file_named_in_errors(path: Path) -> Iterator[None]:
    """Name the file in InputErrors, and turn errors from malformed contents into InputErrors."""
    try:
        yield
    except InputError as error:
        raise InputError(f"{path}: {error}") from None
    except (TypeError, KeyError, ValueError, AttributeError, RuntimeError, yaml.YAMLError) as error:
        reason = " ".join(str(error).split())[:200]
        raise InputError(f"{path}: not a checkpoint of this experiment: {reason}") from None


def _settings(text: str) -> dict[str, Any]:
    """Return the settings of ``CfgNode.dump``, by dotted key."""
    flat: dict[str, Any] = {}

    def add(prefix: str, tree: Mapping) -> None:
        for name, value in tree.items():
            if isinstance(value, Mapping):
                add(f"{prefix}{name}.", value)
            else:
                flat[f"{prefix}{name}"] = value

    add("", yaml.safe_load(text))
    return flat
