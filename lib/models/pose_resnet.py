"""SimpleBaseline: a ResNet followed by deconvolutions.

Xiao, Wu, Wei: Simple Baselines for Human Pose Estimation and Tracking (ECCV 2018). Parameter names
and arithmetic follow lib/models/pose_resnet.py in leoxiaobin/deep-high-resolution-net.pytorch.
"""

from collections.abc import Sequence

from torch import Tensor, nn
from yacs.config import CfgNode

from lib.models import settings
from lib.models.layers.blocks import BasicBlock, Block, Bottleneck, residual_layers
from lib.models.network import PoseNetwork

# Depth: block type and number of blocks in each of the four stages.
DEPTHS: dict[int, tuple[Block, tuple[int, int, int, int]]] = {
    18: (BasicBlock, (2, 2, 2, 2)),
    34: (BasicBlock, (3, 4, 6, 3)),
    50: (Bottleneck, (3, 4, 6, 3)),
    101: (Bottleneck, (3, 4, 23, 3)),
    152: (Bottleneck, (3, 8, 36, 3)),
}


class PoseResNet(PoseNetwork):
    """ResNet backbone of SimpleBaseline; the deconvolutions are in the head."""

    main_level = -1

    def __init__(self, block: Block, num_blocks: Sequence[int]) -> None:
        super().__init__()
        self.num_stages = len(num_blocks)
        self.feature_strides = (4, 8, 16, 32)[: self.num_stages]
        self.feature_channels = tuple(block.expansion * 64 << i for i in range(self.num_stages))
        self.conv1 = nn.Conv2d(3, 64, 7, stride=2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.MaxPool2d(3, stride=2, padding=1)
        in_channels = (64, *self.feature_channels)
        for i, count in enumerate(num_blocks):
            layers = residual_layers(block, in_channels[i], 64 << i, count, stride=2 if i else 1)
            self.add_module(f"layer{i + 1}", layers)

    def features(self, x: Tensor) -> list[Tensor]:
        """Return the outputs of the stages for images (N, 3, H, W).

        H and W must be multiples of the last stride.
        """
        x = self.maxpool(self.relu(self.bn1(self.conv1(x))))
        maps = []
        for i in range(self.num_stages):
            x = getattr(self, f"layer{i + 1}")(x)
            maps.append(x)
        return maps


def build(cfg: CfgNode) -> PoseResNet:
    """Build the backbone from MODEL.EXTRA; raises InputError if a setting is invalid."""
    settings.require_image_size(cfg, 32)
    return PoseResNet(*DEPTHS[settings.choice(cfg, "MODEL.EXTRA.NUM_LAYERS", DEPTHS)])
