"""Base of Lite-HRNet, Dite-HRNet and WideHRNet: all but their blocks and Dite-HRNet's stem.

Parameter names and arithmetic follow models/backbones/litehrnet.py in HRNet/Lite-HRNet, on which
the other two are based. The fusion of branches differs from HRNet's in two ways, which are kept
because the published checkpoints were trained with them:

- Every output contains the finest branch twice, because the published loop starts with the finest
  branch and then adds all branches to it. For the coarser outputs, the published code computes its
  contribution twice, and so updates the batch norms of this contribution twice per training step.
  Here it is computed once and doubled, and its batch norms are updated once, with
  ``DOUBLE_UPDATE_MOMENTUM``.
- The coarser outputs use the finest branch after its fusion instead of before, because the
  published code computes the finest output in place.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional
from yacs.config import CfgNode

from lib.models import settings
from lib.models.layers.branches import Transition, fuse_layers
from lib.models.network import PoseNetwork

MOMENTUM = 0.1
DOUBLE_UPDATE_MOMENTUM = 1 - (1 - MOMENTUM) ** 2  # one such update equals two with MOMENTUM
NUM_STAGES = 3  # with two, three and four branches
STEM_CHANNELS = 32
MAX_MATMUL_MACS = 4e6  # up to this many MACs, matmul is faster than a convolution on a CPU

Branches = list[Tensor]  # branch i is (N, C_i, H / 2^i, W / 2^i)


class ConvBN(nn.Sequential):
    """A convolution without bias, a batch norm and an optional activation.

    The submodules are named as in mmcv's ConvModule.
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
            conv = PointwiseConv(in_channels, out_channels)
        self.conv = conv or nn.Conv2d(
            in_channels, out_channels, kernel, stride, kernel // 2, groups=groups, bias=False
        )
        self.bn = nn.BatchNorm2d(out_channels)
        if activation is nn.ReLU:
            self.activation = nn.ReLU(inplace=True)
        elif activation is not None:
            self.activation = activation()


class PointwiseConv(nn.Conv2d):
    """A 1x1 convolution, computed by matmul for small inputs on a CPU, where it is faster."""

    def __init__(self, in_channels: int, out_channels: int, bias: bool = False) -> None:
        super().__init__(in_channels, out_channels, 1, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        if not x.is_cpu or is_tracing() or x.numel() * self.out_channels > MAX_MATMUL_MACS:
            return super().forward(x)
        weight = self.weight.view(self.out_channels, self.in_channels)
        return functional.linear(x.permute(0, 2, 3, 1), weight, self.bias).permute(0, 3, 1, 2)


class VectorConv(nn.Conv2d):
    """A 1x1 convolution of vectors (N, C, 1, 1), computed by matmul, which is faster."""

    def __init__(self, in_channels: int, out_channels: int, bias: bool = True) -> None:
        super().__init__(in_channels, out_channels, 1, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        weight = self.weight.view(self.out_channels, self.in_channels)
        y = functional.linear(x.flatten(1), weight, self.bias)
        return y.view(-1, self.out_channels, 1, 1)


def is_tracing() -> bool:
    """Return True while the model is traced, compiled or exported.

    ``PointwiseConv`` then stays a convolution, which other backends run faster than a matmul.
    """
    is_compiled = torch.jit.is_tracing() or torch.compiler.is_compiling()
    return is_compiled or torch.onnx.is_in_onnx_export()


def depthwise(channels: int, stride: int = 1) -> ConvBN:
    """A depthwise 3x3 convolution with batch norm and no activation."""
    return ConvBN(channels, channels, 3, stride, groups=channels, activation=None)


def separable_layers(
    in_channels: int, out_channels: int, stride: int, with_relu: bool
) -> nn.Sequential:
    """A depthwise 3x3 and a 1x1 convolution, each with a batch norm, and an optional final ReLU."""
    return nn.Sequential(
        nn.Conv2d(in_channels, in_channels, 3, stride, 1, groups=in_channels, bias=False),
        nn.BatchNorm2d(in_channels),
        PointwiseConv(in_channels, out_channels),
        nn.BatchNorm2d(out_channels),
        *([nn.ReLU(inplace=True)] if with_relu else []),
    )


def split_channels(x: Tensor, planar: bool = False) -> tuple[Tensor, Tensor]:
    """Split (N, 2 * C, H, W) into the first and the second half of its channels.

    The split is done in channels-last order, so that the gradients are joined in this layout too.
    For ``planar`` see ``shuffle_channels``.
    """
    if torch.onnx.is_in_onnx_export() and planar:
        return x.chunk(2, dim=1)
    if torch.onnx.is_in_onnx_export():
        # Slices, because chunk is exported as a sequence, which costs another copy.
        half = x.shape[1] // 2
        return x[:, :half], x[:, half:]
    lower, upper = x.permute(0, 2, 3, 1).chunk(2, dim=3)
    return lower.permute(0, 3, 1, 2), upper.permute(0, 3, 1, 2)


def shuffle_channels(parts: Sequence[Tensor], planar: bool = False) -> Tensor:
    """Concatenate and shuffle channels in one copy: G tensors (N, C, H, W) -> (N, G * C, H, W).

    The output is channels last, except in ONNX export, which has no such layout. ``planar``
    only affects ONNX export: it selects operations that are faster for Dite-HRNet, whose pooling
    flattens height and width.
    """
    if torch.onnx.is_in_onnx_export() and planar:
        return torch.stack(tuple(parts), dim=2).flatten(1, 2)
    if torch.onnx.is_in_onnx_export():  # OpenVINO recognises these operations as a shuffle
        groups = torch.cat(tuple(parts), dim=1).unflatten(1, (len(parts), -1))
        return groups.transpose(1, 2).flatten(1, 2)
    last = torch.stack([part.permute(0, 2, 3, 1) for part in parts], dim=4).flatten(3)
    return last.permute(0, 3, 1, 2)


def scale_branches(x: Branches, weights: Tensor) -> Branches:
    """Multiply each branch by its part of ``weights`` (N, sum of C_i, H, W).

    ``weights`` have the size of the coarsest branch.
    """
    parts = weights.split([item.shape[1] for item in x], dim=1)
    enlarged = [
        functional.interpolate(part, size=item.shape[-2:], mode="nearest")
        for item, part in zip(x[:-1], parts, strict=False)
    ]
    return [item * part for item, part in zip(x, [*enlarged, parts[-1]], strict=True)]


class Stem(nn.Module):
    """Stem of Lite-HRNet and WideHRNet: (N, 3, H, W) -> (N, 32, H/4, W/4)."""

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
        lower, upper = split_channels(self.conv1(x))
        upper = self.linear_conv(self.depthwise_conv(self.expand_conv(upper)))
        return shuffle_channels((self.branch1(lower), upper))


class LightweightModule(nn.Module):
    """Layers on all branches, followed by fusion across branches.

    Args:
        layers: module that maps branches to branches.
        channels: channels of each branch.
        fuse_after_relu: whether the coarser outputs use the fused finest branch after its ReLU
            (Dite-HRNet) or before.
    """

    def __init__(self, layers: nn.Module, channels: Sequence[int], fuse_after_relu: bool) -> None:
        super().__init__()
        self.layers = layers
        self.fuse_layers = fuse_layers(channels, len(channels), separable_layers, project)
        for conversions in self.fuse_layers:
            for module in conversions[0].modules():  # layers that read the finest branch
                if isinstance(module, nn.BatchNorm2d):
                    module.momentum = DOUBLE_UPDATE_MOMENTUM
        self.fuse_after_relu = fuse_after_relu
        self.relu = nn.ReLU()

    def forward(self, x: Branches) -> Branches:
        x = self.layers(x)
        finest = self._sum(2 * x[0], x, 0)
        rectified = self.relu(finest)
        fused = rectified if self.fuse_after_relu else finest
        coarser = (
            self.relu(self._sum(2 * self.fuse_layers[i][0](fused), x, i)) for i in range(1, len(x))
        )
        return [rectified, *coarser]

    def _sum(self, total: Tensor, x: Branches, output: int) -> Tensor:
        """Add the contributions of all branches but the finest to the output branch's ``total``."""
        layers = self.fuse_layers[output]
        for j in range(1, len(x)):
            if j <= output:
                total += layers[j](x[j])
        # Nearest upsampling is linear, so sum first and upsample once per level.
        coarser = None
        for j in range(len(x) - 1, output, -1):
            projected = layers[j](x[j])
            coarser = projected if coarser is None else projected.add_(coarser)
            coarser = functional.interpolate(coarser, scale_factor=2.0, mode="nearest")
        return total if coarser is None else total.add_(coarser)


def project(in_channels: int, out_channels: int, _: int) -> nn.Sequential:
    """A 1x1 convolution with batch norm; ``LightweightModule`` upsamples the sum of the results."""
    return nn.Sequential(PointwiseConv(in_channels, out_channels), nn.BatchNorm2d(out_channels))


class IterativeHead(nn.Module):
    """Merge the branches from coarse to fine by upsampling, adding and projecting."""

    def __init__(self, channels: Sequence[int]) -> None:
        super().__init__()
        finer = [channels[0], *channels[:-1]]
        self.projects = nn.ModuleList(
            Projection(before, after)
            for before, after in zip(reversed(channels), reversed(finer), strict=True)
        )

    def forward(self, x: Branches) -> Tensor:
        """Merge all branches into one map (N, C_0, H, W)."""
        result = None
        for branch, projection in zip(reversed(x), self.projects, strict=True):
            if result is not None:
                upsampled = functional.interpolate(
                    result, size=branch.shape[-2:], mode="bilinear", align_corners=True
                )
                branch = branch + upsampled
            result = projection(branch)
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
    """Architecture settings shared by the three networks."""

    num_modules: tuple[int, ...]  # per stage
    num_blocks: int  # per module
    channels: tuple[int, ...]  # per branch, from fine to coarse


class LightweightHRNet(PoseNetwork):
    """A stem, stages of two, three and four branches, and layers that merge all branches.

    Args:
        plan: architecture settings.
        stem: (N, 3, H, W) -> (N, 32, H/4, W/4).
        make_layers: builds a module that maps branches to branches, given their channels.
        fuse_after_relu: see ``LightweightModule``.
    """

    def __init__(
        self,
        plan: Plan,
        stem: nn.Module,
        make_layers: Callable[[tuple[int, ...]], nn.Module],
        fuse_after_relu: bool = False,
    ) -> None:
        super().__init__()
        self.stem = stem
        before: tuple[int, ...] = (STEM_CHANNELS,)
        for stage in range(NUM_STAGES):
            channels = plan.channels[: stage + 2]
            self.add_module(f"transition{stage}", Transition(before, channels, separable_layers))
            modules = (
                LightweightModule(make_layers(channels), channels, fuse_after_relu)
                for _ in range(plan.num_modules[stage])
            )
            self.add_module(f"stage{stage}", nn.Sequential(*modules))
            before = channels
        self.head_layer = IterativeHead(plan.channels)
        self.feature_channels = (plan.channels[0],)

    def features(self, x: Tensor) -> list[Tensor]:
        """Run the backbone: images (N, 3, H, W) -> a list with one map (N, C_0, H/4, W/4).

        Raises:
            RuntimeError: if H or W is not a multiple of 32.
        """
        # In channels-last layout a shuffle is one copy. On a CPU most operations used here are also
        # 2 to 40 times as fast, above all depthwise convolutions and nearest upsampling.
        x = [self.stem(x.contiguous(memory_format=torch.channels_last))]
        x = self.stage0(self.transition0(x))
        x = self.stage1(self.transition1(x))
        x = self.stage2(self.transition2(x))
        return [self.head_layer(x)]


def read_plan(cfg: CfgNode) -> Plan:
    """Read the shared settings from MODEL.EXTRA.

    Raises:
        InputError: if a setting is invalid. The message names its key.
    """
    extra = "MODEL.EXTRA"
    channels = settings.positive_ints(cfg, f"{extra}.NUM_CHANNELS", NUM_STAGES + 1, "the network")
    is_even = all(number % 2 == 0 for number in channels)
    settings.require(is_even, f"{extra}.NUM_CHANNELS", "even numbers", list(channels))
    settings.require_image_size(cfg, 32)
    return Plan(
        num_modules=settings.positive_ints(cfg, f"{extra}.NUM_MODULES", NUM_STAGES, "the network"),
        num_blocks=settings.positive_int(cfg, f"{extra}.NUM_BLOCKS"),
        channels=channels,
    )
