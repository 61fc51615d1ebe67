"""Shared building blocks: residual blocks and weight initialisation.

The blocks follow He, Zhang, Ren, Sun: Deep Residual Learning for Image Recognition (CVPR 2016).
Their parameter names are those of the published HRNet checkpoints
(leoxiaobin/deep-high-resolution-net.pytorch, lib/models). A bottleneck has its stride in the 3x3
convolution, as in torchvision.
"""

import functools
from collections.abc import Callable
from typing import ClassVar

from torch import Tensor, nn
from yacs.config import CfgNode

from lib.models import settings

CONVOLUTIONS = (nn.Conv2d, nn.ConvTranspose2d)
SMALL_STD = 0.001  # standard deviation of the initial weights in the papers


class BasicBlock(nn.Module):
    """Two 3x3 convolutions with a shortcut.

    (N, in_channels, H, W) -> (N, channels, H/stride, W/stride)
    """

    expansion: ClassVar[int] = 1

    def __init__(self, in_channels: int, channels: int, stride: int = 1) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, channels, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.downsample = _shortcut(in_channels, channels, stride)
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        y = self.relu(self.bn1(self.conv1(x)))
        y = self.bn2(self.conv2(y))
        y += self.downsample(x)
        return self.relu(y)


class Bottleneck(nn.Module):
    """A 1x1, a 3x3 and a 1x1 convolution with a shortcut.

    (N, in_channels, H, W) -> (N, 4 * channels, H/stride, W/stride)
    """

    expansion: ClassVar[int] = 4

    def __init__(self, in_channels: int, channels: int, stride: int = 1) -> None:
        super().__init__()
        out_channels = channels * self.expansion
        self.conv1 = nn.Conv2d(in_channels, channels, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, stride, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.conv3 = nn.Conv2d(channels, out_channels, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(out_channels)
        self.downsample = _shortcut(in_channels, out_channels, stride)
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        y = self.relu(self.bn1(self.conv1(x)))
        y = self.relu(self.bn2(self.conv2(y)))
        y = self.bn3(self.conv3(y))
        y += self.downsample(x)
        return self.relu(y)


Block = type[BasicBlock] | type[Bottleneck]


def residual_layers(
    block: Block, in_channels: int, channels: int, num_blocks: int, stride: int = 1
) -> nn.Sequential:
    """Stack ``num_blocks`` blocks; the first one applies the stride and changes the channels."""
    out_channels = channels * block.expansion
    rest = (block(out_channels, channels) for _ in range(num_blocks - 1))
    return nn.Sequential(block(in_channels, channels, stride), *rest)


def init_convolutions(network: nn.Module, method: str) -> None:
    """Initialise convolutions in place, with biases of 0, using torch's global generator.

    With the method ``normal`` the weights have std 0.001, as in SimpleBaseline and HRNet. With
    ``kaiming`` they follow the Kaiming normal scheme (He et al. 2015), which makes training from
    scratch several times as fast. With ``normal`` the weights are about as small as Adam's first
    steps, so these steps change them completely.

    Gates (see ``mark_gate``) use std 0.001 with both methods, which makes all gate values nearly
    equal at first. With large random weights they would multiply the features by noise, and a gate
    with a softmax would hardly learn.
    """
    for module in network.modules():
        if isinstance(module, CONVOLUTIONS):
            if method == "normal" or getattr(module, "is_gate", False):
                nn.init.normal_(module.weight, std=SMALL_STD)
            else:
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
            if module.bias is not None:
                nn.init.zeros_(module.bias)


def mark_gate(conv: nn.Conv2d) -> nn.Conv2d:
    """Mark a convolution for the initialisation of gates (``init_convolutions``).

    The output of a gate becomes attention weights through a sigmoid or softmax.
    """
    conv.is_gate = True
    return conv


def init_function(cfg: CfgNode) -> Callable[[nn.Module], None] | None:
    """Return the function that initialises modules, or None if MODEL.INIT_WEIGHTS is False."""
    method = settings.choice(cfg, "MODEL.INIT", ("normal", "kaiming"))
    if not cfg.MODEL.INIT_WEIGHTS:
        return None
    return functools.partial(init_convolutions, method=method)


def _shortcut(in_channels: int, out_channels: int, stride: int) -> nn.Module:
    if stride == 1 and in_channels == out_channels:
        return nn.Identity()
    return nn.Sequential(
        nn.Conv2d(in_channels, out_channels, 1, stride, bias=False), nn.BatchNorm2d(out_channels)
    )
