"""SRPose's head on a feature pyramid.

Wang, Liu, Tang, Wu: Lightweight Super-Resolution Head for Human Pose Estimation. ACM MM 2023.
Parameter names and arithmetic follow haonanwang0522/SRPose.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from lib.models.heads.layers import Head, Init, conv_relu, grouped_conv
from lib.models.heads.single import EMBEDDING, SR_KERNEL

WIDTH = 256  # channels of the coarsest level, halved at each finer one
TARGET_STRIDE = 4  # stride of the intermediate outputs


class ConvNeXtBlock(nn.Module):
    """A residual block of a depthwise 7x7 convolution and two linear layers over the channels."""

    fold_pairs = (("dwconv", "norm"),)  # for lib.models.folding

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.dwconv = nn.Conv2d(channels, channels, 7, padding=3, groups=channels)
        self.norm = nn.BatchNorm2d(channels)
        self.pwconv1 = nn.Linear(channels, 4 * channels)
        self.pwconv2 = nn.Linear(4 * channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm(self.dwconv(x)).permute(0, 2, 3, 1)
        y = self.pwconv2(functional.gelu(self.pwconv1(y)))
        return x + y.permute(0, 3, 1, 2)


class UpscalingConv(nn.Module):
    """A convolution for each joint, then pixel shuffle: (N, K * embedding, H, W) -> (N, K, sH, sW).

    The factor s is ``scale``.
    """

    def __init__(self, num_joints: int, embedding: int, scale: int, kernel: int) -> None:
        super().__init__()
        self.conv = grouped_conv(num_joints, embedding, scale, kernel)
        self.scale = scale

    def forward(self, x: Tensor) -> Tensor:
        return functional.pixel_shuffle(self.conv(x), self.scale)


class SRPoseHead(Head):
    """SRPose head: fuses the maps of a pyramid from coarse to fine.

    In training it outputs heatmaps at the size of the coarsest map, heatmaps at stride 4 for each
    level but the finest, and heatmaps at input resolution. In evaluation it outputs only the last.
    ``channels`` and ``strides`` of the maps are listed from fine to coarse.
    """

    def __init__(self, channels: Sequence[int], strides: Sequence[int], num_joints: int) -> None:
        super().__init__()
        channels, strides = [*reversed(channels)], [*reversed(strides)]
        levels = range(len(channels))
        widths = [WIDTH >> level for level in levels]
        scales = [stride // TARGET_STRIDE for stride in strides[:-1]] + [strides[-1]]
        embeddings = [2 * scale for scale in scales[:-1]] + [EMBEDDING]
        self.lr_head = conv_relu(channels[0], num_joints)
        self.lr_fuse = conv_relu(num_joints, widths[0])
        self.pre_fuse = nn.ModuleList(
            nn.Sequential(
                nn.Conv2d(channels[i], widths[i], 1), nn.BatchNorm2d(widths[i]), nn.ReLU()
            )
            for i in levels
        )
        steps = [(widths[i - 1], widths[i]) for i in levels[1:]]
        self.pre_interpolate = nn.ModuleList(
            nn.Sequential(
                nn.Conv2d(before, before, 3, padding=1, groups=before),
                nn.Conv2d(before, after, 1),
                nn.BatchNorm2d(after),
                nn.ReLU(),
            )
            for before, after in steps
        )
        self.fuse = nn.ModuleList(nn.Conv2d(2 * after, after, 1) for _, after in steps)
        self.post_fuse = nn.ModuleList(
            nn.Sequential(ConvNeXtBlock(after), ConvNeXtBlock(after)) for _, after in steps
        )
        self.kp_encoder = nn.ModuleList(
            conv_relu(widths[i], num_joints * embeddings[i]) for i in levels
        )
        # The kernel is SR_KERNEL at the finest level, and 2 smaller at each coarser one.
        self.converge = nn.ModuleList(
            UpscalingConv(
                num_joints, embeddings[i], scales[i], SR_KERNEL + 2 - 2 * (len(channels) - i)
            )
            for i in levels
        )

    def output_layers(self) -> list[nn.Module]:
        return [level.conv for level in self.converge]

    def init_weights(self, init: Init) -> None:
        """Keep PyTorch's initialisation, as published, but use small weights in output layers."""
        super().init_weights(lambda _: None)

    def forward(self, features: list[Tensor]) -> Tensor | list[Tensor]:
        maps = features[::-1]
        coarse = self.lr_head(maps[0])
        x = self.pre_fuse[0](maps[0]) + self.lr_fuse(coarse)
        levels = [x]
        steps = zip(
            maps[1:],
            self.pre_interpolate,
            self.pre_fuse[1:],
            self.fuse,
            self.post_fuse,
            strict=True,
        )
        for feature, narrow, project, fuse, refine in steps:
            enlarged = functional.interpolate(narrow(x), size=feature.shape[2:], mode="nearest")
            x = refine(fuse(torch.cat([enlarged, project(feature)], dim=1)))
            levels.append(x)
        if not self.training:
            return self._heatmaps(-1, x)
        return [coarse, *(self._heatmaps(i, level) for i, level in enumerate(levels))]

    def _heatmaps(self, level: int, x: Tensor) -> Tensor:
        return self.converge[level](self.kp_encoder[level](x))
