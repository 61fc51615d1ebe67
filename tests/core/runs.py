"""Parts of a tiny experiment, built as the tools build them."""

from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from yacs.config import CfgNode

from lib.config import load_config
from lib.core.backends import TorchBackend
from lib.core.codecs import build_codec
from lib.core.codecs.heatmap import HeatmapCodec
from lib.core.optim import build_optimizer, build_schedule
from lib.core.top_down import TopDown
from lib.dataset import build_dataset
from lib.dataset.loading import TestLoader, train_loader
from lib.dataset.top_down import TopDownDataset
from lib.models import build_model
from tests import tiny

CPU = torch.device("cpu")


class Parts(NamedTuple):
    cfg: CfgNode
    data: TopDownDataset
    loader: torch.utils.data.DataLoader
    tests: TestLoader
    codec: HeatmapCodec
    model: torch.nn.Module
    optimizer: torch.optim.Optimizer


def parts(tmp_path: Path, **sections: dict) -> Parts:
    """Build everything for a run on six people in three images, with weights from seed 0."""
    if not (tmp_path / "annotations").exists():
        tiny.write_coco(tmp_path)
    cfg = load_config(tiny.experiment(tmp_path / "tiny.yaml", tmp_path, **sections))
    data = build_dataset(cfg, "val2017", is_train=True)
    tested = build_dataset(cfg, "val2017", is_train=False)
    torch.manual_seed(0)
    model = build_model(cfg)
    return Parts(
        cfg,
        data,
        train_loader(data, cfg.TRAIN.BATCH_SIZE_PER_GPU, 0, cfg.TRAIN.SHUFFLE),
        TestLoader(tested, cfg.TEST.BATCH_SIZE_PER_GPU, 0),
        build_codec(cfg, data.skeleton),
        model,
        build_optimizer(cfg, model),
    )


def backend(
    run: Parts, model: torch.nn.Module | None = None, flip_test: bool = True
) -> TorchBackend:
    """Build the backend for the run's network, or for ``model``."""
    return TorchBackend((model or run.model).eval(), run.codec, flip_test=flip_test)


def task(
    run: Parts,
    model: torch.nn.Module | None = None,
    flip_test: bool = True,
    autocast: torch.dtype | None = None,
) -> TopDown:
    """Build the task of the run's ``backend``."""
    tested = backend(run, model, flip_test)
    return TopDown(tested, run.data.skeleton, run.data.crop, autocast)


class Oracle(torch.nn.Module):
    """A network that returns prepared outputs one after the other, for any input."""

    def __init__(self, outputs: list[torch.Tensor]) -> None:
        super().__init__()
        self.outputs = iter(outputs)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return next(self.outputs)


def schedule(run: Parts):
    return build_schedule(run.cfg, len(run.loader))


def same_keypoints(first: np.ndarray, second: np.ndarray, atol: float = 1e-3) -> bool:
    """Return True if at least 90 % of the keypoints are equal.

    Where two maxima are almost equal, rounding decides, and it depends on the batch size.
    """
    return (np.abs(first - second).max(-1) < atol).mean() > 0.9
