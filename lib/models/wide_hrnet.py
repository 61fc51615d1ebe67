"""WideHRNet: Lite-HRNet with inverted residuals as its blocks.

Samkari et al.: WideHRNet (IEEE Access 2024). Parameter names and arithmetic follow
mmpose/models/backbones/widehrnet.py in IsraaSamkari/WideHRNet.
"""

from collections.abc import Sequence

from torch import Tensor, nn
from yacs.config import CfgNode

from lib.models import settings
from lib.models.layers.blocks import mark_gate
from lib.models.layers.lightweight import (
    Branches,
    ConvBN,
    LightweightHRNet,
    Stem,
    VectorConv,
    read_plan,
    shuffle_channels,
    split_channels,
)


class SqueezeExcitation(nn.Module):
    """Squeeze-and-excitation on (N, C, H, W): one weight per channel, from global pooling."""

    def __init__(self, channels: int, hidden: int) -> None:
        super().__init__()
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc1 = VectorConv(channels, hidden)
        self.relu = nn.ReLU(inplace=True)
        self.fc2 = mark_gate(VectorConv(hidden, channels))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.fc2(self.relu(self.fc1(self.avgpool(x)))).sigmoid()


class InvertedResidual(nn.Module):
    """An inverted residual block: (N, C, H, W) -> (N, C, H, W)."""

    def __init__(self, channels: int, expand_ratio: int, se_ratio: int | None) -> None:
        super().__init__()
        wide = channels * expand_ratio
        excite = [SqueezeExcitation(wide, make_divisible(wide // se_ratio))] if se_ratio else []
        self.block = nn.Sequential(
            ConvBN(channels, wide, 1),
            ConvBN(wide, wide, 3, groups=wide),
            *excite,
            ConvBN(wide, channels, 1, activation=None),
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.block(x).add_(x)


class WideBlock(nn.Module):
    """Inverted residuals on half of the channels of each branch; shapes are unchanged."""

    def __init__(self, channels: Sequence[int], expand_ratio: int, se_ratio: int | None) -> None:
        super().__init__()
        self.invertRes = nn.ModuleList(
            InvertedResidual(number // 2, expand_ratio, se_ratio) for number in channels
        )

    def forward(self, x: Branches) -> Branches:
        outputs = []
        for item, residual in zip(x, self.invertRes, strict=True):
            lower, upper = split_channels(item)
            outputs.append(shuffle_channels((lower, residual(upper))))
        return outputs


def make_divisible(channels: int, divisor: int = 8) -> int:
    """Round to a multiple of ``divisor`` that is at least 90% of ``channels`` (as in MobileNet)."""
    nearest = max(divisor, (channels + divisor // 2) // divisor * divisor)
    return nearest + divisor if nearest < 0.9 * channels else nearest


def build(cfg: CfgNode) -> LightweightHRNet:
    """Build the backbone from MODEL.EXTRA; raises InputError if a setting is invalid."""
    plan = read_plan(cfg)
    expand_ratio = settings.positive_int(cfg, "MODEL.EXTRA.EXPAND_RATIO")
    has_se = settings.get(cfg, "MODEL.EXTRA.WITH_SE")
    se_ratio = settings.positive_int(cfg, "MODEL.EXTRA.SE_RATIO") if has_se else None

    def make_layers(channels: tuple[int, ...]) -> nn.Module:
        blocks = (WideBlock(channels, expand_ratio, se_ratio) for _ in range(plan.num_blocks))
        return nn.Sequential(*blocks)

    return LightweightHRNet(plan, Stem(), make_layers)
