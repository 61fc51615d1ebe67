"""Training and evaluation. ``build_task`` builds the task of an experiment."""

from collections.abc import Callable

import torch
from yacs.config import CfgNode

from lib.core.backends import Backend
from lib.core.bottom_up import build_bottom_up
from lib.core.task import Task
from lib.core.top_down import build_top_down

__all__ = ["TASKS", "build_task"]

# MODEL.TARGET_TYPE -> builder of its task; all other types are top-down.
TASKS: dict[str, Callable[[CfgNode, Backend, torch.dtype | None], Task]] = {"tags": build_bottom_up}


def build_task(cfg: CfgNode, backend: Backend, autocast: torch.dtype | None = None) -> Task:
    """Build the task of an experiment.

    Args:
        backend: runs the network.
        autocast: train in this type where PyTorch considers it safe; None: in float32.
    """
    return TASKS.get(cfg.MODEL.TARGET_TYPE, build_top_down)(cfg, backend, autocast)
