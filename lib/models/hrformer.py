"""HRFormer: HRNet with window attention instead of residual blocks.

Yuan, Fu, Huang, Lin, Zhang, Chen, Wang: HRFormer: High-Resolution Vision Transformer for Dense
Prediction (NeurIPS 2021). Parameter names and arithmetic follow
pose/mmpose/models/backbones/hrt.py in HRNet/HRFormer.
"""

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional
from yacs.config import CfgNode

from lib.models import settings
from lib.models.heads import uses_all_levels
from lib.models.layers.blocks import Bottleneck
from lib.models.layers.branches import BranchedNetwork, ExchangeModule, Transition, fuse_layers
from lib.models.layers.lightweight import separable_layers
from lib.models.pose_hrnet import conv_bn, upsample

NUM_STAGES = 3  # after layer1, with two, three and four branches
LAYER1_BLOCKS, LAYER1_CHANNELS = 2, 64


@dataclass(frozen=True)
class Plan:
    """Architecture settings from MODEL.EXTRA."""

    num_modules: tuple[int, ...]  # per stage
    num_blocks: int  # per branch of a module
    channels: tuple[int, ...]  # per branch, from fine to coarse
    num_heads: tuple[int, ...]  # per branch
    window: int  # side of the square attention windows, in pixels of the map
    mlp_ratio: int
    drop_path: float  # rate of the last block; the rates rise linearly from 0
    has_position_bias: bool


class WindowAttention(nn.Module):
    """Self-attention within the windows of a map (N, H, W, C).

    The map is zero-padded to whole windows. As in the published code, padding is not masked: it
    takes part in the attention, and its query, key and value are the biases of the projections. All
    published checkpoints have a table of relative position biases. open-mmlab/mmpose uses it; the
    pose code in HRNet/HRFormer does not.
    """

    def __init__(self, channels: int, num_heads: int, window: int, has_position_bias: bool) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.window = window
        self.has_position_bias = has_position_bias
        self.relative_position_bias_table = nn.Parameter(
            torch.zeros((2 * window - 1) ** 2, num_heads)
        )
        nn.init.trunc_normal_(self.relative_position_bias_table, std=0.02)
        self.relative_position_bias_table.requires_grad_(has_position_bias)
        self.register_buffer("relative_position_index", relative_positions(window))
        self.q_proj = nn.Linear(channels, channels)
        self.k_proj = nn.Linear(channels, channels)
        self.v_proj = nn.Linear(channels, channels)
        self.out_proj = nn.Linear(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        height, width = x.shape[1:3]
        pad_rows, pad_columns = -height % self.window, -width % self.window
        top, left = pad_rows // 2, pad_columns // 2
        x = functional.pad(x, (0, 0, left, pad_columns - left, top, pad_rows - top))
        # Numbers of windows.
        rows, columns = x.shape[1] // self.window, x.shape[2] // self.window
        windows = x.unflatten(2, (columns, self.window)).unflatten(1, (rows, self.window))
        tokens = windows.permute(0, 1, 3, 2, 4, 5).reshape(-1, self.window**2, x.shape[3])
        tokens = self.out_proj(self._attend(tokens))
        windows = tokens.reshape(-1, rows, columns, self.window, self.window, x.shape[3])
        x = windows.permute(0, 1, 3, 2, 4, 5).reshape(x.shape)
        return x[:, top : top + height, left : left + width]

    def _attend(self, tokens: Tensor) -> Tensor:
        """Apply multi-head attention: (B, L, C) -> (B, L, C)."""
        query, key, value = (
            project(tokens).unflatten(2, (self.num_heads, -1)).transpose(1, 2)
            for project in (self.q_proj, self.k_proj, self.v_proj)
        )
        bias = None
        if self.has_position_bias:
            length = self.window**2
            table = self.relative_position_bias_table[self.relative_position_index.flatten()]
            bias = table.reshape(length, length, -1).permute(2, 0, 1)[None].to(query.dtype)
        mixed = functional.scaled_dot_product_attention(query, key, value, attn_mask=bias)
        return mixed.transpose(1, 2).flatten(2)


def relative_positions(window: int) -> Tensor:
    """Return the index into the bias table for each (query, key) pair: (window^2, window^2)."""
    coords = torch.arange(window)
    y, x = (grid.flatten() for grid in torch.meshgrid(coords, coords, indexing="ij"))
    down, across = y[:, None] - y + window - 1, x[:, None] - x + window - 1
    return down * (2 * window - 1) + across


class ConvMlp(nn.Module):
    """An MLP with a depthwise 3x3 convolution between its layers: (N, C, H, W) -> (N, C, H, W)."""

    # For lib.models.folding.
    fold_pairs = (("fc1", "norm1"), ("dw3x3", "norm2"), ("fc2", "norm3"))

    def __init__(self, channels: int, hidden: int) -> None:
        super().__init__()
        self.fc1 = nn.Conv2d(channels, hidden, 1)
        self.norm1 = nn.BatchNorm2d(hidden)
        self.dw3x3 = nn.Conv2d(hidden, hidden, 3, padding=1, groups=hidden)
        self.norm2 = nn.BatchNorm2d(hidden)
        self.fc2 = nn.Conv2d(hidden, channels, 1)
        self.norm3 = nn.BatchNorm2d(channels)

    def forward(self, x: Tensor) -> Tensor:
        x = functional.gelu(self.norm1(self.fc1(x)))
        x = functional.gelu(self.norm2(self.dw3x3(x)))
        return functional.gelu(self.norm3(self.fc2(x)))


class TransformerBlock(nn.Module):
    """A transformer block of window attention and ``ConvMlp``: (N, C, H, W) -> (N, C, H, W).

    Both are residual branches. In training, each is skipped for random samples, with probability
    ``drop_path``.
    """

    def __init__(self, plan: Plan, branch: int, drop_path: float) -> None:
        super().__init__()
        channels = plan.channels[branch]
        self.norm1 = nn.LayerNorm(channels, eps=1e-6)
        # The nested name "attn.attn" is that of the published parameters.
        self.attn = nn.Module()
        self.attn.attn = WindowAttention(
            channels, plan.num_heads[branch], plan.window, plan.has_position_bias
        )
        self.norm2 = nn.LayerNorm(channels, eps=1e-6)
        self.mlp = ConvMlp(channels, channels * plan.mlp_ratio)
        self.drop_path = drop_path

    def forward(self, x: Tensor) -> Tensor:
        x = x.permute(0, 2, 3, 1)
        x = x + self._apply_drop_path(self.attn.attn(self.norm1(x)))
        y = self.mlp(self.norm2(x).permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
        return (x + self._apply_drop_path(y)).permute(0, 3, 1, 2)

    def _apply_drop_path(self, x: Tensor) -> Tensor:
        if not self.training or not self.drop_path:
            return x
        keep = 1 - self.drop_path
        kept = torch.rand(len(x), 1, 1, 1, device=x.device) < keep
        return x * (kept / keep).to(x.dtype)


class HRFormer(BranchedNetwork):
    """HRFormer backbone: a stem, two bottlenecks and stages of two, three and four branches.

    With ``multi_scale_output``, every branch of the last stage is returned, not only the finest.
    """

    def __init__(self, plan: Plan, multi_scale_output: bool = False) -> None:
        super().__init__(Bottleneck, LAYER1_CHANNELS, LAYER1_BLOCKS)
        num_outputs = len(plan.channels) if multi_scale_output else 1
        self.feature_channels = plan.channels[:num_outputs]
        self.feature_strides = tuple(4 << i for i in range(num_outputs))
        depth = sum(plan.num_modules) * plan.num_blocks
        rates = iter(np.linspace(0, plan.drop_path, depth).tolist())
        before: tuple[int, ...] = (LAYER1_CHANNELS * Bottleneck.expansion,)
        for stage in range(NUM_STAGES):
            channels = plan.channels[: stage + 2]
            self.add_module(f"transition{stage + 1}", Transition(before, channels, conv_bn))
            outputs = [len(channels)] * plan.num_modules[stage]
            if stage == NUM_STAGES - 1:
                outputs[-1] = num_outputs
            modules = (
                exchange_module(plan, channels, number, [*islice(rates, plan.num_blocks)])
                for number in outputs
            )
            self.add_module(f"stage{stage + 2}", nn.Sequential(*modules))
            before = channels

    def features(self, x: Tensor) -> list[Tensor]:
        """Run the backbone on images (N, 3, H, W); H and W must be multiples of 32."""
        # Attention and depthwise convolutions are both faster with channels last.
        return super().features(x.contiguous(memory_format=torch.channels_last))


def exchange_module(
    plan: Plan, channels: Sequence[int], num_outputs: int, drop_paths: Sequence[float]
) -> ExchangeModule:
    """Build transformer blocks on each branch and their fusion into ``num_outputs`` branches.

    ``drop_paths`` are the rates of a branch's blocks.
    """
    branches = nn.ModuleList(
        nn.Sequential(*(TransformerBlock(plan, branch, rate) for rate in drop_paths))
        for branch in range(len(channels))
    )
    make_upsample = functools.partial(upsample, mode="bilinear")
    fusion = fuse_layers(channels, num_outputs, separable_layers, make_upsample)
    return ExchangeModule(branches, fusion)


def build(cfg: CfgNode) -> HRFormer:
    """Build the backbone from MODEL.EXTRA; raises InputError if a setting is invalid."""
    extra, length = "MODEL.EXTRA", NUM_STAGES + 1
    channels = settings.positive_ints(cfg, f"{extra}.NUM_CHANNELS", length, "the network")
    num_heads = settings.positive_ints(cfg, f"{extra}.NUM_HEADS", length, "the network")
    is_valid = all(c % n == 0 for c, n in zip(channels, num_heads, strict=True))
    expected = f"divisors of the channels {', '.join(map(str, channels))}"
    settings.require(is_valid, f"{extra}.NUM_HEADS", expected, list(num_heads))
    drop_path = cfg.MODEL.EXTRA.DROP_PATH
    expected = "at least 0 and below 1"
    settings.require(0 <= drop_path < 1, f"{extra}.DROP_PATH", expected, drop_path)
    settings.require_image_size(cfg, 32)
    plan = Plan(
        num_modules=settings.positive_ints(cfg, f"{extra}.NUM_MODULES", NUM_STAGES, "the network"),
        num_blocks=settings.positive_int(cfg, f"{extra}.NUM_BLOCKS"),
        channels=channels,
        num_heads=num_heads,
        window=settings.positive_int(cfg, f"{extra}.WINDOW_SIZE"),
        mlp_ratio=settings.positive_int(cfg, f"{extra}.MLP_RATIO"),
        drop_path=drop_path,
        has_position_bias=cfg.MODEL.EXTRA.RELATIVE_POSITION_BIAS,
    )
    return HRFormer(plan, multi_scale_output=uses_all_levels(cfg))
