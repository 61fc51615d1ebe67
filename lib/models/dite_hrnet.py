"""Dite-HRNet: Lite-HRNet with dynamic convolutions, whose kernels depend on the image.

Li, Zhang, Xiao, Zhang, Bhanu: Dite-HRNet: Dynamic Lightweight High-Resolution Network for Human
Pose Estimation (IJCAI 2022). Parameter names and arithmetic follow models/backbones/ditehrnet.py in
ZiyiZhang27/Dite-HRNet.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional
from yacs.config import CfgNode

from lib.models import settings
from lib.models.layers.blocks import mark_gate
from lib.models.layers.lightweight import (
    STEM_CHANNELS,
    Branches,
    ConvBN,
    LightweightHRNet,
    PointwiseConv,
    VectorConv,
    read_plan,
    scale_branches,
    shuffle_channels,
    split_channels,
)

# Per branch, from fine to coarse.
GROUPS = (1, 1, 2, 4)  # number of channel groups, each with its own kernel size (3x3, 5x5, ...)
KERNELS = (4, 4, 2, 1)  # number of kernels that a dynamic convolution mixes
REDUCTIONS = (4, 4, 8, 8)  # channel reduction of ``GlobalContext``
STEM_KERNELS = 4  # as KERNELS, for the stem
STEM_REDUCTION = 4  # as REDUCTIONS, for the stem
ATTENTION_REDUCTION = 4  # channel reduction of ``KernelAttention``
DENSE_REDUCTION = 8  # channel reduction of ``DenseContext``


class KernelAttention(nn.Sequential):
    """Predict weights (N, num_kernels) from (N, C, H, W).

    The weights come from a sigmoid, so they need not sum to 1.
    """

    def __init__(self, channels: int, num_kernels: int) -> None:
        super().__init__()
        hidden = channels // ATTENTION_REDUCTION
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.conv1 = VectorConv(channels, hidden, bias=False)
        self.bn = nn.BatchNorm2d(hidden)
        self.relu = nn.ReLU(inplace=True)
        self.conv2 = mark_gate(VectorConv(hidden, num_kernels))
        self.sigmoid = nn.Sigmoid()
        self.flatten = nn.Flatten()


class DynamicConv(nn.Module):
    """Dynamic convolution: each image has its own weighted sum of K kernels."""

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
        shape = (num_kernels, out_channels, in_channels // groups, kernel, kernel)
        # The nested name is that of the published parameters.
        self.aggregation = nn.Module()
        self.aggregation.weight = nn.Parameter(torch.empty(shape))
        for weight in self.aggregation.weight:
            nn.init.kaiming_uniform_(weight)
        self.stride = stride
        self.padding = kernel // 2
        self.groups = groups
        self.is_pointwise = kernel == stride == groups == 1
        self.bias: Tensor | None = None  # set by absorb

    def absorb(self, norm: nn.BatchNorm2d) -> None:
        """Fold a batch norm in evaluation mode into the kernels and a bias."""
        scale, shift = scale_and_shift(norm)
        kernels = self.aggregation.weight
        self.aggregation.weight = nn.Parameter(kernels * scale.view(-1, 1, 1, 1))
        self.bias = nn.Parameter(shift)

    def forward(self, x: Tensor) -> Tensor:
        attention = self.attention(x)
        kernels = self.aggregation.weight
        batch_size = x.shape[0]
        # Compare with 1 first: in tracing, even a fixed batch size may be a Tensor, not an int.
        if batch_size == 1 and not self.is_pointwise:
            return self._convolve(x, mix_kernels(attention, kernels)[0], 1, self.bias)
        if self.is_pointwise:
            y = pointwise_per_image(x, mix_kernels(attention, kernels))
        elif not isinstance(batch_size, int):
            y = self._mix_outputs(x, attention)
        else:
            # Merge batch and channels, so that one grouped convolution handles all images. The
            # unsqueeze comes before the last permute: otherwise PyTorch does not recognise the
            # strides as channels last and converts the layout.
            merged = x.permute(2, 3, 0, 1).flatten(2).unsqueeze(0).permute(0, 3, 1, 2)
            y = self._convolve(merged, mix_kernels(attention, kernels).flatten(0, 1), batch_size)
            y = y.permute(0, 2, 3, 1).squeeze(0).unflatten(2, (batch_size, -1)).permute(2, 3, 0, 1)
            y = y.contiguous(memory_format=torch.channels_last)
        return y if self.bias is None else y + self.bias.view(-1, 1, 1).to(y.dtype)

    def _convolve(
        self, x: Tensor, kernels: Tensor, num_images: int, bias: Tensor | None = None
    ) -> Tensor:
        groups = self.groups * num_images
        return functional.conv2d(x, kernels, bias, self.stride, self.padding, 1, groups)

    def _mix_outputs(self, x: Tensor, attention: Tensor) -> Tensor:
        """Convolve with each kernel and mix the outputs, for graphs with a dynamic batch size.

        This is more work than mixing the kernels, but the number of groups does not depend on the
        batch size. Each kernel has its own convolution, because a single one with several outputs
        per channel is not depthwise, and is several times as slow on backends that run such graphs.
        """
        mixed = 0
        for index, kernel in enumerate(self.aggregation.weight):
            mixed = mixed + self._convolve(x, kernel, 1) * attention[:, index, None, None, None]
        return mixed


def scale_and_shift(norm: nn.BatchNorm2d) -> tuple[Tensor, Tensor]:
    """Return the scale and shift (C,) that a batch norm applies in evaluation mode."""
    scale = norm.weight / (norm.running_var + norm.eps).sqrt()
    return scale, norm.bias - norm.running_mean * scale


def mix_kernels(attention: Tensor, kernels: Tensor) -> Tensor:
    """Mix K kernels (K, ...) into one per image (N, ...), with weights (N, K)."""
    return (attention @ kernels.flatten(1)).unflatten(1, kernels.shape[1:])


def pointwise_per_image(x: Tensor, weights: Tensor) -> Tensor:
    """Apply a 1x1 convolution with its own weights to each image, by matmul.

    (N, C, H, W) and (N, out, C, 1, 1) -> (N, out, H, W)
    """
    pixels = x.permute(0, 2, 3, 1)
    y = pixels.flatten(1, 2) @ weights.flatten(2).transpose(1, 2)
    return y.unflatten(1, pixels.shape[1:3]).permute(0, 3, 1, 2)


def dynamic_conv_bn(
    in_channels: int,
    out_channels: int,
    kernel: int,
    stride: int = 1,
    groups: int = 1,
    num_kernels: int = STEM_KERNELS,
    activation: type[nn.Module] | None = None,
) -> ConvBN:
    """A dynamic convolution with batch norm; with a single kernel, an ordinary convolution."""
    conv = None
    if num_kernels > 1:
        conv = DynamicConv(in_channels, out_channels, kernel, stride, groups, num_kernels)
    return ConvBN(
        in_channels, out_channels, kernel, stride, groups, activation=activation, conv=conv
    )


class DynamicSplitConv(nn.Module):
    """Depthwise dynamic convolutions with a different kernel size for each group of channels."""

    def __init__(self, channels: int, num_groups: int, num_kernels: int) -> None:
        super().__init__()
        width = channels // num_groups
        self.width = width
        self.conv = nn.ModuleList(
            dynamic_conv_bn(width, width, 2 * group + 3, groups=width, num_kernels=num_kernels)
            for group in range(num_groups)
        )

    def forward(self, x: Tensor) -> Tensor:
        if len(self.conv) == 1:
            return self.conv[0](x)
        parts = x.split(self.width, dim=1)
        outputs = [conv(part) for conv, part in zip(self.conv, parts, strict=True)]
        return shuffle_channels(outputs, planar=True)


class Scaling(nn.Module):
    """Multiply (N, C, H, W) by weights (N, C, 1, 1) and apply a folded batch norm, if any."""

    def __init__(self) -> None:
        super().__init__()
        self.scale: Tensor | None = None
        self.shift: Tensor | None = None

    def absorb(self, norm: nn.BatchNorm2d) -> None:
        """Fold a batch norm in evaluation mode into the product."""
        self.scale, self.shift = (
            nn.Parameter(value.view(-1, 1, 1)) for value in scale_and_shift(norm)
        )

    def forward(self, x: Tensor, weights: Tensor) -> Tensor:
        if self.scale is None:
            return x * weights
        # Autocast may have reduced the precision of x.
        return torch.addcmul(self.shift.to(x.dtype), x, (weights * self.scale).to(x.dtype))


class GlobalContext(nn.Module):
    """Scale the channels of (N, C, H, W) by weights from attention pooling; apply batch norm."""

    fold_pairs = (("scaling", "bn"),)  # for lib.models.folding

    def __init__(self, channels: int, reduction: int) -> None:
        super().__init__()
        hidden = channels // reduction
        self.conv_mask = mark_gate(PointwiseConv(channels, 1, bias=True))
        self.channel_attention = channel_attention(
            VectorConv(channels, hidden, bias=False), VectorConv(hidden, channels)
        )
        self.scaling = Scaling()
        self.bn = nn.BatchNorm2d(channels)

    def forward(self, x: Tensor) -> Tensor:
        mask = self.conv_mask(x).flatten(2).softmax(dim=2)
        pooled = x.flatten(2) @ mask.transpose(1, 2)
        return self.bn(self.scaling(x, self.channel_attention(pooled.unsqueeze(3))))


class DenseContext(nn.Module):
    """Scale all branches by weights that are computed from all branches at the coarsest size.

    Each channel has a weight for each pixel of the coarsest branch. The finer branches are pooled
    to its size exactly as in the published code, which splits their memory into as many contiguous
    chunks as the coarsest branch has pixels. So a chunk mixes channels and pixels.
    """

    has_unused_parameters = True  # for lib.utils.distributed

    def __init__(self, channels: Sequence[int]) -> None:
        super().__init__()
        total = sum(channels)
        hidden = total // DENSE_REDUCTION
        # The last convolution is unused, but it is in the published checkpoints.
        self.conv_mask = nn.ModuleList(
            mark_gate(PointwiseConv(number, 1, bias=True)) for number in channels
        )
        self.channel_attention = channel_attention(
            PointwiseConv(total, hidden), PointwiseConv(hidden, total, bias=True)
        )

    def forward(self, x: Branches) -> Branches:
        height, width = x[-1].shape[-2:]
        pooled = [
            _pool_chunks(item, conv(item).flatten(1).softmax(dim=1), height, width)
            for item, conv in zip(x[:-1], self.conv_mask, strict=False)
        ]
        weights = self.channel_attention(torch.cat([*pooled, x[-1]], dim=1))
        return scale_branches(x, weights)


def _pool_chunks(x: Tensor, mask: Tensor, height: int, width: int) -> Tensor:
    """Pool (N, C, H, W) with a mask (N, H * W) to (N, C, height, width)."""
    num_chunks, channels = height * width, x.shape[1]
    size = x.shape[2] * x.shape[3] // num_chunks
    chunks = x.flatten(1).unflatten(1, (num_chunks, channels, size))
    pooled = chunks @ mask.unflatten(1, (num_chunks, size, 1))
    return pooled.squeeze(3).transpose(1, 2).unflatten(2, (height, width))


def channel_attention(narrow: nn.Conv2d, widen: nn.Conv2d) -> nn.Sequential:
    """Two 1x1 convolutions and a sigmoid, from pooled features to channel weights."""
    norm = nn.BatchNorm2d(narrow.out_channels)
    return nn.Sequential(narrow, norm, nn.ReLU(inplace=True), mark_gate(widen), nn.Sigmoid())


class DynamicMultiScaleContext(nn.Module):
    """Context across branches, then convolutions and context within each branch.

    All of this is applied to half of the channels; the other half is unchanged.
    """

    def __init__(self, channels: Sequence[int]) -> None:
        super().__init__()
        halves = [number // 2 for number in channels]
        self.dcm = DenseContext(halves)
        self.conv = nn.ModuleList(map(DynamicSplitConv, halves, GROUPS, KERNELS))
        self.gcm = nn.ModuleList(map(GlobalContext, halves, REDUCTIONS))

    def forward(self, x: Branches) -> Branches:
        lower, upper = zip(*(split_channels(item, planar=True) for item in x), strict=True)
        return [
            shuffle_channels((identity, context(convolve(item))), planar=True)
            for identity, item, convolve, context in zip(
                lower, self.dcm(upper), self.conv, self.gcm, strict=True
            )
        ]


class DynamicStem(nn.Module):
    """Stem of Dite-HRNet: (N, 3, H, W) -> (N, 32, H/4, W/4)."""

    def __init__(self) -> None:
        super().__init__()
        half = STEM_CHANNELS // 2
        narrow = half // 4
        self.conv1 = ConvBN(3, STEM_CHANNELS, 3, stride=2)
        self.branch1 = nn.Sequential(
            dynamic_conv_bn(half, half, 3, stride=2, groups=half),
            GlobalContext(half, STEM_REDUCTION),
            dynamic_conv_bn(half, half, 1, activation=nn.ReLU),
        )
        self.branch2 = nn.Sequential(
            dynamic_conv_bn(half, half, 3, groups=half),
            GlobalContext(half, STEM_REDUCTION),
            dynamic_conv_bn(half, narrow, 1, activation=nn.ReLU),
            dynamic_conv_bn(narrow, half, 1),
            dynamic_conv_bn(half, half, 3, stride=2, groups=half, activation=nn.ReLU),
        )

    def forward(self, x: Tensor) -> Tensor:
        lower, upper = split_channels(self.conv1(x), planar=True)
        return shuffle_channels((self.branch1(lower), self.branch2(upper)), planar=True)


def build(cfg: CfgNode) -> LightweightHRNet:
    """Build the backbone from MODEL.EXTRA; raises InputError if a setting is invalid."""
    plan = read_plan(cfg)
    is_valid = all(number % 8 == 0 and number >= 16 for number in plan.channels)
    settings.require(
        is_valid, "MODEL.EXTRA.NUM_CHANNELS", "multiples of 8, at least 16", list(plan.channels)
    )

    def make_layers(channels: tuple[int, ...]) -> nn.Module:
        return nn.Sequential(*(DynamicMultiScaleContext(channels) for _ in range(plan.num_blocks)))

    return LightweightHRNet(plan, DynamicStem(), make_layers, fuse_after_relu=True)
