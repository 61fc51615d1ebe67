"""Tiny networks and exported files of them."""

import importlib.util
import os
from pathlib import Path
from typing import NamedTuple

import pytest
import torch
from torch import nn
from yacs.config import CfgNode

from lib.config import load_config
from lib.core.backends import TorchBackend
from lib.core.codecs import build_codec
from lib.core.codecs.codec import Codec
from lib.core.exported import Description
from lib.deploy.export import decoding_network, export, write_draft
from lib.keypoints.skeletons import COCO, Skeleton
from tests import tiny

PACKAGES = ("onnx", "onnxscript", "onnxruntime", "openvino")
# OpenVINO's own oneDNN reads this variable, too, and fails ("bad combination") if limited to SSE41.
OPENVINO_WORKS = os.environ.get("ONEDNN_MAX_CPU_ISA") != "SSE41"


def graphs_run() -> bool:
    """Return True if this machine can export to ONNX and run ONNX Runtime and OpenVINO."""
    return OPENVINO_WORKS and all(importlib.util.find_spec(name) for name in PACKAGES)


def skip_without_graphs() -> None:
    """Skip the test if ``graphs_run`` is False."""
    if not graphs_run():
        pytest.skip("needs ONNX Runtime and OpenVINO, and oneDNN without a limit to SSE41")


class Small(NamedTuple):
    """Parts of an experiment, without data."""

    cfg: CfgNode
    skeleton: Skeleton
    network: nn.Module
    codec: Codec

    @property
    def how(self) -> tuple:
        return self.codec, self.cfg.DATASET.COLOR_RGB, self.cfg.TEST.FLIP_TEST

    @property
    def backend(self) -> TorchBackend:
        return TorchBackend(self.network, *self.how)

    def write(
        self, folder: Path, kind: str, decodes: bool = True, dynamic_batch: bool = True
    ) -> Path:
        module = decoding_network(self.cfg, self.network, self.codec) if decodes else self.network
        description = Description.of(self.cfg, self.skeleton, decodes, dynamic_batch)
        return write_draft(folder / "small", export(module, description, kind))


class Vectors(nn.Module):
    """A network with SimCC outputs, with two bins per pixel."""

    def __init__(self) -> None:
        super().__init__()
        self.maps = nn.Conv2d(3, 17, 4, stride=4)
        self.x, self.y = nn.Linear(256, 128), nn.Linear(256, 128)

    def forward(self, x: torch.Tensor) -> list[torch.Tensor]:
        flat = self.maps(x).flatten(2)
        return [self.x(flat), self.y(flat)]


def small(folder: Path, **model) -> Small:
    """Build an experiment whose network is one convolution with random weights.

    It predicts heatmaps of 16 x 16 from crops of 64 x 64; for MODEL.HEAD simcc, SimCC vectors.
    """
    cfg = load_config(tiny.experiment(folder / "small.yaml", folder, MODEL=model))
    skeleton = COCO
    torch.manual_seed(0)
    is_simcc = cfg.MODEL.HEAD == "simcc"
    network = Vectors() if is_simcc else nn.Sequential(nn.Conv2d(3, 17, 4, stride=4))
    return Small(cfg, skeleton, network.eval(), build_codec(cfg, skeleton))


def small_scenes(folder: Path) -> Small:
    """Build a bottom-up experiment whose network is one convolution with random weights.

    It predicts heatmaps and tags at stride 4.
    """
    cfg = load_config(tiny.scenes(folder / "scenes.yaml", folder))
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(3, 2 * len(COCO), 4, stride=4))
    return Small(cfg, COCO, network.eval(), build_codec(cfg, COCO))
