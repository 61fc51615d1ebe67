"""Training and evaluation. ``build_task`` builds the task of an experiment."""

from collections.abc import Callable

from yacs.config import CfgNode

from lib.core.backends import Backend
from lib.core.bottom_up import build_bottom_up
from lib.core.task import Task
from lib.core.top_down import build_top_down

__all__ = ["TASKS", "build_task"]

# MODEL.TARGET_TYPE -> builder of its task; all other types are top-down.
TASKS: dict[str, Callable[[CfgNode, Backend, bool], Task]] = {"tags": build_bottom_up}


def build_task(cfg: CfgNode, backend: Backend, autocast: bool = False) -> Task:
    """Build the task of an experiment.

    Args:
        backend: runs the network.
        autocast: train in bfloat16 where PyTorch considers it safe.
    """
    return TASKS.get(cfg.MODEL.TARGET_TYPE, build_top_down)(cfg, backend, autocast)
