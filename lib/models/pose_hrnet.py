"""HRNet: parallel branches of several resolutions with repeated fusion across them.

Sun, Xiao, Liu, Wang: Deep High-Resolution Representation Learning for Human Pose Estimation (CVPR
2019). Parameter names and arithmetic follow lib/models/pose_hrnet.py in
leoxiaobin/deep-high-resolution-net.pytorch.
"""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

from torch import nn
from yacs.config import CfgNode

from lib.models import settings
from lib.models.heads import uses_all_levels
from lib.models.layers.blocks import BasicBlock, Block, Bottleneck, residual_layers
from lib.models.layers.branches import (
    STEM_CHANNELS,
    BranchedNetwork,
    ExchangeModule,
    Transition,
    fuse_layers,
)
from lib.utils.errors import InputError

BLOCKS: dict[str, Block] = {"BASIC": BasicBlock, "BOTTLENECK": Bottleneck}


@dataclass(frozen=True)
class Stage:
    """Settings of one stage; ``num_blocks`` and ``num_channels`` have one entry per branch."""

    num_modules: int
    block: Block
    num_blocks: tuple[int, ...]
    num_channels: tuple[int, ...]

    @property
    def out_channels(self) -> tuple[int, ...]:
        """Output channels of each branch; a bottleneck outputs four times its channels."""
        return tuple(channels * self.block.expansion for channels in self.num_channels)


class PoseHRNet(BranchedNetwork):
    """HRNet backbone: a stem, ``layer1`` at stride 4 and stages with several branches.

    Args:
        stages: settings of ``layer1`` and of the other stages.
        multi_scale_output: return every branch of the last stage, not only the finest.
        stem_channels: channels of the two convolutions of the stem.
    """

    def __init__(
        self,
        stages: Sequence[Stage],
        multi_scale_output: bool = False,
        stem_channels: int = STEM_CHANNELS,
    ) -> None:
        first, last = stages[0], stages[-1]
        super().__init__(first.block, first.num_channels[0], first.num_blocks[0], stem_channels)
        self.num_stages = len(stages)
        num_outputs = len(last.num_channels) if multi_scale_output else 1
        self.feature_channels = last.out_channels[:num_outputs]
        self.feature_strides = tuple(4 << i for i in range(num_outputs))
        for i, (before, stage) in enumerate(itertools.pairwise(stages), start=1):
            transition = Transition(before.out_channels, stage.out_channels, conv_bn)
            self.add_module(f"transition{i}", transition)
            outputs = [len(stage.num_channels)] * stage.num_modules
            if stage is last:
                outputs[-1] = num_outputs
            modules = (exchange_module(stage, number) for number in outputs)
            self.add_module(f"stage{i + 1}", nn.Sequential(*modules))


def exchange_module(stage: Stage, num_outputs: int) -> ExchangeModule:
    """Build residual blocks on each branch and their fusion into ``num_outputs`` branches."""
    channels = stage.out_channels
    branches = nn.ModuleList(
        residual_layers(stage.block, channels[i], stage.num_channels[i], stage.num_blocks[i])
        for i in range(len(channels))
    )
    return ExchangeModule(branches, fuse_layers(channels, num_outputs, conv_bn, upsample))


def conv_bn(in_channels: int, out_channels: int, stride: int, with_relu: bool) -> nn.Sequential:
    """A 3x3 convolution with batch norm: (N, C, H, W) -> (N, out_channels, H/stride, W/stride)."""
    return nn.Sequential(
        nn.Conv2d(in_channels, out_channels, 3, stride, padding=1, bias=False),
        nn.BatchNorm2d(out_channels),
        *([nn.ReLU(inplace=True)] if with_relu else []),
    )


def upsample(
    in_channels: int, out_channels: int, doublings: int, mode: str = "nearest"
) -> nn.Sequential:
    """A 1x1 convolution with batch norm, then upsampling by a factor of 2^doublings."""
    return nn.Sequential(
        nn.Conv2d(in_channels, out_channels, 1, bias=False),
        nn.BatchNorm2d(out_channels),
        nn.Upsample(scale_factor=2.0**doublings, mode=mode),
    )


def build(cfg: CfgNode) -> PoseHRNet:
    """Build the backbone from MODEL.EXTRA; raises InputError if a setting is invalid."""
    stages = tuple(read_stage(cfg, f"STAGE{number}") for number in (1, 2, 3, 4))
    for number, (before, after) in enumerate(itertools.pairwise(stages), start=2):
        if len(after.num_channels) < len(before.num_channels):
            raise InputError(
                f"MODEL.EXTRA.STAGE{number}.NUM_BRANCHES must be at least "
                f"{len(before.num_channels)} as in STAGE{number - 1}, not {len(after.num_channels)}"
            )
    settings.require_image_size(cfg, 32)
    stem_channels = settings.positive_int(cfg, "MODEL.EXTRA.STEM_INPLANES")
    return PoseHRNet(stages, uses_all_levels(cfg), stem_channels)


def read_stage(cfg: CfgNode, name: str) -> Stage:
    """Read the settings of MODEL.EXTRA.<name>."""
    key = f"MODEL.EXTRA.{name}"
    branches_key = f"{key}.NUM_BRANCHES"
    num_branches = settings.positive_int(cfg, branches_key)
    settings.choice(cfg, f"{key}.FUSE_METHOD", ("SUM",))
    return Stage(
        num_modules=settings.positive_int(cfg, f"{key}.NUM_MODULES"),
        block=BLOCKS[settings.choice(cfg, f"{key}.BLOCK", BLOCKS)],
        num_blocks=settings.positive_ints(cfg, f"{key}.NUM_BLOCKS", num_branches, branches_key),
        num_channels=settings.positive_ints(cfg, f"{key}.NUM_CHANNELS", num_branches, branches_key),
    )
