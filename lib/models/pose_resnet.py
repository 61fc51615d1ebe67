"""SimpleBaseline: a ResNet and a few deconvolutions.

Xiao, Wu, Wei: Simple Baselines for Human Pose Estimation and Tracking (ECCV 2018). State-dict names
and arithmetic are those of lib/models/pose_resnet.py in
leoxiaobin/deep-high-resolution-net.pytorch.
"""

from torch import Tensor, nn
from yacs.config import CfgNode

from lib.models import settings
from lib.models.blocks import BasicBlock, Block, Bottleneck, residual_layers
from lib.models.network import PoseNetwork

# Depth: the kind of block, and how many of them each of the four layers has.
DEPTHS: dict[int, tuple[Block, tuple[int, int, int, int]]] = {
    18: (BasicBlock, (2, 2, 2, 2)),
    34: (BasicBlock, (3, 4, 6, 3)),
    50: (Bottleneck, (3, 4, 6, 3)),
    101: (Bottleneck, (3, 4, 23, 3)),
    152: (Bottleneck, (3, 8, 36, 3)),
}


class PoseResNet(PoseNetwork):
    """A ResNet of ``depth`` (a key of DEPTHS); its head has the deconvolutions."""

    feature_strides = (4, 8, 16, 32)
    main_level = -1

    def __init__(self, depth: int) -> None:
        super().__init__()
        block, lengths = DEPTHS[depth]
        self.feature_channels = tuple(block.expansion * c for c in (64, 128, 256, 512))
        c1, c2, c3, _ = self.feature_channels
        self.conv1 = nn.Conv2d(3, 64, 7, stride=2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.MaxPool2d(3, stride=2, padding=1)
        self.layer1 = residual_layers(block, 64, 64, lengths[0])
        self.layer2 = residual_layers(block, c1, 128, lengths[1], stride=2)
        self.layer3 = residual_layers(block, c2, 256, lengths[2], stride=2)
        self.layer4 = residual_layers(block, c3, 512, lengths[3], stride=2)

    def features(self, x: Tensor) -> list[Tensor]:
        """Images (N, 3, H, W), H and W multiples of 32 -> the four layers' outputs."""
        x = self.maxpool(self.relu(self.bn1(self.conv1(x))))
        c1 = self.layer1(x)
        c2 = self.layer2(c1)
        c3 = self.layer3(c2)
        return [c1, c2, c3, self.layer4(c3)]


def build(cfg: CfgNode) -> PoseResNet:
    """The backbone that MODEL.EXTRA describes.

    Raises:
        InputError: a value that cannot be built; the message names its key.
    """
    size = settings.setting(cfg, "MODEL.IMAGE_SIZE", (256, 256))
    is_fitting = all(side % 32 == 0 for side in size)
    settings.require(is_fitting, "MODEL.IMAGE_SIZE", "multiples of 32 for pose_resnet", list(size))
    return PoseResNet(settings.choice(cfg, "MODEL.EXTRA.NUM_LAYERS", DEPTHS))
