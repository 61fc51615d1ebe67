"""Training, evaluation and prediction."""

import torch
from yacs.config import CfgNode

from lib.config import is_bottom_up, skeleton_of
from lib.core.backends import Backend
from lib.core.bottom_up import BottomUp
from lib.core.task import Task
from lib.core.top_down import TopDown
from lib.dataset import crop_of


def build_task(cfg: CfgNode, backend: Backend, autocast: torch.dtype | None = None) -> Task:
    """Build the task of an experiment; ``backend`` and ``autocast`` are as for ``Task``."""
    skeleton = skeleton_of(cfg)
    if is_bottom_up(cfg):
        size = int(cfg.MODEL.IMAGE_SIZE[0])
        return BottomUp(backend, skeleton, size, cfg.TEST.SCALE_FACTOR, autocast)
    return TopDown(backend, skeleton, crop_of(cfg), autocast)
