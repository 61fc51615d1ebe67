"""SimpleBaseline: a ResNet followed by deconvolutions.

Xiao, Wu, Wei: Simple Baselines for Human Pose Estimation and Tracking (ECCV 2018). Parameter names
and arithmetic follow lib/models/pose_resnet.py in leoxiaobin/deep-high-resolution-net.pytorch.
"""

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
    """ResNet backbone of SimpleBaseline; the deconvolutions are in the head.

    Args:
        depth: a key of DEPTHS.
    """

    feature_strides = (4, 8, 16, 32)
    main_level = -1

    def __init__(self, depth: int) -> None:
        super().__init__()
        block, num_blocks = DEPTHS[depth]
        self.feature_channels = tuple(block.expansion * c for c in (64, 128, 256, 512))
        c1, c2, c3, _ = self.feature_channels
        self.conv1 = nn.Conv2d(3, 64, 7, stride=2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.MaxPool2d(3, stride=2, padding=1)
        self.layer1 = residual_layers(block, 64, 64, num_blocks[0])
        self.layer2 = residual_layers(block, c1, 128, num_blocks[1], stride=2)
        self.layer3 = residual_layers(block, c2, 256, num_blocks[2], stride=2)
        self.layer4 = residual_layers(block, c3, 512, num_blocks[3], stride=2)

    def features(self, x: Tensor) -> list[Tensor]:
        """Return the outputs of the four stages for images (N, 3, H, W).

        H and W must be multiples of 32.
        """
        x = self.maxpool(self.relu(self.bn1(self.conv1(x))))
        c1 = self.layer1(x)
        c2 = self.layer2(c1)
        c3 = self.layer3(c2)
        return [c1, c2, c3, self.layer4(c3)]


def build(cfg: CfgNode) -> PoseResNet:
    """Build the backbone from MODEL.EXTRA.

    Raises:
        InputError: if a setting is invalid. The message names its key.
    """
    size = settings.get(cfg, "MODEL.IMAGE_SIZE", (256, 256))
    is_valid = all(side % 32 == 0 for side in size)
    settings.require(is_valid, "MODEL.IMAGE_SIZE", "multiples of 32 for pose_resnet", list(size))
    return PoseResNet(settings.choice(cfg, "MODEL.EXTRA.NUM_LAYERS", DEPTHS))
