"""SimpleBaseline: a ResNet and a few deconvolutions.

Xiao, Wu, Wei: Simple Baselines for Human Pose Estimation and Tracking (ECCV 2018). State-dict names
and arithmetic are those of lib/models/pose_resnet.py in
leoxiaobin/deep-high-resolution-net.pytorch.
"""

from collections.abc import Sequence

from torch import Tensor, nn
from yacs.config import CfgNode

from lib.models import settings
from lib.models.blocks import (
    BasicBlock,
    Block,
    Bottleneck,
    heatmap_layer,
    init_weights,
    residual_layers,
)

# Depth: the kind of block, and how many of them each of the four layers has.
DEPTHS: dict[int, tuple[Block, tuple[int, int, int, int]]] = {
    18: (BasicBlock, (2, 2, 2, 2)),
    34: (BasicBlock, (3, 4, 6, 3)),
    50: (Bottleneck, (3, 4, 6, 3)),
    101: (Bottleneck, (3, 4, 23, 3)),
    152: (Bottleneck, (3, 8, 36, 3)),
}

# Kernel: the padding and output padding with which a deconvolution of stride 2 doubles the size.
DECONV_PADDING = {2: (0, 0), 3: (1, 1), 4: (1, 0)}


class PoseResNet(nn.Module):
    """A ResNet of ``depth`` (a key of DEPTHS), then a deconvolution for each of ``deconv_filters``.

    ``feature_channels`` are the channels of what ``features`` returns.
    """

    def __init__(
        self,
        depth: int,
        num_joints: int,
        deconv_filters: Sequence[int] = (256, 256, 256),
        deconv_kernels: Sequence[int] = (4, 4, 4),
        deconv_bias: bool = False,
        final_kernel: int = 1,
    ) -> None:
        super().__init__()
        block, lengths = DEPTHS[depth]
        self.feature_channels = tuple(block.expansion * c for c in (64, 128, 256, 512))
        c1, c2, c3, c4 = self.feature_channels
        self.conv1 = nn.Conv2d(3, 64, 7, stride=2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.MaxPool2d(3, stride=2, padding=1)
        self.layer1 = residual_layers(block, 64, 64, lengths[0])
        self.layer2 = residual_layers(block, c1, 128, lengths[1], stride=2)
        self.layer3 = residual_layers(block, c2, 256, lengths[2], stride=2)
        self.layer4 = residual_layers(block, c3, 512, lengths[3], stride=2)
        self.deconv_layers = deconvolutions(c4, deconv_filters, deconv_kernels, deconv_bias)
        self.final_layer = heatmap_layer(deconv_filters[-1], num_joints, final_kernel)

    def features(self, x: Tensor) -> list[Tensor]:
        """Images (N, 3, H, W) -> the four layers' outputs, at strides 4, 8, 16 and 32."""
        x = self.maxpool(self.relu(self.bn1(self.conv1(x))))
        c1 = self.layer1(x)
        c2 = self.layer2(c1)
        c3 = self.layer3(c2)
        return [c1, c2, c3, self.layer4(c3)]

    def forward(self, x: Tensor) -> Tensor:
        """Normalised images (N, 3, H, W) -> heatmaps (N, K, H/4, W/4) with three deconvolutions.

        H and W are multiples of 32.
        """
        return self.final_layer(self.deconv_layers(self.features(x)[-1]))


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


def build(cfg: CfgNode) -> PoseResNet:
    """The network that MODEL.EXTRA describes.

    Raises:
        InputError: a value that cannot be built; the message names its key.
    """
    extra = "MODEL.EXTRA"
    length_key = f"{extra}.NUM_DECONV_LAYERS"
    length = settings.count(cfg, length_key)
    kernels_key = f"{extra}.NUM_DECONV_KERNELS"
    kernels = settings.counts(cfg, kernels_key, length, length_key)
    settings.require(set(kernels) <= set(DECONV_PADDING), kernels_key, "of 2, 3 and 4", kernels)
    network = PoseResNet(
        depth=settings.choice(cfg, f"{extra}.NUM_LAYERS", DEPTHS),
        num_joints=settings.count(cfg, "MODEL.NUM_JOINTS"),
        deconv_filters=settings.counts(cfg, f"{extra}.NUM_DECONV_FILTERS", length, length_key),
        deconv_kernels=kernels,
        deconv_bias=bool(settings.setting(cfg, f"{extra}.DECONV_WITH_BIAS", False)),
        final_kernel=settings.choice(cfg, f"{extra}.FINAL_CONV_KERNEL", (1, 3), default=1),
    )
    init_weights(network, cfg)
    return network
