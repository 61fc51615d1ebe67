"""Losses over heatmaps (lib/core/loss.py of leoxiaobin/deep-high-resolution-net.pytorch)."""

import torch


def joints_mse(
    heatmaps: torch.Tensor, target: torch.Tensor, weight: torch.Tensor | None
) -> torch.Tensor:
    """Return half the mean squared error of heatmaps.

    Args:
        heatmaps, target: (N, K, H, W).
        weight: (N, K), multiplied with heatmaps and target; None for equal weights.
    """
    return 0.5 * _squared_error(heatmaps, target, weight).mean()


def joints_ohkm_mse(
    heatmaps: torch.Tensor, target: torch.Tensor, weight: torch.Tensor | None, topk: int
) -> torch.Tensor:
    """Return ``joints_mse`` over the ``topk`` joints with the highest loss of each person."""
    per_joint = 0.5 * _squared_error(heatmaps, target, weight).mean(dim=(2, 3))
    return per_joint.topk(topk, dim=1).values.mean()


def _squared_error(
    heatmaps: torch.Tensor, target: torch.Tensor, weight: torch.Tensor | None
) -> torch.Tensor:
    difference = heatmaps - target
    if weight is not None:
        difference = difference * weight[:, :, None, None]
    return difference.square()
