"""TransPose: a transformer encoder on the first layers of a ResNet or an HRNet.

Yang, Quan, Nie, Yang: TransPose: Keypoint Localization via Transformer (ICCV 2021). Parameter names
and arithmetic follow lib/models/transpose_{r,h}.py in yangsenius/TransPose.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional
from yacs.config import CfgNode

from lib.models import settings
from lib.models.layers.blocks import Block
from lib.models.pose_hrnet import PoseHRNet, Stage, read_stage
from lib.models.pose_resnet import DEPTHS, PoseResNet

TEMPERATURE = 10000  # base of the periods of the sine position embedding
DROPOUT = 0.1


class EncoderLayer(nn.Module):
    """A transformer encoder layer with post-norm: tokens (L, N, C) -> (L, N, C)."""

    def __init__(self, channels: int, num_heads: int, hidden: int) -> None:
        super().__init__()
        self.self_attn = nn.MultiheadAttention(channels, num_heads, dropout=DROPOUT)
        self.linear1 = nn.Linear(channels, hidden)
        self.dropout = nn.Dropout(DROPOUT)
        self.linear2 = nn.Linear(hidden, channels)
        self.norm1 = nn.LayerNorm(channels)
        self.norm2 = nn.LayerNorm(channels)

    def forward(self, x: Tensor, position: Tensor | None) -> Tensor:
        query = x if position is None else x + position
        attended, _ = self.self_attn(query, query, x, need_weights=False)
        x = self.norm1(x + self.dropout(attended))
        hidden = self.dropout(functional.relu(self.linear1(x)))
        return self.norm2(x + self.dropout(self.linear2(hidden)))


@dataclass(frozen=True)
class EncoderPlan:
    """Settings of the encoder; ``size`` is the (height, width) of its input map."""

    channels: int
    num_heads: int
    hidden: int
    num_layers: int
    pos_embedding: str  # sine, learnable or none
    size: tuple[int, int]


class Encoder(nn.Module):
    """A transformer encoder that adds the position embedding in every layer."""

    def __init__(self, plan: EncoderPlan) -> None:
        super().__init__()
        self.layers = nn.ModuleList(
            EncoderLayer(plan.channels, plan.num_heads, plan.hidden) for _ in range(plan.num_layers)
        )
        for parameter in self.parameters():
            if parameter.dim() > 1:
                nn.init.xavier_uniform_(parameter)

    def forward(self, x: Tensor, position: Tensor | None) -> Tensor:
        """Encode maps: (N, C, H, W) -> (N, C, H, W)."""
        tokens = x.flatten(2).permute(2, 0, 1)
        for layer in self.layers:
            tokens = layer(tokens, position)
        return tokens.permute(1, 2, 0).reshape(x.shape)


class EncoderMixin(nn.Module):
    """Mixin that adds the encoder to TransPose-R and TransPose-H, for maps of a fixed size."""

    def add_encoder(self, plan: EncoderPlan, in_channels: int) -> None:
        """Add the encoder's layers for maps with ``in_channels`` channels."""
        height, width = plan.size
        self.reduce = nn.Conv2d(in_channels, plan.channels, 1, bias=False)
        if plan.pos_embedding == "none":
            self.pos_embedding = None
        elif plan.pos_embedding == "sine":
            table = sine_positions(height, width, plan.channels)
            self.pos_embedding = nn.Parameter(table, requires_grad=False)
        else:
            self.pos_embedding = nn.Parameter(torch.randn(height * width, 1, plan.channels))
        self.global_encoder = Encoder(plan)

    def encode(self, x: Tensor) -> Tensor:
        """Apply the encoder: (N, in_channels, H, W) -> (N, plan.channels, H, W)."""
        return self.global_encoder(self.reduce(x), self.pos_embedding)


class TransPoseR(EncoderMixin, PoseResNet):
    """TransPose-R backbone: the first two stages of a ResNet and the encoder at stride 8."""

    def __init__(self, block: Block, num_blocks: Sequence[int], plan: EncoderPlan) -> None:
        super().__init__(block, num_blocks)
        narrow, wide = self.feature_channels
        self.add_encoder(plan, wide)
        self.feature_channels = (narrow, plan.channels)

    def features(self, x: Tensor) -> list[Tensor]:
        """Return the maps of layer1 and the encoder for images (N, 3, H, W) of MODEL.IMAGE_SIZE."""
        fine, coarse = super().features(x)
        return [fine, self.encode(coarse)]


class TransPoseH(EncoderMixin, PoseHRNet):
    """TransPose-H backbone: an HRNet without its last stage, then the encoder at stride 4."""

    def __init__(self, stages: Sequence[Stage], plan: EncoderPlan) -> None:
        super().__init__(stages)
        self.add_encoder(plan, self.feature_channels[0])
        self.feature_channels = (plan.channels,)

    def features(self, x: Tensor) -> list[Tensor]:
        """Return the encoder's map for images (N, 3, H, W) of MODEL.IMAGE_SIZE."""
        return [self.encode(super().features(x)[0])]


def sine_positions(height: int, width: int, channels: int) -> Tensor:
    """Return the 2D sine position embedding (height * width, 1, channels).

    The first half of the channels encodes the row, the second half the column.
    """
    half = channels // 2
    period = TEMPERATURE ** (2 * (torch.arange(half) // 2) / half)

    def waves(length: int) -> Tensor:
        position = torch.arange(1, length + 1) / (length + 1e-6) * 2 * math.pi
        angle = position[:, None] / period
        return torch.stack([angle[:, 0::2].sin(), angle[:, 1::2].cos()], dim=2).flatten(1)

    rows = waves(height)[:, None].expand(height, width, half)
    columns = waves(width)[None].expand(height, width, half)
    return torch.cat([rows, columns], dim=2).reshape(height * width, 1, channels)


def read_encoder(cfg: CfgNode, stride: int) -> EncoderPlan:
    """Read the settings of the encoder from MODEL.EXTRA, for maps at ``stride``."""
    extra = "MODEL.EXTRA"
    channels = settings.positive_int(cfg, f"{extra}.DIM_MODEL")
    settings.require(channels % 4 == 0, f"{extra}.DIM_MODEL", "a multiple of 4", channels)
    num_heads = settings.positive_int(cfg, f"{extra}.N_HEAD")
    is_valid = channels % num_heads == 0
    settings.require(is_valid, f"{extra}.N_HEAD", f"a divisor of {channels}", num_heads)
    settings.require_image_size(cfg, 16)
    width, height = cfg.MODEL.IMAGE_SIZE
    return EncoderPlan(
        channels=channels,
        num_heads=num_heads,
        hidden=settings.positive_int(cfg, f"{extra}.DIM_FEEDFORWARD"),
        num_layers=settings.positive_int(cfg, f"{extra}.ENCODER_LAYERS"),
        pos_embedding=settings.choice(cfg, f"{extra}.POS_EMBEDDING", ("sine", "learnable", "none")),
        size=(height // stride, width // stride),
    )


def build_r(cfg: CfgNode) -> TransPoseR:
    """Build TransPose-R from MODEL.EXTRA; raises InputError if a setting is invalid."""
    block, num_blocks = DEPTHS[settings.choice(cfg, "MODEL.EXTRA.NUM_LAYERS", DEPTHS)]
    return TransPoseR(block, num_blocks[:2], read_encoder(cfg, stride=8))


def build_h(cfg: CfgNode) -> TransPoseH:
    """Build TransPose-H from MODEL.EXTRA; raises InputError if a setting is invalid."""
    stages = tuple(read_stage(cfg, f"STAGE{number}") for number in (1, 2, 3))
    return TransPoseH(stages, read_encoder(cfg, stride=4))
