"""Heads that use one feature map of the backbone: heatmap, SimCC and super-resolution heads."""

import torch
from torch import Tensor, nn
from torch.nn import functional

from lib.models.heads.layers import Deconvolutions, Head, conv_relu, grouped_conv

EMBEDDING = 4  # feature channels per joint before its heatmap is computed
SR_KERNEL = 9  # kernel size of the convolution that computes the heatmaps


class HeatmapHead(Head):
    """Heatmap head: deconvolutions and a convolution of odd kernel size -> (N, num_maps, H, W)."""

    def __init__(self, deconv_layers: Deconvolutions, num_maps: int, final_kernel: int) -> None:
        super().__init__()
        self.deconv_layers = deconv_layers
        self.final_layer = nn.Conv2d(
            deconv_layers.out_channels, num_maps, final_kernel, padding=final_kernel // 2
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

    Each joint's heatmap is computed from its own channels. ``with_tags`` adds tag maps, which are
    enlarged by repeating pixels.
    """

    def __init__(
        self, deconv_layers: Deconvolutions, num_joints: int, with_tags: bool = False
    ) -> None:
        super().__init__()
        self.deconv_layers = deconv_layers
        if with_tags:
            self.tag_head = nn.Conv2d(deconv_layers.out_channels, num_joints, 1)
        self.kp_encoder = conv_relu(deconv_layers.out_channels, num_joints * EMBEDDING)
        self.heatmap_head = grouped_conv(num_joints, EMBEDDING, deconv_layers.stride, SR_KERNEL)

    def output_layers(self) -> list[nn.Module]:
        return [self.heatmap_head]

    def forward(self, features: list[Tensor]) -> Tensor:
        x, stride = self.deconv_layers(features), self.deconv_layers.stride
        heatmaps = functional.pixel_shuffle(self.heatmap_head(self.kp_encoder(x)), stride)
        if not hasattr(self, "tag_head"):
            return heatmaps
        tags = functional.interpolate(self.tag_head(x), scale_factor=float(stride), mode="nearest")
        return torch.cat([heatmaps, tags], dim=1)
