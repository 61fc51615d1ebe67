"""Optimizers and learning rates."""

import logging
import math
from collections.abc import Callable

import torch
from yacs.config import CfgNode

from lib.utils.errors import InputError

# HRFormer's table of relative positions, as published.
UNDECAYED = "relative_position_bias_table"

logger = logging.getLogger(__name__)


def _adam(params: list[dict], cfg: CfgNode) -> torch.optim.Optimizer:
    if cfg.TRAIN.WD:
        logger.info(
            "=> adam does not use TRAIN.WD %g, as in the published runs; adamw does", cfg.TRAIN.WD
        )
    return torch.optim.Adam(params, lr=cfg.TRAIN.LR)


def _adamw(params: list[dict], cfg: CfgNode) -> torch.optim.Optimizer:
    return torch.optim.AdamW(params, lr=cfg.TRAIN.LR, weight_decay=cfg.TRAIN.WD)


def _sgd(params: list[dict], cfg: CfgNode) -> torch.optim.Optimizer:
    return torch.optim.SGD(
        params,
        lr=cfg.TRAIN.LR,
        momentum=cfg.TRAIN.MOMENTUM,
        weight_decay=cfg.TRAIN.WD,
        nesterov=cfg.TRAIN.NESTEROV,
    )


OPTIMIZERS = {"adam": _adam, "adamw": _adamw, "sgd": _sgd}


def build_optimizer(cfg: CfgNode, network: torch.nn.Module) -> torch.optim.Optimizer:
    """The optimizer TRAIN.OPTIMIZER for what ``network`` learns.

    Raises:
        InputError: an unknown name, or settings that it refuses.
    """
    name = cfg.TRAIN.OPTIMIZER
    if name not in OPTIMIZERS:
        raise InputError(
            f"TRAIN.OPTIMIZER: there is no {name!r}; known are {', '.join(OPTIMIZERS)}"
        )
    try:
        return OPTIMIZERS[name](_groups(network), cfg)
    except ValueError as error:
        raise InputError(f"TRAIN: {name} cannot be made with these settings: {error}") from None


def _groups(network: torch.nn.Module) -> list[dict]:
    """The parameters, those that weight decay must leave alone apart."""
    learnt = [(n, p) for n, p in network.named_parameters() if p.requires_grad]
    is_free = [name.endswith(UNDECAYED) for name, _ in learnt]
    groups = [{"params": [p for (_, p), free in zip(learnt, is_free, strict=True) if not free]}]
    if any(is_free):
        free = [p for (_, p), free in zip(learnt, is_free, strict=True) if free]
        groups.append({"params": free, "weight_decay": 0.0})
    return groups


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

    def lr_at(epoch: int, step: int) -> float:
        done = epoch * steps_per_epoch + step
        if done >= train.WARMUP_ITERS:
            return scale * schedule(epoch, step)
        left = (1 - done / train.WARMUP_ITERS) * (1 - train.WARMUP_FACTOR)
        return scale * schedule(epoch, step) * (1 - left)

    return lr_at
