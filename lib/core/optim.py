"""Optimizers and learning rates."""

import logging
import math
from collections.abc import Callable, Iterable

import torch
from yacs.config import CfgNode

from lib.utils.errors import InputError

logger = logging.getLogger(__name__)


def _adam(params: Iterable[torch.nn.Parameter], cfg: CfgNode) -> torch.optim.Optimizer:
    if cfg.TRAIN.WD:
        logger.info(
            "=> adam does not use TRAIN.WD %g, as in the published runs; adamw does", cfg.TRAIN.WD
        )
    return torch.optim.Adam(params, lr=cfg.TRAIN.LR)


def _adamw(params: Iterable[torch.nn.Parameter], cfg: CfgNode) -> torch.optim.Optimizer:
    return torch.optim.AdamW(params, lr=cfg.TRAIN.LR, weight_decay=cfg.TRAIN.WD)


def _sgd(params: Iterable[torch.nn.Parameter], cfg: CfgNode) -> torch.optim.Optimizer:
    return torch.optim.SGD(
        params,
        lr=cfg.TRAIN.LR,
        momentum=cfg.TRAIN.MOMENTUM,
        weight_decay=cfg.TRAIN.WD,
        nesterov=cfg.TRAIN.NESTEROV,
    )


OPTIMIZERS = {"adam": _adam, "adamw": _adamw, "sgd": _sgd}


def build_optimizer(cfg: CfgNode, params: Iterable[torch.nn.Parameter]) -> torch.optim.Optimizer:
    """The optimizer TRAIN.OPTIMIZER.

    Raises:
        InputError: an unknown name, or settings that it refuses.
    """
    name = cfg.TRAIN.OPTIMIZER
    if name not in OPTIMIZERS:
        raise InputError(
            f"TRAIN.OPTIMIZER: there is no {name!r}; known are {', '.join(OPTIMIZERS)}"
        )
    try:
        return OPTIMIZERS[name](params, cfg)
    except ValueError as error:
        raise InputError(f"TRAIN: {name} cannot be made with these settings: {error}") from None


def build_schedule(
    cfg: CfgNode, steps_per_epoch: int, scale: float = 1.0
) -> Callable[[int, int], float]:
    """The learning rate, times ``scale``, as a function of epoch and step within it, both from 0.

    It has no state: a run that resumes has the rate that it would have had. ``multistep``
    multiplies by LR_FACTOR at the start of each epoch in LR_STEP; ``cosine`` falls to LR_MIN at
    END_EPOCH, a step at a time. Warm-up is linear over the first WARMUP_ITERS steps of the whole
    run, beginning at WARMUP_FACTOR (as mmcv's does).
    """
    train = cfg.TRAIN

    def multistep(epoch: int, step: int) -> float:
        return train.LR * train.LR_FACTOR ** sum(epoch >= at for at in train.LR_STEP)

    def cosine(epoch: int, step: int) -> float:
        share = (epoch + step / steps_per_epoch) / max(train.END_EPOCH, 1)
        return train.LR_MIN + (train.LR - train.LR_MIN) * (1 + math.cos(math.pi * share)) / 2

    schedules = {"multistep": multistep, "cosine": cosine}
    if train.LR_SCHEDULE not in schedules:
        raise InputError(
            f"TRAIN.LR_SCHEDULE: there is no {train.LR_SCHEDULE!r}; known are "
            f"{', '.join(schedules)}"
        )
    schedule = schedules[train.LR_SCHEDULE]

    def rate(epoch: int, step: int) -> float:
        done = epoch * steps_per_epoch + step
        if done >= train.WARMUP_ITERS:
            return scale * schedule(epoch, step)
        left = (1 - done / train.WARMUP_ITERS) * (1 - train.WARMUP_FACTOR)
        return scale * schedule(epoch, step) * (1 - left)

    return rate
