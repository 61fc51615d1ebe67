"""What Lite-HRNet, Dite-HRNet and WideHRNet share: all of the network but the stem and the blocks.

Facts and state-dict names: HRNet/Lite-HRNet, models/backbones/litehrnet.py, from which the other
two descend. The published networks were trained with two peculiarities of their fusing, kept here:

- The finest branch enters its own sum twice.
- The coarser rows read the finest branch after it was fused, instead of before, and twice. (Sums
  were made in place, in the memory of the first branch.) Twice the same is computed once here and
  doubled; its batch norms take the two updates that a training step gave them in one of their
  momentum, ``TWICE``.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional
from yacs.config import CfgNode

from lib.models import settings
from lib.models.branches import Transition, fuse_layers
from lib.models.network import PoseNetwork

MOMENTUM = 0.1
TWICE = 1 - (1 - MOMENTUM) ** 2  # of one update that does what two of MOMENTUM do
NUM_STAGES = 3
STEM_CHANNELS = 32
FEW = 4e6  # multiplications that a product does before a convolution has begun

Branches = list[Tensor]  # branch i is (N, C_i, H / 2^i, W / 2^i)


class ConvBN(nn.Sequential):
    """A convolution without bias, its batch norm, and an activation if there is one.

    Its entries are called ``conv`` and ``bn``, as mmcv's ConvModule calls them.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel: int,
        stride: int = 1,
        groups: int = 1,
        activation: type[nn.Module] | None = nn.ReLU,
        conv: nn.Module | None = None,
    ) -> None:
        super().__init__()
        if conv is None and kernel == stride == groups == 1:
            conv = PointConv(in_channels, out_channels)
        self.conv = conv or nn.Conv2d(
            in_channels,
            out_channels,
            kernel,
            stride,
            kernel // 2,
            groups=groups,
            bias=False,
        )
        self.bn = nn.BatchNorm2d(out_channels)
        if activation is nn.ReLU:
            self.activation = nn.ReLU(inplace=True)
        elif activation is not None:
            self.activation = activation()


class PointConv(nn.Conv2d):
    """A 1x1 convolution; of few and small maps on a CPU a matrix product, which starts sooner."""

    def __init__(self, in_channels: int, out_channels: int, bias: bool = False) -> None:
        super().__init__(in_channels, out_channels, 1, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        if not x.is_cpu or is_traced() or x.numel() * self.out_channels > FEW:
            return super().forward(x)
        weight = self.weight.view(self.out_channels, self.in_channels)
        return functional.linear(x.permute(0, 2, 3, 1), weight, self.bias).permute(0, 3, 1, 2)


class PixelConv(nn.Conv2d):
    """A 1x1 convolution of (N, C, 1, 1) maps, as a matrix product, which starts sooner."""

    def __init__(self, in_channels: int, out_channels: int, bias: bool = True) -> None:
        super().__init__(in_channels, out_channels, 1, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        weight = self.weight.view(self.out_channels, self.in_channels)
        y = functional.linear(x.flatten(1), weight, self.bias)
        return y.view(-1, self.out_channels, 1, 1)


def is_traced() -> bool:
    """True while a graph is made for another backend, which has better uses for convolutions."""
    is_compiled = torch.jit.is_tracing() or torch.compiler.is_compiling()
    return is_compiled or torch.onnx.is_in_onnx_export()


def depthwise(channels: int, stride: int = 1) -> ConvBN:
    """A 3x3 convolution of each channel by itself, without activation."""
    return ConvBN(channels, channels, 3, stride, groups=channels, activation=None)


def separable_layers(
    in_channels: int, out_channels: int, stride: int, is_active: bool
) -> nn.Sequential:
    """A depthwise 3x3 and a 1x1 convolution, each with its batch norm; ReLU only at the end."""
    return nn.Sequential(
        nn.Conv2d(in_channels, in_channels, 3, stride, 1, groups=in_channels, bias=False),
        nn.BatchNorm2d(in_channels),
        PointConv(in_channels, out_channels),
        nn.BatchNorm2d(out_channels),
        *([nn.ReLU(inplace=True)] if is_active else []),
    )


def halves(x: Tensor) -> tuple[Tensor, Tensor]:
    """The lower and the upper half of the channels of (N, 2 * C, H, W), channels last as ``x`` is.

    They are cut in that order of dimensions so that their gradients come together in it again.
    """
    if torch.onnx.is_in_onnx_export():
        return x.chunk(2, dim=1)
    lower, upper = x.permute(0, 2, 3, 1).chunk(2, dim=3)
    return lower.permute(0, 3, 1, 2), upper.permute(0, 3, 1, 2)


def shuffle(parts: Sequence[Tensor]) -> Tensor:
    """Channels taken from the equally wide ``parts`` in turns: a channel shuffle of their
    concatenation, in one copy.

    G tensors (N, C, H, W) -> (N, G * C, H, W), channels last, but in an ONNX graph, which has no
    such layout.
    """
    if torch.onnx.is_in_onnx_export():
        return torch.stack(tuple(parts), dim=2).flatten(1, 2)
    last = torch.stack([part.permute(0, 2, 3, 1) for part in parts], dim=4).flatten(3)
    return last.permute(0, 3, 1, 2)


def weigh(x: Branches, weights: Tensor) -> Branches:
    """Each branch times its part of ``weights``, (N, sum of C_i, H, W) at the coarsest size."""
    parts = weights.split([item.shape[1] for item in x], dim=1)
    enlarged = [
        functional.interpolate(part, size=item.shape[-2:], mode="nearest")
        for item, part in zip(x[:-1], parts, strict=False)
    ]
    return [item * part for item, part in zip(x, [*enlarged, parts[-1]], strict=True)]


class Stem(nn.Module):
    """(N, 3, H, W) -> (N, 32, H/4, W/4); of Lite-HRNet and WideHRNet."""

    def __init__(self, expand_ratio: int = 1) -> None:
        super().__init__()
        half = STEM_CHANNELS // 2
        wide = STEM_CHANNELS * expand_ratio
        self.conv1 = ConvBN(3, STEM_CHANNELS, 3, stride=2)
        self.branch1 = nn.Sequential(depthwise(half, stride=2), ConvBN(half, half, 1))
        self.expand_conv = ConvBN(half, wide, 1)
        self.depthwise_conv = depthwise(wide, stride=2)
        self.linear_conv = ConvBN(wide, half, 1)

    def forward(self, x: Tensor) -> Tensor:
        lower, upper = halves(self.conv1(x))
        upper = self.linear_conv(self.depthwise_conv(self.expand_conv(upper)))
        return shuffle((self.branch1(lower), upper))


class LightweightModule(nn.Module):
    """``layers`` over all branches, then each branch sums up what all branches send it.

    ``is_rectified_first``: the coarser rows read the fused finest branch after its ReLU
    (Dite-HRNet) instead of before.
    """

    def __init__(
        self, layers: nn.Module, channels: Sequence[int], is_rectified_first: bool
    ) -> None:
        super().__init__()
        self.layers = layers
        self.fuse_layers = fuse_layers(channels, len(channels), separable_layers, narrow)
        for row in self.fuse_layers:
            for module in row[0].modules():  # from the finest branch
                if isinstance(module, nn.BatchNorm2d):
                    module.momentum = TWICE
        self.is_rectified_first = is_rectified_first
        self.relu = nn.ReLU()

    def forward(self, x: Branches) -> Branches:
        x = self.layers(x)
        finest = self._sum(2 * x[0], x, 0)
        rectified = self.relu(finest)
        first = rectified if self.is_rectified_first else finest
        coarser = (
            self.relu(self._sum(2 * self.fuse_layers[i][0](first), x, i)) for i in range(1, len(x))
        )
        return [rectified, *coarser]

    def _sum(self, total: Tensor, x: Branches, row: int) -> Tensor:
        """``total`` and what every branch but the finest sends to ``row``."""
        layers = self.fuse_layers[row]
        for j in range(1, len(x)):
            if j <= row:
                total += layers[j](x[j])
        # Nearest upsampling of a sum is the sum of the upsamplings: double from the coarsest up.
        coarser = None
        for j in range(len(x) - 1, row, -1):
            sent = layers[j](x[j])
            coarser = sent if coarser is None else sent.add_(coarser)
            coarser = functional.interpolate(coarser, scale_factor=2.0, mode="nearest")
        return total if coarser is None else total.add_(coarser)


def narrow(in_channels: int, out_channels: int, _: int) -> nn.Sequential:
    """(N, in_channels, H, W) -> (N, out_channels, H, W).

    The enlargement is left to the sum, which does it for all coarser branches together.
    """
    return nn.Sequential(PointConv(in_channels, out_channels), nn.BatchNorm2d(out_channels))


class IterativeHead(nn.Module):
    """From the coarsest branch up: enlarge, add, narrow to the next branch's channels."""

    def __init__(self, channels: Sequence[int]) -> None:
        super().__init__()
        finer = [channels[0], *channels[:-1]]
        self.projects = nn.ModuleList(
            Projection(before, after)
            for before, after in zip(reversed(channels), reversed(finer), strict=True)
        )

    def forward(self, x: Branches) -> Tensor:
        """Branches -> (N, C_0, H, W)"""
        result = None
        for branch, project in zip(reversed(x), self.projects, strict=True):
            if result is not None:
                enlarged = functional.interpolate(
                    result, size=branch.shape[-2:], mode="bilinear", align_corners=True
                )
                branch = branch + enlarged
            result = project(branch)
        return result


class Projection(nn.Module):
    """A depthwise 3x3 and a 1x1 convolution: (N, in_channels, H, W) -> (N, out_channels, H, W)."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.depthwise_conv = depthwise(in_channels)
        self.pointwise_conv = ConvBN(in_channels, out_channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.pointwise_conv(self.depthwise_conv(x))


@dataclass(frozen=True)
class Plan:
    """The settings that every network of the family has."""

    num_modules: tuple[int, ...]  # of each stage
    num_blocks: int  # of each module
    channels: tuple[int, ...]  # of each branch, the finest first


class LightweightHRNet(PoseNetwork):
    """A stem, three stages of two, three and four branches, and what sums them up on the finest.

    Args:
        layers: makes a module's layers, list of branches -> list of branches, from the branches'
            channels.
    """

    def __init__(
        self,
        plan: Plan,
        stem: nn.Module,
        layers: Callable[[tuple[int, ...]], nn.Module],
        is_rectified_first: bool = False,
    ) -> None:
        super().__init__()
        self.stem = stem
        before: tuple[int, ...] = (STEM_CHANNELS,)
        for stage in range(NUM_STAGES):
            channels = plan.channels[: stage + 2]
            self.add_module(f"transition{stage}", Transition(before, channels, separable_layers))
            modules = (
                LightweightModule(layers(channels), channels, is_rectified_first)
                for _ in range(plan.num_modules[stage])
            )
            self.add_module(f"stage{stage}", nn.Sequential(*modules))
            before = channels
        self.head_layer = IterativeHead(plan.channels)
        self.feature_channels = (plan.channels[0],)

    def features(self, x: Tensor) -> Branches:
        """Images (N, 3, H, W) -> one map (N, C_0, H/4, W/4), in a list as other networks' are.

        Raises:
            RuntimeError: H or W is no multiple of 32.
        """
        # In this layout a shuffle is one copy, and on a CPU most of what is used here, depthwise
        # convolutions and nearest enlargement above all, is 2 to 40 times as fast.
        x = [self.stem(x.contiguous(memory_format=torch.channels_last))]
        x = self.stage0(self.transition0(x))
        x = self.stage1(self.transition1(x))
        x = self.stage2(self.transition2(x))
        return [self.head_layer(x)]


def read_plan(cfg: CfgNode) -> Plan:
    """The shared settings of MODEL.EXTRA.

    Raises:
        InputError: a value that cannot be built; the message names its key.
    """
    extra = "MODEL.EXTRA"
    channels = settings.counts(cfg, f"{extra}.NUM_CHANNELS", NUM_STAGES + 1, "the network")
    is_even = all(number % 2 == 0 for number in channels)
    settings.require(is_even, f"{extra}.NUM_CHANNELS", "even numbers", list(channels))
    size = settings.setting(cfg, "MODEL.IMAGE_SIZE", (256, 256))
    is_fitting = all(side % 32 == 0 for side in size)
    right = f"multiples of 32 for {cfg.MODEL.NAME}"
    settings.require(is_fitting, "MODEL.IMAGE_SIZE", right, list(size))
    return Plan(
        num_modules=settings.counts(cfg, f"{extra}.NUM_MODULES", NUM_STAGES, "the network"),
        num_blocks=settings.count(cfg, f"{extra}.NUM_BLOCKS"),
        channels=channels,
    )
