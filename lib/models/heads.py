"""Heads: from the features of any backbone to heatmaps, or to a distribution along each axis.

- ``heatmap``: deconvolutions where the backbone has MODEL.EXTRA.NUM_DECONV_LAYERS, and a
  convolution (SimpleBaseline, HRNet).
- ``sr``: heatmaps of the input's size from one map; ``srpose``: the same from a pyramid of maps,
  with outputs at every level in training. Wang, Liu, Tang, Wu: Lightweight Super-Resolution Head
  for Human Pose Estimation. ACM MM 2023, haonanwang0522/SRPose, whose code has the first for
  bottom-up networks only; here it stands without its tags.
- ``simcc``: two vectors for each joint. Li et al.: SimCC: a Simple Coordinate Classification
  Perspective for Human Pose Estimation. ECCV 2022, leeyegy/SimCC.

State-dict names are those of the published files.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional
from yacs.config import CfgNode

from lib.models import settings
from lib.models.blocks import SMALL_STD, heatmap_layer
from lib.models.network import PoseNetwork
from lib.utils.errors import InputError

# Kernel: the padding and output padding with which a deconvolution of stride 2 doubles the size.
DECONV_PADDING = {2: (0, 0), 3: (1, 1), 4: (1, 0)}

EMBEDDING = 4  # channels that a joint has of its own before its heatmap is made
SR_KERNEL = 9
SRPOSE_WIDTH = 256  # channels of the coarsest level, half as many at each finer one
TARGET_STRIDE = 4  # of all of SRPose's outputs but the finest

Init = Callable[[nn.Module], None]


class Head(nn.Module):
    """From the features of a backbone, finest first, to one output or a list of outputs."""

    def output_layers(self) -> list[nn.Module]:
        """The convolutions whose results are heatmaps."""
        raise NotImplementedError

    def init_weights(self, init: Init) -> None:
        """Initialise in place as ``init`` does, with small heatmaps to begin with."""
        init(self)
        for layer in self.output_layers():
            nn.init.normal_(layer.weight, std=SMALL_STD)
            nn.init.zeros_(layer.bias)


class HeatmapHead(Head):
    """One of the maps, ``level``, doubled by each deconvolution -> heatmaps (N, K, H, W)."""

    def __init__(
        self,
        level: int,
        in_channels: int,
        num_joints: int,
        deconv_layers: nn.Sequential,
        final_kernel: int = 1,
    ) -> None:
        super().__init__()
        self.level = level
        self.deconv_layers = deconv_layers
        self.final_layer = heatmap_layer(in_channels, num_joints, final_kernel)

    def output_layers(self) -> list[nn.Module]:
        return [self.final_layer]

    def forward(self, features: list[Tensor]) -> Tensor:
        return self.final_layer(self.deconv_layers(features[self.level]))


class SimCCHead(HeatmapHead):
    """Heatmaps, then from each two vectors of bins: (N, K, bins along x), (N, K, bins along y).

    Args:
        num_pixels: of a heatmap.
        bins: along x and y.
    """

    def __init__(
        self,
        level: int,
        in_channels: int,
        num_joints: int,
        deconv_layers: nn.Sequential,
        final_kernel: int,
        num_pixels: int,
        bins: tuple[int, int],
    ) -> None:
        super().__init__(level, in_channels, num_joints, deconv_layers, final_kernel)
        self.mlp_head_x = nn.Linear(num_pixels, bins[0])
        self.mlp_head_y = nn.Linear(num_pixels, bins[1])

    def forward(self, features: list[Tensor]) -> list[Tensor]:
        flat = super().forward(features).flatten(2)
        return [self.mlp_head_x(flat), self.mlp_head_y(flat)]


class SRHead(Head):
    """One of the maps -> heatmaps ``scale`` times as large, each joint from its own channels."""

    def __init__(
        self,
        level: int,
        in_channels: int,
        num_joints: int,
        deconv_layers: nn.Sequential,
        scale: int,
    ) -> None:
        super().__init__()
        self.level = level
        self.scale = scale
        self.deconv_layers = deconv_layers
        self.kp_encoder = joint_encoder(in_channels, num_joints, EMBEDDING)
        self.heatmap_head = grouped_conv(num_joints, EMBEDDING, scale, SR_KERNEL)

    def output_layers(self) -> list[nn.Module]:
        return [self.heatmap_head]

    def forward(self, features: list[Tensor]) -> Tensor:
        x = self.kp_encoder(self.deconv_layers(features[self.level]))
        return functional.pixel_shuffle(self.heatmap_head(x), self.scale)


class ConvNeXtBlock(nn.Module):
    """A depthwise 7x7 convolution and two products over the channels, added to the input."""

    folds = (("dwconv", "norm"),)

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
    """(N, K * embedding, H, W) -> (N, K, scale * H, scale * W)"""

    def __init__(self, num_joints: int, embedding: int, scale: int, kernel: int) -> None:
        super().__init__()
        self.conv = grouped_conv(num_joints, embedding, scale, kernel)
        self.scale = scale

    def forward(self, x: Tensor) -> Tensor:
        return functional.pixel_shuffle(self.conv(x), self.scale)


class SRPoseHead(Head):
    """From the coarsest map to the finest, each level adding what the map of its size knows.

    In training: low-resolution heatmaps of the coarsest size, heatmaps at stride 4 for each level
    but the finest, and heatmaps of the input's size. In evaluation only the last, and what only the
    others need is not computed.

    Args:
        channels, strides: of the maps, finest first.
    """

    def __init__(self, channels: Sequence[int], strides: Sequence[int], num_joints: int) -> None:
        super().__init__()
        maps, strides = [*reversed(channels)], [*reversed(strides)]
        levels = range(len(maps))
        widths = [SRPOSE_WIDTH >> level for level in levels]
        scales = [stride // TARGET_STRIDE for stride in strides[:-1]] + [strides[-1]]
        embeddings = [2 * scale for scale in scales[:-1]] + [EMBEDDING]
        self.lr_head = active_conv(maps[0], num_joints)
        self.lr_fuse = active_conv(num_joints, widths[0])
        self.pre_fuse = nn.ModuleList(
            nn.Sequential(nn.Conv2d(maps[i], widths[i], 1), nn.BatchNorm2d(widths[i]), nn.ReLU())
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
            joint_encoder(widths[i], num_joints, embeddings[i]) for i in levels
        )
        self.converge = nn.ModuleList(
            UpscalingConv(num_joints, embeddings[i], scales[i], SR_KERNEL + 2 - 2 * (len(maps) - i))
            for i in levels
        )

    def output_layers(self) -> list[nn.Module]:
        return [level.conv for level in self.converge]

    def init_weights(self, init: Init) -> None:
        """As published: PyTorch's own initialisation, and small heatmaps to begin with."""
        for layer in self.output_layers():
            nn.init.normal_(layer.weight, std=SMALL_STD)
            nn.init.zeros_(layer.bias)

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
        for item, narrow, project, fuse, refine in steps:
            enlarged = functional.interpolate(narrow(x), size=item.shape[2:], mode="nearest")
            x = refine(fuse(torch.cat([enlarged, project(item)], dim=1)))
            levels.append(x)
        if not self.training:
            return self._heatmaps(-1, x)
        return [coarse, *(self._heatmaps(i, level) for i, level in enumerate(levels))]

    def _heatmaps(self, level: int, x: Tensor) -> Tensor:
        return self.converge[level](self.kp_encoder[level](x))


def active_conv(in_channels: int, out_channels: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(in_channels, out_channels, 1), nn.ReLU())


def joint_encoder(in_channels: int, num_joints: int, embedding: int) -> nn.Sequential:
    """(N, in_channels, H, W) -> (N, K * embedding, H, W)"""
    return active_conv(in_channels, num_joints * embedding)


def grouped_conv(num_joints: int, embedding: int, scale: int, kernel: int) -> nn.Conv2d:
    """(N, K * embedding, H, W) -> (N, K * scale^2, H, W), each joint by itself."""
    return nn.Conv2d(
        num_joints * embedding,
        num_joints * scale**2,
        kernel,
        padding=kernel // 2,
        groups=num_joints,
    )


def deconvolutions(
    in_channels: int, filters: Sequence[int], kernels: Sequence[int], bias: bool
) -> nn.Sequential:
    """(N, in_channels, H, W) -> (N, filters[-1], 2^n H, 2^n W) by n = len(filters) doublings."""
    layers: list[nn.Module] = []
    for channels, kernel in zip(filters, kernels, strict=True):
        padding, output_padding = DECONV_PADDING[kernel]
        layers += [
            nn.ConvTranspose2d(
                in_channels, channels, kernel, 2, padding, output_padding, bias=bias
            ),
            nn.BatchNorm2d(channels),
            nn.ReLU(inplace=True),
        ]
        in_channels = channels
    return nn.Sequential(*layers)


def build(cfg: CfgNode, network: PoseNetwork) -> Head:
    """The head MODEL.HEAD for ``network``.

    Raises:
        InputError: a value that cannot be built, or a head that needs other features than the
            network has; the message names the key.
    """
    name = settings.choice(cfg, "MODEL.HEAD", HEADS, default="heatmap")
    return HEADS[name](cfg, network)


def _trunk(cfg: CfgNode, network: PoseNetwork) -> tuple[nn.Sequential, int, int]:
    """The deconvolutions, and the channels and the stride of what they give."""
    channels = network.feature_channels[network.main_level]
    stride = network.feature_strides[network.main_level]
    extra = "MODEL.EXTRA"
    length_key = f"{extra}.NUM_DECONV_LAYERS"
    if not settings.setting(cfg, length_key, 0):
        return nn.Sequential(), channels, stride
    length = settings.count(cfg, length_key)
    kernels_key = f"{extra}.NUM_DECONV_KERNELS"
    kernels = settings.counts(cfg, kernels_key, length, length_key)
    settings.require(set(kernels) <= set(DECONV_PADDING), kernels_key, "of 2, 3 and 4", kernels)
    filters = settings.counts(cfg, f"{extra}.NUM_DECONV_FILTERS", length, length_key)
    settings.require(stride >> length, length_key, f"at most {stride.bit_length() - 1}", length)
    bias = bool(settings.setting(cfg, f"{extra}.DECONV_WITH_BIAS", False))
    return deconvolutions(channels, filters, kernels, bias), filters[-1], stride >> length


def _final_kernel(cfg: CfgNode) -> int:
    return settings.choice(cfg, "MODEL.EXTRA.FINAL_CONV_KERNEL", (1, 3), default=1)


def _num_joints(cfg: CfgNode) -> int:
    return settings.count(cfg, "MODEL.NUM_JOINTS")


def _build_heatmap(cfg: CfgNode, network: PoseNetwork) -> HeatmapHead:
    layers, channels, _ = _trunk(cfg, network)
    kernel = _final_kernel(cfg)
    return HeatmapHead(network.main_level, channels, _num_joints(cfg), layers, kernel)


def _build_simcc(cfg: CfgNode, network: PoseNetwork) -> SimCCHead:
    layers, channels, stride = _trunk(cfg, network)
    width, height = settings.setting(cfg, "MODEL.IMAGE_SIZE")
    ratio = settings.setting(cfg, "MODEL.SIMDR_SPLIT_RATIO")
    is_right = ratio <= 8 and min(width, height) * ratio >= 2
    right = "at most 8 and give two bins or more"
    settings.require(is_right, "MODEL.SIMDR_SPLIT_RATIO", right, ratio)
    return SimCCHead(
        network.main_level,
        channels,
        _num_joints(cfg),
        layers,
        _final_kernel(cfg),
        num_pixels=(width // stride) * (height // stride),
        bins=(int(width * ratio), int(height * ratio)),
    )


def _build_sr(cfg: CfgNode, network: PoseNetwork) -> SRHead:
    layers, channels, stride = _trunk(cfg, network)
    return SRHead(network.main_level, channels, _num_joints(cfg), layers, stride)


def _build_srpose(cfg: CfgNode, network: PoseNetwork) -> SRPoseHead:
    channels, strides = network.feature_channels, network.feature_strides
    is_pyramid = len(strides) > 1 and strides[0] == TARGET_STRIDE
    if not is_pyramid:
        raise InputError(
            f"MODEL.HEAD: srpose needs maps of two sizes or more, the finest at stride "
            f"{TARGET_STRIDE}; {cfg.MODEL.NAME} has strides {', '.join(map(str, strides))}; sr "
            "takes one map"
        )
    return SRPoseHead(channels, strides, _num_joints(cfg))


HEADS: dict[str, Callable[[CfgNode, PoseNetwork], Head]] = {
    "heatmap": _build_heatmap,
    "simcc": _build_simcc,
    "sr": _build_sr,
    "srpose": _build_srpose,
}


MULTI_LEVEL = ("srpose",)


def takes_every_level(cfg: CfgNode) -> bool:
    """Whether the experiment's head uses more than one of a network's maps, so that a network that
    can spare the others must not."""
    return settings.setting(cfg, "MODEL.HEAD", "heatmap") in MULTI_LEVEL
