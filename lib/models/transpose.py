"""TransPose: an encoder of attention over the maps of the first layers of a ResNet or an HRNet.

Yang, Quan, Nie, Yang: TransPose: Keypoint Localization via Transformer (ICCV 2021). State-dict
names and arithmetic are those of lib/models/transpose_{r,h}.py in yangsenius/TransPose.
"""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional
from yacs.config import CfgNode

from lib.models import settings
from lib.models.blocks import residual_layers
from lib.models.network import PoseNetwork
from lib.models.pose_hrnet import (
    STEM_CHANNELS,
    Stage,
    Transition,
    exchange_modules,
    read_stage,
)
from lib.models.pose_resnet import DEPTHS

TEMPERATURE = 10000
DROPOUT = 0.1


class EncoderLayer(nn.Module):
    """Attention, then two products: tokens (L, N, C) -> (L, N, C), normalised after each part."""

    def __init__(self, channels: int, num_heads: int, hidden: int) -> None:
        super().__init__()
        self.self_attn = nn.MultiheadAttention(channels, num_heads, dropout=DROPOUT)
        self.linear1 = nn.Linear(channels, hidden)
        self.dropout = nn.Dropout(DROPOUT)
        self.linear2 = nn.Linear(hidden, channels)
        self.norm1 = nn.LayerNorm(channels)
        self.norm2 = nn.LayerNorm(channels)
        self.dropout1 = nn.Dropout(DROPOUT)
        self.dropout2 = nn.Dropout(DROPOUT)

    def forward(self, x: Tensor, position: Tensor | None) -> Tensor:
        query = x if position is None else x + position
        attended, _ = self.self_attn(query, query, x, need_weights=False)
        x = self.norm1(x + self.dropout1(attended))
        hidden = self.dropout(functional.relu(self.linear1(x)))
        return self.norm2(x + self.dropout2(self.linear2(hidden)))


class Encoder(nn.Module):
    """Layers that are all told the tokens' positions."""

    def __init__(self, channels: int, num_heads: int, hidden: int, num_layers: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(
            EncoderLayer(channels, num_heads, hidden) for _ in range(num_layers)
        )
        for parameter in self.parameters():
            if parameter.dim() > 1:
                nn.init.xavier_uniform_(parameter)

    def forward(self, x: Tensor, position: Tensor | None) -> Tensor:
        """Maps (N, C, H, W) -> (N, C, H, W)"""
        tokens = x.flatten(2).permute(2, 0, 1)
        for layer in self.layers:
            tokens = layer(tokens, position)
        return tokens.permute(1, 2, 0).reshape(x.shape)


class TransPose(PoseNetwork):
    """What TransPose-R and -H share: the encoder over a map."""

    def _add_encoder(self, cfg: CfgNode, in_channels: int, size: tuple[int, int]) -> None:
        """For maps of ``in_channels`` and ``size`` (height, width)."""
        extra = "MODEL.EXTRA"
        channels = settings.count(cfg, f"{extra}.DIM_MODEL")
        settings.require(channels % 4 == 0, f"{extra}.DIM_MODEL", "a multiple of 4", channels)
        num_heads = settings.count(cfg, f"{extra}.N_HEAD")
        is_fitting = channels % num_heads == 0
        settings.require(is_fitting, f"{extra}.N_HEAD", f"a divisor of {channels}", num_heads)
        kind = settings.choice(cfg, f"{extra}.POS_EMBEDDING", ("sine", "learnable", "none"))
        self.reduce = nn.Conv2d(in_channels, channels, 1, bias=False)
        if kind == "none":
            self.pos_embedding = None
        elif kind == "sine":
            table = sine_positions(*size, channels)
            self.pos_embedding = nn.Parameter(table, requires_grad=False)
        else:
            self.pos_embedding = nn.Parameter(torch.randn(size[0] * size[1], 1, channels))
        hidden = settings.count(cfg, f"{extra}.DIM_FEEDFORWARD")
        num_layers = settings.count(cfg, f"{extra}.ENCODER_LAYERS")
        self.global_encoder = Encoder(channels, num_heads, hidden, num_layers)

    def encode(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, DIM_MODEL, H, W), each place knowing of all others."""
        return self.global_encoder(self.reduce(x), self.pos_embedding)


class TransPoseR(TransPose):
    """A ResNet's first two layers, and the encoder at stride 8."""

    feature_strides = (4, 8)
    main_level = -1

    def __init__(self, cfg: CfgNode) -> None:
        super().__init__()
        block, lengths = DEPTHS[settings.choice(cfg, "MODEL.EXTRA.NUM_LAYERS", DEPTHS)]
        self.conv1 = nn.Conv2d(3, 64, 7, stride=2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.MaxPool2d(3, stride=2, padding=1)
        narrow, wide = 64 * block.expansion, 128 * block.expansion
        self.layer1 = residual_layers(block, 64, 64, lengths[0])
        self.layer2 = residual_layers(block, narrow, 128, lengths[1], stride=2)
        self._add_encoder(cfg, wide, map_size(cfg, 8))
        self.feature_channels = (narrow, self.reduce.out_channels)

    def features(self, x: Tensor) -> list[Tensor]:
        """Images (N, 3, H, W) of the one size that the positions are for -> layer1, encoder."""
        x = self.layer1(self.maxpool(self.relu(self.bn1(self.conv1(x)))))
        return [x, self.encode(self.layer2(x))]


class TransPoseH(TransPose):
    """An HRNet without its last stage, and the encoder at stride 4.

    ``stages`` are ``layer1`` and the two with several branches.
    """

    def __init__(self, cfg: CfgNode, stages: tuple[Stage, Stage, Stage]) -> None:
        super().__init__()
        stage1, stage2, stage3 = stages
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
        self.stage3 = exchange_modules(stage3, 1)
        self._add_encoder(cfg, stage3.out_channels[0], map_size(cfg, 4))
        self.feature_channels = (self.reduce.out_channels,)

    def features(self, x: Tensor) -> list[Tensor]:
        """Images (N, 3, H, W) of the one size that the positions are for -> the encoder's map."""
        x = self.relu(self.bn1(self.conv1(x)))
        x = self.relu(self.bn2(self.conv2(x)))
        branches = self.stage2(self.transition1([self.layer1(x)]))
        return [self.encode(self.stage3(self.transition2(branches))[0])]


def sine_positions(height: int, width: int, channels: int) -> Tensor:
    """(height * width, 1, channels): sines and cosines of the row, then of the column."""
    half = channels // 2
    period = TEMPERATURE ** (2 * (torch.arange(half) // 2) / half)

    def waves(length: int) -> Tensor:
        place = torch.arange(1, length + 1) / (length + 1e-6) * 2 * math.pi
        angle = place[:, None] / period
        return torch.stack([angle[:, 0::2].sin(), angle[:, 1::2].cos()], dim=2).flatten(1)

    rows = waves(height)[:, None].expand(height, width, half)
    columns = waves(width)[None].expand(height, width, half)
    return torch.cat([rows, columns], dim=2).reshape(height * width, 1, channels)


def map_size(cfg: CfgNode, stride: int) -> tuple[int, int]:
    """(height, width) of a map at ``stride``."""
    width, height = settings.setting(cfg, "MODEL.IMAGE_SIZE")
    is_fitting = width % 16 == 0 and height % 16 == 0
    right = f"multiples of 16 for {cfg.MODEL.NAME}"
    settings.require(is_fitting, "MODEL.IMAGE_SIZE", right, [width, height])
    return height // stride, width // stride


def build_r(cfg: CfgNode) -> TransPoseR:
    """TransPose-R as MODEL.EXTRA describes it.

    Raises:
        InputError: a value that cannot be built; the message names its key.
    """
    return TransPoseR(cfg)


def build_h(cfg: CfgNode) -> TransPoseH:
    """TransPose-H as MODEL.EXTRA describes it.

    Raises:
        InputError: a value that cannot be built; the message names its key.
    """
    return TransPoseH(cfg, tuple(read_stage(cfg, f"STAGE{number}") for number in (1, 2, 3)))
