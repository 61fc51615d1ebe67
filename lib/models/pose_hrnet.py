"""HRNet: branches of several resolutions side by side, which keep exchanging what they know.

Sun, Xiao, Liu, Wang: Deep High-Resolution Representation Learning for Human Pose Estimation (CVPR
2019). State-dict names and arithmetic are those of lib/models/pose_hrnet.py in
leoxiaobin/deep-high-resolution-net.pytorch.
"""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor, nn
from yacs.config import CfgNode

from lib.models import settings
from lib.models.blocks import BasicBlock, Block, Bottleneck, residual_layers
from lib.models.heads import takes_every_level
from lib.models.network import PoseNetwork
from lib.utils.errors import InputError

BLOCKS: dict[str, Block] = {"BASIC": BasicBlock, "BOTTLENECK": Bottleneck}
STEM_CHANNELS = 64


@dataclass(frozen=True)
class Stage:
    """A stage's plan: its modules and, for each branch, the residual blocks and their channels."""

    num_modules: int
    block: Block
    num_blocks: tuple[int, ...]
    num_channels: tuple[int, ...]

    @property
    def out_channels(self) -> tuple[int, ...]:
        """What each branch carries between blocks: a bottleneck gives four times its channels."""
        return tuple(channels * self.block.expansion for channels in self.num_channels)


class HighResolutionModule(nn.Module):
    """Residual blocks on each branch, then every output branch sums up what all branches send it.

    Branch i is (N, C_i, H / 2^i, W / 2^i). The first ``num_outputs`` branches come out.
    """

    def __init__(self, stage: Stage, num_outputs: int) -> None:
        super().__init__()
        channels = stage.out_channels
        self.branches = nn.ModuleList(
            residual_layers(stage.block, channels[i], stage.num_channels[i], stage.num_blocks[i])
            for i in range(len(channels))
        )
        self.fuse_layers = nn.ModuleList(
            nn.ModuleList(fuse_layer(channels, source, target) for source in range(len(channels)))
            for target in range(num_outputs)
        )
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x: list[Tensor]) -> list[Tensor]:
        x = [branch(item) for branch, item in zip(self.branches, x, strict=True)]
        if len(x) == 1:
            return x
        return [self._fuse(layers, x) for layers in self.fuse_layers]

    def _fuse(self, layers: nn.ModuleList, x: list[Tensor]) -> Tensor:
        # The first sum is a new tensor, so what follows may add in place without touching a branch.
        total = layers[0](x[0]) + layers[1](x[1])
        for i in range(2, len(x)):
            total += layers[i](x[i])
        return self.relu(total)


class Transition(nn.ModuleList):
    """From one stage's branches to the next one's; a new branch is made from the coarsest."""

    def __init__(self, in_channels: Sequence[int], out_channels: Sequence[int]) -> None:
        super().__init__(
            transition_layer(in_channels, channels, i) for i, channels in enumerate(out_channels)
        )

    def forward(self, x: list[Tensor]) -> list[Tensor]:
        return [layer(x[min(i, len(x) - 1)]) for i, layer in enumerate(self)]


class PoseHRNet(PoseNetwork):
    """A stem, ``layer1`` at stride 4, three stages of branches.

    ``stages`` are the first, ``layer1``, and the three with several branches. The features are the
    finest branch alone, or with ``multi_scale_output`` every branch of the last stage.
    """

    def __init__(
        self,
        stages: tuple[Stage, Stage, Stage, Stage],
        multi_scale_output: bool = False,
    ) -> None:
        super().__init__()
        stage1, stage2, stage3, stage4 = stages
        num_outputs = len(stage4.num_channels) if multi_scale_output else 1
        self.feature_channels = stage4.out_channels[:num_outputs]
        self.feature_strides = tuple(4 << i for i in range(num_outputs))

        self.conv1 = nn.Conv2d(3, STEM_CHANNELS, 3, stride=2, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(STEM_CHANNELS)
        self.conv2 = nn.Conv2d(STEM_CHANNELS, STEM_CHANNELS, 3, stride=2, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(STEM_CHANNELS)
        self.relu = nn.ReLU(inplace=True)
        self.layer1 = residual_layers(
            stage1.block, STEM_CHANNELS, stage1.num_channels[0], stage1.num_blocks[0]
        )
        self.transition1 = Transition(stage1.out_channels, stage2.out_channels)
        self.stage2 = exchange_modules(stage2)
        self.transition2 = Transition(stage2.out_channels, stage3.out_channels)
        self.stage3 = exchange_modules(stage3)
        self.transition3 = Transition(stage3.out_channels, stage4.out_channels)
        self.stage4 = exchange_modules(stage4, num_outputs)

    def features(self, x: Tensor) -> list[Tensor]:
        """Images (N, 3, H, W), H and W multiples of 32 -> the last stage's branches."""
        x = self.relu(self.bn1(self.conv1(x)))
        x = self.relu(self.bn2(self.conv2(x)))
        x = self.layer1(x)
        branches = self.stage2(self.transition1([x]))
        branches = self.stage3(self.transition2(branches))
        return self.stage4(self.transition3(branches))


def exchange_modules(stage: Stage, num_outputs: int | None = None) -> nn.Sequential:
    """A stage's modules; all keep every branch, but the last may keep only ``num_outputs``."""
    outputs = [len(stage.num_channels)] * stage.num_modules
    outputs[-1] = num_outputs or outputs[-1]
    return nn.Sequential(*(HighResolutionModule(stage, number) for number in outputs))


def fuse_layer(channels: Sequence[int], source: int, target: int) -> nn.Module:
    """What brings branch ``source`` to the size and the channels of branch ``target``."""
    if source == target:
        return nn.Identity()
    if source > target:
        return nn.Sequential(
            nn.Conv2d(channels[source], channels[target], 1, bias=False),
            nn.BatchNorm2d(channels[target]),
            nn.Upsample(scale_factor=2.0 ** (source - target), mode="nearest"),
        )
    # Each step halves the size. Only the last changes the channels; its ReLU comes after the sum.
    between = (
        conv_bn_relu(channels[source], channels[source], stride=2)
        for _ in range(target - source - 1)
    )
    return nn.Sequential(*between, conv_bn_relu(channels[source], channels[target], stride=2)[:2])


def transition_layer(in_channels: Sequence[int], out_channels: int, index: int) -> nn.Module:
    """What makes branch ``index`` of the next stage out of a branch of the last one."""
    if index < len(in_channels):
        if in_channels[index] == out_channels:
            return nn.Identity()
        return conv_bn_relu(in_channels[index], out_channels, stride=1)
    coarsest = in_channels[-1]
    between = (conv_bn_relu(coarsest, coarsest, stride=2) for _ in range(index - len(in_channels)))
    return nn.Sequential(*between, conv_bn_relu(coarsest, out_channels, stride=2))


def conv_bn_relu(in_channels: int, out_channels: int, stride: int) -> nn.Sequential:
    """(N, in_channels, H, W) -> (N, out_channels, H/stride, W/stride) by a 3x3 convolution."""
    return nn.Sequential(
        nn.Conv2d(in_channels, out_channels, 3, stride, padding=1, bias=False),
        nn.BatchNorm2d(out_channels),
        nn.ReLU(inplace=True),
    )


def build(cfg: CfgNode) -> PoseHRNet:
    """The backbone that MODEL.EXTRA describes.

    Raises:
        InputError: a value that cannot be built; the message names its key.
    """
    stages = tuple(read_stage(cfg, f"STAGE{number}") for number in (1, 2, 3, 4))
    for number, (before, after) in enumerate(itertools.pairwise(stages), start=2):
        if len(after.num_channels) < len(before.num_channels):
            raise InputError(
                f"MODEL.EXTRA.STAGE{number}.NUM_BRANCHES must be at least STAGE{number - 1}'s "
                f"{len(before.num_channels)}, not {len(after.num_channels)}"
            )
    size = settings.setting(cfg, "MODEL.IMAGE_SIZE", (256, 256))
    is_fitting = all(side % 32 == 0 for side in size)
    settings.require(is_fitting, "MODEL.IMAGE_SIZE", "multiples of 32 for pose_hrnet", list(size))
    return PoseHRNet(stages, multi_scale_output=takes_every_level(cfg))


def read_stage(cfg: CfgNode, name: str) -> Stage:
    key = f"MODEL.EXTRA.{name}"
    branches_key = f"{key}.NUM_BRANCHES"
    num_branches = settings.count(cfg, branches_key)
    settings.choice(cfg, f"{key}.FUSE_METHOD", ("SUM",), default="SUM")
    return Stage(
        num_modules=settings.count(cfg, f"{key}.NUM_MODULES"),
        block=BLOCKS[settings.choice(cfg, f"{key}.BLOCK", BLOCKS)],
        num_blocks=settings.counts(cfg, f"{key}.NUM_BLOCKS", num_branches, branches_key),
        num_channels=settings.counts(cfg, f"{key}.NUM_CHANNELS", num_branches, branches_key),
    )
