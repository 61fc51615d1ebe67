"""Dite-HRNet: Lite-HRNet's skeleton with kernels that depend on the image.

Li, Zhang, Xiao, Zhang, Bhanu: Dite-HRNet: Dynamic Lightweight High-Resolution Network for Human
Pose Estimation (IJCAI 2022). State-dict names and arithmetic are those of
models/backbones/ditehrnet.py in ZiyiZhang27/Dite-HRNet.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional
from yacs.config import CfgNode

from lib.models.blocks import init_weights
from lib.models.lightweight import (
    STEM_CHANNELS,
    Branches,
    ConvBN,
    LightweightHRNet,
    read_plan,
    shuffle,
)

# For each branch, the finest first: how many sizes of kernels it has (3x3, 5x5, ...), how many
# kernels of each are aggregated, and the channels over the hidden ones of its global context.
GROUPS = (1, 1, 2, 4)
KERNELS = (4, 4, 2, 1)
REDUCTIONS = (4, 4, 8, 8)
STEM_KERNELS = 4
STEM_REDUCTION = 4
ATTENTION_REDUCTION = 4
DENSE_REDUCTION = 8


class KernelAttention(nn.Module):
    """(N, C, H, W) -> weights (N, num_kernels) between 0 and 1; they need not sum to 1."""

    def __init__(self, channels: int, num_kernels: int) -> None:
        super().__init__()
        hidden = channels // ATTENTION_REDUCTION
        self.conv1 = nn.Conv2d(channels, hidden, 1, bias=False)
        self.bn = nn.BatchNorm2d(hidden)
        self.conv2 = nn.Conv2d(hidden, num_kernels, 1)

    def forward(self, x: Tensor) -> Tensor:
        hidden = functional.relu(self.bn(self.conv1(x.mean((2, 3), keepdim=True))))
        return self.conv2(hidden).sigmoid().flatten(1)


class Kernels(nn.Module):
    """Holds ``weight``: K kernels (K, out, in / groups, k, k)."""

    def __init__(self, *shape: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(shape))
        for kernel in self.weight:
            nn.init.kaiming_uniform_(kernel)


class DynamicConv(nn.Module):
    """Dynamic kernel aggregation: each image is convolved with its own mix of K kernels."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel: int,
        stride: int = 1,
        groups: int = 1,
        num_kernels: int = STEM_KERNELS,
    ) -> None:
        super().__init__()
        self.attention = KernelAttention(in_channels, num_kernels)
        self.aggregation = Kernels(
            num_kernels, out_channels, in_channels // groups, kernel, kernel
        )
        self.stride = stride
        self.padding = kernel // 2
        self.groups = groups

    def forward(self, x: Tensor) -> Tensor:
        kernels = self.aggregation.weight
        mixed = self.attention(x) @ kernels.flatten(1)
        # The images side by side as channels of one: one grouped convolution does them all.
        y = functional.conv2d(
            x.reshape(1, -1, *x.shape[2:]),
            mixed.view(-1, *kernels.shape[2:]),
            stride=self.stride,
            padding=self.padding,
            groups=self.groups * len(x),
        )
        return y.view(len(x), -1, *y.shape[2:])


def dynamic(
    in_channels: int,
    out_channels: int,
    kernel: int,
    stride: int = 1,
    groups: int = 1,
    num_kernels: int = STEM_KERNELS,
    activation: type[nn.Module] | None = None,
) -> ConvBN:
    """A dynamic convolution (an ordinary one for one kernel) with its batch norm."""
    conv = None
    if num_kernels > 1:
        conv = DynamicConv(in_channels, out_channels, kernel, stride, groups, num_kernels)
    return ConvBN(
        in_channels, out_channels, kernel, stride, groups, activation=activation, conv=conv
    )


class DynamicSplitConv(nn.Module):
    """Equal groups of channels, each convolved depthwise with kernels of another size."""

    def __init__(self, channels: int, num_groups: int, num_kernels: int) -> None:
        super().__init__()
        width = channels // num_groups
        self.width = width
        self.conv = nn.ModuleList(
            dynamic(width, width, 2 * group + 3, groups=width, num_kernels=num_kernels)
            for group in range(num_groups)
        )

    def forward(self, x: Tensor) -> Tensor:
        if len(self.conv) == 1:
            return self.conv[0](x)
        parts = x.split(self.width, dim=1)
        return shuffle([conv(part) for conv, part in zip(self.conv, parts, strict=True)])


class GlobalContext(nn.Module):
    """(N, C, H, W) times a weight for every channel, from a mean weighted by place, and a BN."""

    def __init__(self, channels: int, reduction: int) -> None:
        super().__init__()
        hidden = channels // reduction
        self.conv_mask = nn.Conv2d(channels, 1, 1)
        self.channel_attention = channel_attention(channels, hidden)
        self.bn = nn.BatchNorm2d(channels)

    def forward(self, x: Tensor) -> Tensor:
        mask = self.conv_mask(x).flatten(2).softmax(dim=2)
        pooled = x.flatten(2) @ mask.transpose(1, 2)
        return self.bn(x * self.channel_attention(pooled.unsqueeze(3)))


class DenseContext(nn.Module):
    """A weight for every channel of every branch, from all branches at the coarsest size.

    How the finer ones get there is the published code's, literally: their memory is cut into as
    many runs as the coarsest has places, so that a run mixes channels and places.
    """

    def __init__(self, channels: Sequence[int]) -> None:
        super().__init__()
        self.channels = list(channels)
        total = sum(channels)
        # The last one is in the published checkpoints but computes nothing.
        self.conv_mask = nn.ModuleList(nn.Conv2d(number, 1, 1) for number in channels)
        self.channel_attention = channel_attention(total, total // DENSE_REDUCTION)

    def forward(self, x: Branches) -> Branches:
        height, width = x[-1].shape[-2:]
        pooled = [
            _pool_runs(item, conv(item).flatten(1).softmax(dim=1), height, width)
            for item, conv in zip(x[:-1], self.conv_mask, strict=False)
        ]
        weights = self.channel_attention(torch.cat([*pooled, x[-1]], dim=1))
        *finer, coarsest = weights.split(self.channels, dim=1)
        weighted = [
            item * functional.interpolate(weight, size=item.shape[-2:], mode="nearest")
            for item, weight in zip(x, finer, strict=False)
        ]
        return [*weighted, x[-1] * coarsest]


def _pool_runs(x: Tensor, mask: Tensor, height: int, width: int) -> Tensor:
    """(N, C, H, W) and mask (N, H * W) -> (N, C, height, width)"""
    places = height * width
    runs = x.reshape(len(x), places, x.shape[1], -1)
    pooled = runs @ mask.view(len(x), places, -1, 1)
    return pooled.squeeze(3).transpose(1, 2).reshape(len(x), -1, height, width)


def channel_attention(channels: int, hidden: int) -> nn.Sequential:
    """(N, channels, H, W) -> weights between 0 and 1 of the same shape."""
    return nn.Sequential(
        nn.Conv2d(channels, hidden, 1, bias=False),
        nn.BatchNorm2d(hidden),
        nn.ReLU(inplace=True),
        nn.Conv2d(hidden, channels, 1),
        nn.Sigmoid(),
    )


class DynamicMultiScaleContext(nn.Module):
    """Context across branches, convolutions and context within each, over half of the channels."""

    def __init__(self, channels: Sequence[int]) -> None:
        super().__init__()
        halves = [number // 2 for number in channels]
        self.dcm = DenseContext(halves)
        self.conv = nn.ModuleList(map(DynamicSplitConv, halves, GROUPS, KERNELS))
        self.gcm = nn.ModuleList(map(GlobalContext, halves, REDUCTIONS))

    def forward(self, x: Branches) -> Branches:
        lower, upper = zip(*(item.chunk(2, dim=1) for item in x), strict=True)
        return [
            shuffle((untouched, context(convolve(item))))
            for untouched, item, convolve, context in zip(
                lower, self.dcm(upper), self.conv, self.gcm, strict=True
            )
        ]


class DynamicStem(nn.Module):
    """(N, 3, H, W) -> (N, 32, H/4, W/4)"""

    def __init__(self) -> None:
        super().__init__()
        half = STEM_CHANNELS // 2
        narrow = half // 4
        self.conv1 = ConvBN(3, STEM_CHANNELS, 3, stride=2)
        self.branch1 = nn.Sequential(
            dynamic(half, half, 3, stride=2, groups=half),
            GlobalContext(half, STEM_REDUCTION),
            dynamic(half, half, 1, activation=nn.ReLU),
        )
        self.branch2 = nn.Sequential(
            dynamic(half, half, 3, groups=half),
            GlobalContext(half, STEM_REDUCTION),
            dynamic(half, narrow, 1, activation=nn.ReLU),
            dynamic(narrow, half, 1),
            dynamic(half, half, 3, stride=2, groups=half, activation=nn.ReLU),
        )

    def forward(self, x: Tensor) -> Tensor:
        lower, upper = self.conv1(x).chunk(2, dim=1)
        return shuffle((self.branch1(lower), self.branch2(upper)))


def build(cfg: CfgNode) -> LightweightHRNet:
    """The network that MODEL.EXTRA describes.

    Raises:
        InputError: a value that cannot be built; the message names its key.
    """
    plan = read_plan(cfg)

    def layers(channels: tuple[int, ...]) -> nn.Module:
        return nn.Sequential(*(DynamicMultiScaleContext(channels) for _ in range(plan.num_blocks)))

    network = LightweightHRNet(plan, DynamicStem(), layers, is_rectified_first=True)
    init_weights(network, cfg)
    return network
