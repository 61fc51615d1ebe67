"""Optimizers and learning rate schedules."""

import logging
import math
from collections.abc import Callable

import torch
from yacs.config import CfgNode

from lib.utils.errors import InputError

# Names of parameters without weight decay end with this: HRFormer's relative position bias.
NO_WEIGHT_DECAY = "relative_position_bias_table"

logger = logging.getLogger(__name__)


# TRAIN.OPTIMIZER -> class, and the keys of TRAIN for its options other than the learning rate.
OPTIMIZERS = {
    "adam": (torch.optim.Adam, {}),
    "adamw": (torch.optim.AdamW, {"weight_decay": "WD"}),
    "sgd": (
        torch.optim.SGD,
        {"weight_decay": "WD", "momentum": "MOMENTUM", "nesterov": "NESTEROV"},
    ),
}


def add_missing_momentum(optimizer: torch.optim.Optimizer) -> None:
    """Set missing momentum buffers to 0, because fused SGD does not create them reliably.

    Fused SGD leaves them undefined if its first step is skipped. A checkpoint lacks them if the run
    had no momentum so far, and for parameters that never had a gradient.
    """
    for group in optimizer.param_groups:
        if group.get("momentum"):
            for parameter in group["params"]:
                if optimizer.state[parameter].get("momentum_buffer") is None:
                    optimizer.state[parameter]["momentum_buffer"] = torch.zeros_like(parameter)


def build_optimizer(cfg: CfgNode, network: torch.nn.Module) -> torch.optim.Optimizer:
    """Build the optimizer of TRAIN.OPTIMIZER for the trainable parameters of ``network``.

    Raises:
        InputError: the name is unknown, or PyTorch rejects the settings.
    """
    train, name = cfg.TRAIN, cfg.TRAIN.OPTIMIZER
    if name not in OPTIMIZERS:
        raise InputError(
            f"TRAIN.OPTIMIZER: unknown optimizer {name!r}; choose from {', '.join(OPTIMIZERS)}"
        )
    if name == "adam" and train.WD:
        logger.info(
            "=> adam ignores TRAIN.WD %g, as the original does; for weight decay, use adamw",
            train.WD,
        )
    kind, keys = OPTIMIZERS[name]
    groups = _groups(network)
    options = {option: train[key] for option, key in keys.items()}
    try:
        optimizer = kind(groups, lr=train.LR, fused=True, **options)
    except ValueError as error:
        raise InputError(f"TRAIN: {name} does not accept these settings: {error}") from None
    add_missing_momentum(optimizer)
    return optimizer


def _groups(network: torch.nn.Module) -> list[dict]:
    """Return the trainable parameters as one or two groups; the second has no weight decay."""
    decay, no_decay = [], []
    for name, parameter in network.named_parameters():
        if parameter.requires_grad:
            (no_decay if name.endswith(NO_WEIGHT_DECAY) else decay).append(parameter)
    groups = [{"params": decay}]
    if no_decay:
        groups.append({"params": no_decay, "weight_decay": 0.0})
    return groups


def build_schedule(
    cfg: CfgNode, steps_per_epoch: int, scale: float = 1.0
) -> Callable[[int, int], float]:
    """Build the learning rate schedule named by TRAIN.LR_SCHEDULE.

    The schedule maps (epoch, step), both counted from 0, to the learning rate. ``multistep``
    multiplies the rate by LR_FACTOR at the start of each epoch in LR_STEP. ``cosine`` decays it at
    every step, down to LR_MIN at END_EPOCH. Linear warm-up covers the first WARMUP_ITERS steps of
    the run and starts at WARMUP_FACTOR times the rate of the schedule, as in mmcv.

    Args:
        scale: factor for the learning rate, such as that of ``--autoscale-lr``.
    """
    train = cfg.TRAIN

    def multistep(epoch: int, step: int) -> float:
        return train.LR * train.LR_FACTOR ** sum(epoch >= start for start in train.LR_STEP)

    def cosine(epoch: int, step: int) -> float:
        progress = (epoch + step / steps_per_epoch) / max(train.END_EPOCH, 1)
        return train.LR_MIN + (train.LR - train.LR_MIN) * (1 + math.cos(math.pi * progress)) / 2

    schedules = {"multistep": multistep, "cosine": cosine}
    if train.LR_SCHEDULE not in schedules:
        raise InputError(
            f"TRAIN.LR_SCHEDULE: unknown schedule {train.LR_SCHEDULE!r}; choose from "
            f"{', '.join(schedules)}"
        )
    schedule = schedules[train.LR_SCHEDULE]

    def lr_at(epoch: int, step: int) -> float:
        steps_done = epoch * steps_per_epoch + step
        if steps_done >= train.WARMUP_ITERS:
            return scale * schedule(epoch, step)
        reduction = (1 - steps_done / train.WARMUP_ITERS) * (1 - train.WARMUP_FACTOR)
        return scale * schedule(epoch, step) * (1 - reduction)

    return lr_at
