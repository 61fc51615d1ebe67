"""What several networks are built of: residual blocks, the heatmap layer, the initialisation.

The blocks are those of He, Zhang, Ren, Sun: Deep Residual Learning for Image Recognition (CVPR
2016), under the names of the published HRNet checkpoints (leoxiaobin/
deep-high-resolution-net.pytorch, lib/models). A bottleneck strides in its 3x3 convolution, as
torchvision's does.
"""

from collections.abc import Callable
from typing import ClassVar

from torch import Tensor, nn
from yacs.config import CfgNode

from lib.models import settings

SMALL_STD = 0.001  # of the normal distribution that the papers' weights start from


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut.

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
    """A 1x1, a 3x3 and a 1x1 convolution and a shortcut.

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
    block: Block, in_channels: int, channels: int, length: int, stride: int = 1
) -> nn.Sequential:
    """``length`` blocks in a row; the first one strides and changes the channels."""
    out_channels = channels * block.expansion
    rest = (block(out_channels, channels) for _ in range(length - 1))
    return nn.Sequential(block(in_channels, channels, stride), *rest)


def heatmap_layer(in_channels: int, num_joints: int, kernel: int) -> nn.Conv2d:
    """(N, in_channels, H, W) -> heatmaps (N, num_joints, H, W); ``kernel`` is odd."""
    return nn.Conv2d(in_channels, num_joints, kernel, padding=kernel // 2)


def init_normal(network: nn.Module) -> None:
    """What SimpleBaseline and HRNet start from: convolutions normal with std 0.001, biases 0.

    Batch norms start as the identity. It works in place and draws from torch's global generator.
    """
    for module in network.modules():
        if isinstance(module, (nn.Conv2d, nn.ConvTranspose2d)):
            nn.init.normal_(module.weight, std=SMALL_STD)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
        elif isinstance(module, nn.BatchNorm2d):
            nn.init.ones_(module.weight)
            nn.init.zeros_(module.bias)


def init_kaiming(network: nn.Module) -> None:
    """He et al. 2015, for all convolutions but gates, which are normal with std 0.001.

    Behind batch norms weights of std 0.001 change direction with every early step of Adam. From
    scratch a network learns several times as fast from these. But gates of large random weights
    are noise in what they weigh, and that of a softmax hardly learns: so they begin as weights that
    are all alike.
    """
    for module in network.modules():
        if isinstance(module, (nn.Conv2d, nn.ConvTranspose2d)):
            if getattr(module, "is_gate", False):
                nn.init.normal_(module.weight, std=SMALL_STD)
            else:
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
            if module.bias is not None:
                nn.init.zeros_(module.bias)


def gate(conv: nn.Conv2d) -> nn.Conv2d:
    """Mark a convolution whose results become weights, by a sigmoid or a softmax."""
    conv.is_gate = True
    return conv


INITS = {"normal": init_normal, "kaiming": init_kaiming}


def init_method(cfg: CfgNode) -> Callable[[nn.Module], None] | None:
    """What MODEL.INIT names; None where MODEL.INIT_WEIGHTS is False."""
    method = settings.choice(cfg, "MODEL.INIT", INITS, default="normal")
    return INITS[method] if settings.setting(cfg, "MODEL.INIT_WEIGHTS", True) else None


def _shortcut(in_channels: int, out_channels: int, stride: int) -> nn.Module:
    if stride == 1 and in_channels == out_channels:
        return nn.Identity()
    return nn.Sequential(
        nn.Conv2d(in_channels, out_channels, 1, stride, bias=False), nn.BatchNorm2d(out_channels)
    )
