"""HigherHRNet's head.

Cheng et al.: HigherHRNet: Scale-Aware Representation Learning for Bottom-Up Human Pose Estimation.
CVPR 2020. Parameter names and arithmetic follow lib/models/pose_higher_hrnet.py in
HRNet/HigherHRNet-Human-Pose-Estimation.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from lib.models.heads.layers import Head, deconvolution
from lib.models.layers.blocks import BasicBlock


class HigherHead(Head):
    """HigherHRNet's head: heatmaps and tags, then heatmaps at twice the resolution after each step.

    A step is a deconvolution and ``num_blocks`` residual blocks. ``channels``, ``kernels`` (of the
    deconvolutions) and ``uses_output`` have one entry per step. With ``uses_output``, the input of
    a step includes the previous output.
    """

    def __init__(
        self,
        in_channels: int,
        num_joints: int,
        channels: Sequence[int],
        kernels: Sequence[int],
        uses_output: Sequence[bool],
        num_blocks: int,
        final_kernel: int,
    ) -> None:
        super().__init__()
        self.uses_output = tuple(uses_output)
        widths = (in_channels, *channels)
        outputs = (2 * num_joints, *(num_joints for _ in channels))
        padding = final_kernel // 2
        self.final_layers = nn.ModuleList(
            nn.Conv2d(width, count, final_kernel, padding=padding)
            for width, count in zip(widths, outputs, strict=True)
        )
        steps = zip(widths, outputs, channels, kernels, uses_output, strict=False)
        self.deconv_layers = nn.ModuleList(
            nn.Sequential(
                deconvolution(width + count * uses, out, kernel, bias=False),
                *(nn.Sequential(BasicBlock(out, out)) for _ in range(num_blocks)),
            )
            for width, count, out, kernel, uses in steps
        )

    def output_layers(self) -> list[nn.Module]:
        return list(self.final_layers)

    def forward(self, features: list[Tensor]) -> list[Tensor]:
        x = features[0]
        outputs = [self.final_layers[0](x)]
        steps = zip(self.deconv_layers, self.final_layers[1:], self.uses_output, strict=True)
        for step, final, uses in steps:
            x = step(torch.cat([x, outputs[-1]], dim=1) if uses else x)
            outputs.append(final(x))
        return outputs
