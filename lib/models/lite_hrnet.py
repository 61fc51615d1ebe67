"""Lite-HRNet: a small HRNet with conditional channel weighting instead of 1x1 convolutions.

Yu, Xiao, Gao, Yuan, Zhang, Sang, Wang: Lite-HRNet: A Lightweight High-Resolution Network (CVPR
2021). Parameter names and arithmetic follow models/backbones/litehrnet.py in HRNet/Lite-HRNet.
"""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional
from yacs.config import CfgNode

from lib.models import settings
from lib.models.layers.blocks import mark_gate
from lib.models.layers.lightweight import (
    Branches,
    ConvBN,
    LightweightHRNet,
    Stem,
    VectorConv,
    depthwise,
    read_plan,
    scale_branches,
    shuffle_channels,
    split_channels,
)

SPATIAL_RATIO = 4  # channel reduction of the spatial weighting


class CrossResolutionWeighting(nn.Module):
    """Scale all branches by weights that are computed from all branches at the coarsest size.

    Each channel has a weight for each pixel of the coarsest branch.
    """

    def __init__(self, channels: Sequence[int], ratio: int) -> None:
        super().__init__()
        total = sum(channels)
        hidden = max(total // ratio, 1)
        self.conv1 = ConvBN(total, hidden, 1)
        self.conv2 = ConvBN(hidden, total, 1, activation=nn.Sigmoid)

    def forward(self, x: Branches) -> Branches:
        size = x[-1].shape[-2:]
        pooled = [_pool(item, size) for item in x[:-1]]
        weights = self.conv2(self.conv1(torch.cat([*pooled, x[-1]], dim=1)))
        return scale_branches(x, weights)


def _pool(x: Tensor, size: Sequence[int]) -> Tensor:
    """Average (N, C, H, W) to the given size, which divides H and W."""
    channels, height, width = x.shape[1:]
    if not torch.onnx.is_in_onnx_export() or not isinstance(height, int):
        return functional.adaptive_avg_pool2d(x, size)
    # ONNX Runtime runs a depthwise convolution several times as fast as its average pooling.
    window = (height // size[0], width // size[1])
    mean = np.full((channels, 1, *window), 1 / (window[0] * window[1]), np.float32)
    # A tensor from NumPy becomes a constant of the graph, which quantization needs.
    return functional.conv2d(x, torch.from_numpy(mean), stride=window, groups=channels)


class SpatialWeighting(nn.Module):
    """Scale each channel of (N, C, H, W) by a weight computed from global average pooling."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        hidden = max(channels // SPATIAL_RATIO, 1)
        self.global_avgpool = nn.AdaptiveAvgPool2d(1)
        # The nested names are those of the published parameters.
        self.conv1 = nn.Sequential()
        self.conv1.conv = VectorConv(channels, hidden)
        self.conv1.activate = nn.ReLU(inplace=True)
        self.conv2 = nn.Sequential()
        self.conv2.conv = mark_gate(VectorConv(hidden, channels))
        self.conv2.activate = nn.Sigmoid()

    def forward(self, x: Tensor) -> Tensor:
        return x * self.conv2(self.conv1(self.global_avgpool(x)))


class ConditionalChannelWeighting(nn.Module):
    """Weight half of the channels, across branches and within each; shapes are unchanged."""

    def __init__(self, channels: Sequence[int], reduce_ratio: int) -> None:
        super().__init__()
        halves = [number // 2 for number in channels]
        self.cross_resolution_weighting = CrossResolutionWeighting(halves, reduce_ratio)
        self.depthwise_convs = nn.ModuleList(depthwise(number) for number in halves)
        self.spatial_weighting = nn.ModuleList(SpatialWeighting(number) for number in halves)

    def forward(self, x: Branches) -> Branches:
        lower, upper = zip(*map(split_channels, x), strict=True)
        weighted = self.cross_resolution_weighting(upper)
        return [
            shuffle_channels((identity, weigh(convolve(item))))
            for identity, item, convolve, weigh in zip(
                lower, weighted, self.depthwise_convs, self.spatial_weighting, strict=True
            )
        ]


class ShuffleUnit(nn.Module):
    """ShuffleNetV2's unit of stride 1: three convolutions on half of the channels."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        half = channels // 2
        self.branch2 = nn.Sequential(ConvBN(half, half, 1), depthwise(half), ConvBN(half, half, 1))

    def forward(self, x: Tensor) -> Tensor:
        lower, upper = split_channels(x)
        return shuffle_channels((lower, self.branch2(upper)))


class NaiveLayers(nn.ModuleList):
    """Shuffle units on each branch, as in the naive Lite-HRNet."""

    def __init__(self, channels: Sequence[int], num_blocks: int) -> None:
        super().__init__(
            nn.Sequential(*(ShuffleUnit(number) for _ in range(num_blocks))) for number in channels
        )

    def forward(self, x: Branches) -> Branches:
        return [units(item) for units, item in zip(self, x, strict=True)]


def build(cfg: CfgNode) -> LightweightHRNet:
    """Build the backbone from MODEL.EXTRA; raises InputError if a setting is invalid."""
    plan = read_plan(cfg)
    module_type = settings.choice(cfg, "MODEL.EXTRA.MODULE_TYPE", ("LITE", "NAIVE"))
    ratio = settings.positive_int(cfg, "MODEL.EXTRA.REDUCE_RATIO")

    def make_layers(channels: tuple[int, ...]) -> nn.Module:
        if module_type == "NAIVE":
            return NaiveLayers(channels, plan.num_blocks)
        blocks = (ConditionalChannelWeighting(channels, ratio) for _ in range(plan.num_blocks))
        return nn.Sequential(*blocks)

    return LightweightHRNet(plan, Stem(), make_layers)
