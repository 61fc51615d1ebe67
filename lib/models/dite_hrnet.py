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

from lib.models import settings
from lib.models.blocks import gate
from lib.models.lightweight import (
    STEM_CHANNELS,
    Branches,
    ConvBN,
    LightweightHRNet,
    PixelConv,
    PointConv,
    halves,
    read_plan,
    shuffle,
    weigh,
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


class KernelAttention(nn.Sequential):
    """(N, C, H, W) -> weights (N, num_kernels) between 0 and 1; they need not sum to 1."""

    def __init__(self, channels: int, num_kernels: int) -> None:
        super().__init__()
        hidden = channels // ATTENTION_REDUCTION
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.conv1 = PixelConv(channels, hidden, bias=False)
        self.bn = nn.BatchNorm2d(hidden)
        self.relu = nn.ReLU(inplace=True)
        self.conv2 = gate(PixelConv(hidden, num_kernels))
        self.sigmoid = nn.Sigmoid()
        self.flatten = nn.Flatten()


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
        self.aggregation = Kernels(num_kernels, out_channels, in_channels // groups, kernel, kernel)
        self.stride = stride
        self.padding = kernel // 2
        self.groups = groups
        self.is_pointwise = kernel == stride == groups == 1
        self.bias: Tensor | None = None  # of a batch norm that was absorbed

    def absorb(self, norm: nn.BatchNorm2d) -> None:
        """Take a batch norm in evaluation into the kernels and a bias."""
        factor, shift = factor_and_shift(norm)
        kernels = self.aggregation.weight
        self.aggregation.weight = nn.Parameter(kernels * factor.view(-1, 1, 1, 1))
        self.bias = nn.Parameter(shift)

    def forward(self, x: Tensor) -> Tensor:
        attention = self.attention(x)
        kernels = self.aggregation.weight
        number = x.shape[0]
        # Asked before whether the number is known: traced, a known one is a tensor.
        if number == 1 and not self.is_pointwise:
            return self._convolve(x, mix_kernels(attention, kernels)[0], 1, self.bias)
        if self.is_pointwise:
            y = mix_channels(x, mix_kernels(attention, kernels))
        elif not isinstance(number, int):
            y = self._convolve_by_each(x, attention)
        else:
            # The images side by side as channels of one, so that one convolution does them all. The
            # dimension of one comes before the channels go to their place: PyTorch would not know
            # the layout as channels last otherwise, and convert it.
            row = x.permute(2, 3, 0, 1).flatten(2).unsqueeze(0).permute(0, 3, 1, 2)
            y = self._convolve(row, mix_kernels(attention, kernels).flatten(0, 1), number)
            y = y.permute(0, 2, 3, 1).squeeze(0).unflatten(2, (number, -1)).permute(2, 3, 0, 1)
            y = y.contiguous(memory_format=torch.channels_last)
        return y if self.bias is None else y + self.bias.view(-1, 1, 1).to(y.dtype)

    def _convolve(
        self, x: Tensor, kernels: Tensor, images: int, bias: Tensor | None = None
    ) -> Tensor:
        groups = self.groups * images
        return functional.conv2d(x, kernels, bias, self.stride, self.padding, 1, groups)

    def _convolve_by_each(self, x: Tensor, attention: Tensor) -> Tensor:
        """Mix what all kernels give instead of the kernels: more work, but the number of groups
        does not depend on the number of images, which an exported or compiled graph may leave open.

        A convolution for each kernel: one with several results a channel is not depthwise to the
        backends that run such graphs, and several times as slow there.
        """
        mixed = 0
        for number, kernel in enumerate(self.aggregation.weight):
            mixed = mixed + self._convolve(x, kernel, 1) * attention[:, number, None, None, None]
        return mixed


def factor_and_shift(norm: nn.BatchNorm2d) -> tuple[Tensor, Tensor]:
    """What a batch norm in evaluation multiplies each channel by, and then adds: (C,) each."""
    factor = norm.weight / (norm.running_var + norm.eps).sqrt()
    return factor, norm.bias - norm.running_mean * factor


def mix_kernels(attention: Tensor, kernels: Tensor) -> Tensor:
    """(N, K) and K kernels (K, ...) -> a kernel for each image, (N, ...)"""
    return (attention @ kernels.flatten(1)).unflatten(1, kernels.shape[1:])


def mix_channels(x: Tensor, weights: Tensor) -> Tensor:
    """A 1x1 convolution of each image with weights (out, C, 1, 1) of its own, as a product.

    (N, C, H, W) and (N, out, C, 1, 1) -> (N, out, H, W)
    """
    pixels = x.permute(0, 2, 3, 1)
    y = pixels.flatten(1, 2) @ weights.flatten(2).transpose(1, 2)
    return y.unflatten(1, pixels.shape[1:3]).permute(0, 3, 1, 2)


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


class Scaling(nn.Module):
    """(N, C, H, W) times (N, C, 1, 1), and then what a batch norm that was absorbed does."""

    def __init__(self) -> None:
        super().__init__()
        self.factor: Tensor | None = None
        self.shift: Tensor | None = None

    def absorb(self, norm: nn.BatchNorm2d) -> None:
        """Take a batch norm in evaluation into the product."""
        self.factor, self.shift = (
            nn.Parameter(value.view(-1, 1, 1)) for value in factor_and_shift(norm)
        )

    def forward(self, x: Tensor, weights: Tensor) -> Tensor:
        if self.factor is None:
            return x * weights
        # In the type of x, which autocast may have made smaller.
        return torch.addcmul(self.shift.to(x.dtype), x, (weights * self.factor).to(x.dtype))


class GlobalContext(nn.Module):
    """(N, C, H, W) times a weight for every channel, from a mean weighted by position, and a BN."""

    folds = (("scaling", "bn"),)

    def __init__(self, channels: int, reduction: int) -> None:
        super().__init__()
        hidden = channels // reduction
        self.conv_mask = gate(PointConv(channels, 1, bias=True))
        self.channel_attention = channel_attention(
            PixelConv(channels, hidden, bias=False), PixelConv(hidden, channels)
        )
        self.scaling = Scaling()
        self.bn = nn.BatchNorm2d(channels)

    def forward(self, x: Tensor) -> Tensor:
        mask = self.conv_mask(x).flatten(2).softmax(dim=2)
        pooled = x.flatten(2) @ mask.transpose(1, 2)
        return self.bn(self.scaling(x, self.channel_attention(pooled.unsqueeze(3))))


class DenseContext(nn.Module):
    """A weight for every channel of every branch, from all branches at the coarsest size.

    How the finer ones get there is the published code's, literally: their memory is cut into as
    many runs as the coarsest has pixels, so that a run mixes channels and pixels.
    """

    def __init__(self, channels: Sequence[int]) -> None:
        super().__init__()
        total = sum(channels)
        hidden = total // DENSE_REDUCTION
        # The last one is in the published checkpoints but computes nothing.
        self.conv_mask = nn.ModuleList(gate(PointConv(number, 1, bias=True)) for number in channels)
        self.channel_attention = channel_attention(
            PointConv(total, hidden), PointConv(hidden, total, bias=True)
        )

    def forward(self, x: Branches) -> Branches:
        height, width = x[-1].shape[-2:]
        pooled = [
            _pool_runs(item, conv(item).flatten(1).softmax(dim=1), height, width)
            for item, conv in zip(x[:-1], self.conv_mask, strict=False)
        ]
        weights = self.channel_attention(torch.cat([*pooled, x[-1]], dim=1))
        return weigh(x, weights)


def _pool_runs(x: Tensor, mask: Tensor, height: int, width: int) -> Tensor:
    """(N, C, H, W) and mask (N, H * W) -> (N, C, height, width)"""
    num_runs, channels = height * width, x.shape[1]
    size = x.shape[2] * x.shape[3] // num_runs
    runs = x.flatten(1).unflatten(1, (num_runs, channels, size))
    pooled = runs @ mask.unflatten(1, (num_runs, size, 1))
    return pooled.squeeze(3).transpose(1, 2).unflatten(2, (height, width))


def channel_attention(narrow: nn.Conv2d, widen: nn.Conv2d) -> nn.Sequential:
    """(N, C, H, W) -> weights between 0 and 1 of the same shape."""
    norm = nn.BatchNorm2d(narrow.out_channels)
    return nn.Sequential(narrow, norm, nn.ReLU(inplace=True), gate(widen), nn.Sigmoid())


class DynamicMultiScaleContext(nn.Module):
    """Context across branches, convolutions and context within each, over half of the channels."""

    def __init__(self, channels: Sequence[int]) -> None:
        super().__init__()
        halves = [number // 2 for number in channels]
        self.dcm = DenseContext(halves)
        self.conv = nn.ModuleList(map(DynamicSplitConv, halves, GROUPS, KERNELS))
        self.gcm = nn.ModuleList(map(GlobalContext, halves, REDUCTIONS))

    def forward(self, x: Branches) -> Branches:
        lower, upper = zip(*map(halves, x), strict=True)
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
        lower, upper = halves(self.conv1(x))
        return shuffle((self.branch1(lower), self.branch2(upper)))


def build(cfg: CfgNode) -> LightweightHRNet:
    """The backbone that MODEL.EXTRA describes.

    Raises:
        InputError: a value that cannot be built; the message names its key.
    """
    plan = read_plan(cfg)
    is_fitting = all(number % 8 == 0 and number >= 16 for number in plan.channels)
    settings.require(
        is_fitting, "MODEL.EXTRA.NUM_CHANNELS", "multiples of 8 from 16", list(plan.channels)
    )

    def layers(channels: tuple[int, ...]) -> nn.Module:
        return nn.Sequential(*(DynamicMultiScaleContext(channels) for _ in range(plan.num_blocks)))

    return LightweightHRNet(plan, DynamicStem(), layers, is_rectified_first=True)
