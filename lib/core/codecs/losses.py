"""Losses over heatmaps (lib/core/loss.py of leoxiaobin/deep-high-resolution-net.pytorch)."""

import torch


def joints_mse(
    heatmaps: torch.Tensor, target: torch.Tensor, weight: torch.Tensor | None
) -> torch.Tensor:
    """Half the mean squared difference; ``weight`` (N, K), or None for 1, scales both maps first.

    Args:
        heatmaps, target: (N, K, H, W).
    """
    return 0.5 * _squared_error(heatmaps, target, weight).mean()


def joints_ohkm_mse(
    heatmaps: torch.Tensor, target: torch.Tensor, weight: torch.Tensor | None, topk: int
) -> torch.Tensor:
    """As ``joints_mse``, over the ``topk`` joints of each person that are worst."""
    per_joint = 0.5 * _squared_error(heatmaps, target, weight).mean(dim=(2, 3))
    return per_joint.topk(topk, dim=1).values.mean()


def _squared_error(
    heatmaps: torch.Tensor, target: torch.Tensor, weight: torch.Tensor | None
) -> torch.Tensor:
    difference = heatmaps - target
    if weight is not None:
        difference = difference * weight[:, :, None, None]
    return difference.square()
