"""Blocks shared by HRNet and its successors, which have branches of several resolutions.

Branch i has shape (N, C_i, H / 2^i, W / 2^i), where H and W are the size of branch 0.
"""

from collections.abc import Callable, Sequence

from torch import Tensor, nn

from lib.models.layers.blocks import Block, residual_layers
from lib.models.network import PoseNetwork

STEM_CHANNELS = 64
# (in_channels, out_channels, stride, with_relu) -> layers
ConvFactory = Callable[[int, int, int, bool], nn.Module]
# (in_channels, out_channels, number of times the size is doubled) -> layers
UpsampleFactory = Callable[[int, int, int], nn.Module]


class BranchedNetwork(PoseNetwork):
    """Base class with HRNet's stem (two strided convolutions) and ``layer1`` (residual blocks).

    A subclass adds the modules ``transition1``, ``stage2``, ``transition2``, ``stage3``, ...
    """

    num_stages = 4  # layer1 is the first

    def __init__(
        self, block: Block, channels: int, num_blocks: int, stem_channels: int = STEM_CHANNELS
    ) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, stem_channels, 3, stride=2, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(stem_channels)
        self.conv2 = nn.Conv2d(stem_channels, stem_channels, 3, stride=2, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(stem_channels)
        self.relu = nn.ReLU(inplace=True)
        self.layer1 = residual_layers(block, stem_channels, channels, num_blocks)

    def features(self, x: Tensor) -> list[Tensor]:
        """Run the backbone on images (N, 3, H, W) and return the branches of the last stage.

        H and W must be multiples of the stride of the coarsest branch, 32 with four stages.
        """
        x = self.relu(self.bn1(self.conv1(x)))
        branches = [self.layer1(self.relu(self.bn2(self.conv2(x))))]
        for i in range(1, self.num_stages):
            branches = getattr(self, f"transition{i}")(branches)
            branches = getattr(self, f"stage{i + 1}")(branches)
        return branches


class Transition(nn.ModuleList):
    """Convert the branches of one stage to those of the next.

    New branches are computed from the coarsest existing one.
    """

    def __init__(
        self, in_channels: Sequence[int], out_channels: Sequence[int], make_conv: ConvFactory
    ) -> None:
        super().__init__()
        for index, channels in enumerate(out_channels):
            if index >= len(in_channels):
                coarsest, extra = in_channels[-1], index - len(in_channels)
                downsampling = (make_conv(coarsest, coarsest, 2, True) for _ in range(extra))
                self.append(nn.Sequential(*downsampling, make_conv(coarsest, channels, 2, True)))
            elif in_channels[index] == channels:
                self.append(nn.Identity())
            else:
                self.append(make_conv(in_channels[index], channels, 1, True))

    def forward(self, x: list[Tensor]) -> list[Tensor]:
        return [layer(x[min(i, len(x) - 1)]) for i, layer in enumerate(self)]


class ExchangeModule(nn.Module):
    """Layers on each branch, followed by fusion across branches.

    Each output branch is the sum of all branches, converted to its size and channels.

    Args:
        branches: the layers of each branch.
        fuse_layers: for each output branch, the conversion of every input branch.
    """

    def __init__(self, branches: nn.ModuleList, fuse_layers: nn.ModuleList) -> None:
        super().__init__()
        self.branches = branches
        self.fuse_layers = fuse_layers
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x: list[Tensor]) -> list[Tensor]:
        x = [branch(item) for branch, item in zip(self.branches, x, strict=True)]
        if len(x) == 1:
            return x
        return [self._fuse(layers, x) for layers in self.fuse_layers]

    def _fuse(self, layers: nn.ModuleList, x: list[Tensor]) -> Tensor:
        # The first sum is a new tensor, so the in-place additions below change no branch.
        total = layers[0](x[0]) + layers[1](x[1])
        for i in range(2, len(x)):
            total += layers[i](x[i])
        return self.relu(total)


def fuse_layers(
    channels: Sequence[int],
    num_outputs: int,
    make_conv: ConvFactory,
    make_upsample: UpsampleFactory,
) -> nn.ModuleList:
    """Build the layers that fuse all branches into each of the first ``num_outputs`` branches.

    Entry [i][j] converts branch j to the size and channels of branch i.
    """

    def conversion(source: int, target: int) -> nn.Module:
        before, after = channels[source], channels[target]
        if source == target:
            return nn.Identity()
        if source > target:
            return make_upsample(before, after, source - target)
        # Each convolution halves the size. Only the last one changes the channels. It has no ReLU,
        # because the ReLU follows the sum.
        downsampling = (make_conv(before, before, 2, True) for _ in range(target - source - 1))
        return nn.Sequential(*downsampling, make_conv(before, after, 2, False))

    return nn.ModuleList(
        nn.ModuleList(conversion(source, target) for source in range(len(channels)))
        for target in range(num_outputs)
    )
