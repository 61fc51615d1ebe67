"""Heads: from backbone features to heatmaps or to one distribution per axis.

- ``heatmap``: a convolution, after deconvolutions if MODEL.EXTRA.NUM_DECONV_LAYERS is set
  (SimpleBaseline, HRNet).
- ``sr``: heatmaps at input resolution from a single map.
- ``srpose``: heatmaps at input resolution from a feature pyramid, with an output at every level in
  training.
- ``simcc``: two vectors per joint.

``sr`` and ``srpose`` are from Wang, Liu, Tang, Wu: Lightweight Super-Resolution Head for Human Pose
Estimation (ACM MM 2023), haonanwang0522/SRPose. There, ``sr`` exists only for bottom-up networks;
here it has no tag output. ``simcc`` is from Li et al.: SimCC: a Simple Coordinate Classification
Perspective for Human Pose Estimation (ECCV 2022), leeyegy/SimCC.

Parameter names are those of the published files.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional
from yacs.config import CfgNode

from lib.models import settings
from lib.models.layers.blocks import SMALL_STD
from lib.models.network import PoseNetwork
from lib.utils.errors import InputError

# Kernel size: (padding, output padding) for a deconvolution of stride 2 that doubles the size.
DECONV_PADDING = {2: (0, 0), 3: (1, 1), 4: (1, 0)}

EMBEDDING = 4  # feature channels per joint before its heatmap is computed
SR_KERNEL = 9
SRPOSE_WIDTH = 256  # channels of the coarsest level, halved at each finer one
TARGET_STRIDE = 4  # stride of SRPose's intermediate outputs

Init = Callable[[nn.Module], None]


class Head(nn.Module):
    """Base class of heads, which take a backbone's maps from fine to coarse."""

    def output_layers(self) -> list[nn.Module]:
        """Return the convolutions that output heatmaps."""
        raise NotImplementedError

    def init_weights(self, init: Init) -> None:
        """Initialise with ``init``, except output layers, which get small weights."""
        init(self)
        for layer in self.output_layers():
            nn.init.normal_(layer.weight, std=SMALL_STD)
            nn.init.zeros_(layer.bias)


class Deconvolutions(nn.Sequential):
    """Deconvolutions on the map at ``network.main_level``: maps -> (N, out_channels, H, W).

    Each doubles the size; without any, the map is returned. ``stride`` is that of the output.

    Args:
        network: the backbone.
        filters: output channels of each deconvolution.
        kernels: kernel size of each deconvolution.
        bias: whether the deconvolutions have a bias.
    """

    def __init__(
        self, network: PoseNetwork, filters: Sequence[int], kernels: Sequence[int], bias: bool
    ) -> None:
        super().__init__()
        self.level = network.main_level
        self.stride = network.feature_strides[self.level] >> len(filters)
        self.out_channels = network.feature_channels[self.level]
        for channels, kernel in zip(filters, kernels, strict=True):
            padding = DECONV_PADDING[kernel]
            deconv = nn.ConvTranspose2d(self.out_channels, channels, kernel, 2, *padding, bias=bias)
            self.extend([deconv, nn.BatchNorm2d(channels), nn.ReLU(inplace=True)])
            self.out_channels = channels

    def forward(self, features: list[Tensor]) -> Tensor:
        return super().forward(features[self.level])


class HeatmapHead(Head):
    """Deconvolutions and a convolution with an odd kernel size -> heatmaps (N, K, H, W)."""

    def __init__(self, deconv_layers: Deconvolutions, num_joints: int, final_kernel: int) -> None:
        super().__init__()
        self.deconv_layers = deconv_layers
        self.final_layer = nn.Conv2d(
            deconv_layers.out_channels, num_joints, final_kernel, padding=final_kernel // 2
        )

    def output_layers(self) -> list[nn.Module]:
        return [self.final_layer]

    def forward(self, features: list[Tensor]) -> Tensor:
        return self.final_layer(self.deconv_layers(features))


class SimCCHead(HeatmapHead):
    """SimCC head: heatmaps followed by two linear layers -> (N, K, bins[0]), (N, K, bins[1]).

    Args:
        num_pixels: number of pixels of a heatmap.
        bins: number of bins along x and y.
    """

    def __init__(
        self,
        deconv_layers: Deconvolutions,
        num_joints: int,
        final_kernel: int,
        num_pixels: int,
        bins: tuple[int, int],
    ) -> None:
        super().__init__(deconv_layers, num_joints, final_kernel)
        self.mlp_head_x = nn.Linear(num_pixels, bins[0])
        self.mlp_head_y = nn.Linear(num_pixels, bins[1])

    def forward(self, features: list[Tensor]) -> list[Tensor]:
        flat = super().forward(features).flatten(2)
        return [self.mlp_head_x(flat), self.mlp_head_y(flat)]


class SRHead(Head):
    """Super-resolution head: deconvolutions and upscaling -> heatmaps at input resolution.

    Each joint is computed from its own channels.
    """

    def __init__(self, deconv_layers: Deconvolutions, num_joints: int) -> None:
        super().__init__()
        self.deconv_layers = deconv_layers
        self.kp_encoder = joint_encoder(deconv_layers.out_channels, num_joints, EMBEDDING)
        self.heatmap_head = grouped_conv(num_joints, EMBEDDING, deconv_layers.stride, SR_KERNEL)

    def output_layers(self) -> list[nn.Module]:
        return [self.heatmap_head]

    def forward(self, features: list[Tensor]) -> Tensor:
        x = self.kp_encoder(self.deconv_layers(features))
        return functional.pixel_shuffle(self.heatmap_head(x), self.deconv_layers.stride)


class ConvNeXtBlock(nn.Module):
    """A residual block of a depthwise 7x7 convolution and two linear layers over the channels."""

    fold_pairs = (("dwconv", "norm"),)

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
    """A convolution per joint with pixel shuffle: (N, K * embedding, H, W) -> (N, K, sH, sW).

    s is ``scale``.
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
    level but the finest, and heatmaps at input resolution. In evaluation it computes only the last.

    Args:
        channels: channels of the maps, from fine to coarse.
        strides: strides of the maps, from fine to coarse.
        num_joints: number of joints.
    """

    def __init__(self, channels: Sequence[int], strides: Sequence[int], num_joints: int) -> None:
        super().__init__()
        maps, strides = [*reversed(channels)], [*reversed(strides)]
        levels = range(len(maps))
        widths = [SRPOSE_WIDTH >> level for level in levels]
        scales = [stride // TARGET_STRIDE for stride in strides[:-1]] + [strides[-1]]
        embeddings = [2 * scale for scale in scales[:-1]] + [EMBEDDING]
        self.lr_head = conv_relu(maps[0], num_joints)
        self.lr_fuse = conv_relu(num_joints, widths[0])
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
        for item, narrow, project, fuse, refine in steps:
            enlarged = functional.interpolate(narrow(x), size=item.shape[2:], mode="nearest")
            x = refine(fuse(torch.cat([enlarged, project(item)], dim=1)))
            levels.append(x)
        if not self.training:
            return self._heatmaps(-1, x)
        return [coarse, *(self._heatmaps(i, level) for i, level in enumerate(levels))]

    def _heatmaps(self, level: int, x: Tensor) -> Tensor:
        return self.converge[level](self.kp_encoder[level](x))


def conv_relu(in_channels: int, out_channels: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(in_channels, out_channels, 1), nn.ReLU())


def joint_encoder(in_channels: int, num_joints: int, embedding: int) -> nn.Sequential:
    """A layer with ``embedding`` channels per joint: (N, C, H, W) -> (N, K * embedding, H, W)."""
    return conv_relu(in_channels, num_joints * embedding)


def grouped_conv(num_joints: int, embedding: int, scale: int, kernel: int) -> nn.Conv2d:
    """A convolution with one group per joint: (N, K * embedding, H, W) -> (N, K * s^2, H, W).

    s is ``scale``.
    """
    in_channels, out_channels, padding = num_joints * embedding, num_joints * scale**2, kernel // 2
    return nn.Conv2d(in_channels, out_channels, kernel, padding=padding, groups=num_joints)


def build(cfg: CfgNode, network: PoseNetwork) -> Head:
    """Build the head MODEL.HEAD for ``network``.

    Raises:
        InputError: if a setting is invalid or the network lacks the features that the head needs.
            The message names the key.
    """
    name = settings.choice(cfg, "MODEL.HEAD", HEADS, default="heatmap")
    return HEADS[name](cfg, network)


def _build_deconvolutions(cfg: CfgNode, network: PoseNetwork) -> Deconvolutions:
    extra = "MODEL.EXTRA"
    length_key = f"{extra}.NUM_DECONV_LAYERS"
    if not settings.get(cfg, length_key, 0):
        return Deconvolutions(network, (), (), bias=False)
    length = settings.positive_int(cfg, length_key)
    kernels_key = f"{extra}.NUM_DECONV_KERNELS"
    kernels = settings.positive_ints(cfg, kernels_key, length, length_key)
    settings.require(set(kernels) <= set(DECONV_PADDING), kernels_key, "of 2, 3 and 4", kernels)
    filters = settings.positive_ints(cfg, f"{extra}.NUM_DECONV_FILTERS", length, length_key)
    stride = network.feature_strides[network.main_level]
    settings.require(stride >> length, length_key, f"at most {stride.bit_length() - 1}", length)
    bias = bool(settings.get(cfg, f"{extra}.DECONV_WITH_BIAS", False))
    return Deconvolutions(network, filters, kernels, bias)


def _final_kernel(cfg: CfgNode) -> int:
    return settings.choice(cfg, "MODEL.EXTRA.FINAL_CONV_KERNEL", (1, 3), default=1)


def _num_joints(cfg: CfgNode) -> int:
    return settings.positive_int(cfg, "MODEL.NUM_JOINTS")


def _build_heatmap(cfg: CfgNode, network: PoseNetwork) -> HeatmapHead:
    layers = _build_deconvolutions(cfg, network)
    return HeatmapHead(layers, _num_joints(cfg), _final_kernel(cfg))


def _build_simcc(cfg: CfgNode, network: PoseNetwork) -> SimCCHead:
    layers = _build_deconvolutions(cfg, network)
    width, height = settings.get(cfg, "MODEL.IMAGE_SIZE")
    ratio = settings.get(cfg, "MODEL.SIMDR_SPLIT_RATIO")
    is_valid = ratio <= 8 and min(width, height) * ratio >= 2
    expected = "at most 8 and give at least two bins"
    settings.require(is_valid, "MODEL.SIMDR_SPLIT_RATIO", expected, ratio)
    return SimCCHead(
        layers,
        _num_joints(cfg),
        _final_kernel(cfg),
        num_pixels=(width // layers.stride) * (height // layers.stride),
        bins=(int(width * ratio), int(height * ratio)),
    )


def _build_sr(cfg: CfgNode, network: PoseNetwork) -> SRHead:
    return SRHead(_build_deconvolutions(cfg, network), _num_joints(cfg))


def _build_srpose(cfg: CfgNode, network: PoseNetwork) -> SRPoseHead:
    channels, strides = network.feature_channels, network.feature_strides
    is_pyramid = len(strides) > 1 and strides[0] == TARGET_STRIDE
    if not is_pyramid:
        raise InputError(
            f"MODEL.HEAD: srpose needs maps of at least two sizes, the finest at stride "
            f"{TARGET_STRIDE}; {cfg.MODEL.NAME} has strides {', '.join(map(str, strides))}; use sr "
            "for a single map"
        )
    return SRPoseHead(channels, strides, _num_joints(cfg))


HEADS: dict[str, Callable[[CfgNode, PoseNetwork], Head]] = {
    "heatmap": _build_heatmap,
    "simcc": _build_simcc,
    "sr": _build_sr,
    "srpose": _build_srpose,
}


def uses_all_levels(cfg: CfgNode) -> bool:
    """Return True if the experiment's head uses all maps of the backbone, not only one."""
    return settings.get(cfg, "MODEL.HEAD", "heatmap") == "srpose"
