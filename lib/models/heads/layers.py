"""Base class of heads and the layers that they share."""

from collections.abc import Callable, Sequence

from torch import Tensor, nn

from lib.models.layers.blocks import SMALL_STD
from lib.models.network import PoseNetwork

# Kernel size: (padding, output padding) for a deconvolution of stride 2 that doubles the size.
DECONV_PADDING = {2: (0, 0), 3: (1, 1), 4: (1, 0)}

Init = Callable[[nn.Module], None]


class Head(nn.Module):
    """Base class of heads. Their input is the backbone's maps, ordered from fine to coarse."""

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

    Each deconvolution doubles the size. ``filters`` are their output channels; if there are none,
    the map is returned unchanged. The attribute ``stride`` is the stride of the output.
    """

    def __init__(
        self, network: PoseNetwork, filters: Sequence[int], kernels: Sequence[int], bias: bool
    ) -> None:
        super().__init__()
        self.level = network.main_level
        self.stride = network.feature_strides[self.level] >> len(filters)
        self.out_channels = network.feature_channels[self.level]
        for channels, kernel in zip(filters, kernels, strict=True):
            self.extend(deconvolution(self.out_channels, channels, kernel, bias))
            self.out_channels = channels

    def forward(self, features: list[Tensor]) -> Tensor:
        return super().forward(features[self.level])


def deconvolution(in_channels: int, channels: int, kernel: int, bias: bool) -> nn.Sequential:
    """A deconvolution that doubles the size, with batch norm and ReLU."""
    padding = DECONV_PADDING[kernel]
    deconv = nn.ConvTranspose2d(in_channels, channels, kernel, 2, *padding, bias=bias)
    return nn.Sequential(deconv, nn.BatchNorm2d(channels), nn.ReLU(inplace=True))


def conv_relu(in_channels: int, out_channels: int) -> nn.Sequential:
    """A 1x1 convolution with ReLU."""
    return nn.Sequential(nn.Conv2d(in_channels, out_channels, 1), nn.ReLU())


def grouped_conv(num_joints: int, embedding: int, scale: int, kernel: int) -> nn.Conv2d:
    """A convolution for each joint: (N, K * embedding, H, W) -> (N, K * scale^2, H, W).

    ``embedding`` is the number of input channels per joint. The output is for a pixel shuffle by
    the factor ``scale``.
    """
    in_channels, out_channels, padding = num_joints * embedding, num_joints * scale**2, kernel // 2
    return nn.Conv2d(in_channels, out_channels, kernel, padding=padding, groups=num_joints)
