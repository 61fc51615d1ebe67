"""Sub-pixel refinement of the maxima of heatmaps.

Quarter pixel: lib/core/inference.py of leoxiaobin/deep-high-resolution-net.pytorch. DARK: Zhang et
al.: Distribution-Aware Coordinate Representation for Human Pose Estimation. CVPR 2020. UDP: Huang
et al.: The Devil Is in the Details. CVPR 2020. DARK and UDP are numerically equivalent to
mmpose/codecs/utils/refinement.py of mmpose 1.x.

The ``*_step`` functions take heatmaps (N, K, H, W), the positions (x, y) of their maxima (N, K, 2)
and the values of the maxima (N, K). They return coordinates (N, K, 2) in heatmap pixels, on the
device of the heatmaps. ``dark_step_1d`` does the same for vectors.
"""

from collections.abc import Callable
from functools import lru_cache, partial

import cv2
import torch
from torch import Tensor
from yacs.config import CfgNode

from lib.utils.errors import InputError

Refine = Callable[[Tensor, Tensor, Tensor], Tensor]


def quarter_step(heatmaps: Tensor, coords: Tensor, scores: Tensor | None = None) -> Tensor:
    """Move each maximum a quarter pixel toward the higher neighbour along x and y.

    As in the published code, maxima in the first two rows or columns, or in the last row or column,
    do not move.
    """
    height, width = heatmaps.shape[2:]
    x, y = coords[..., 0].long(), coords[..., 1].long()
    is_inside = (x > 1) & (x < width - 1) & (y > 1) & (y < height - 1)
    # Other maxima use pixel (1, 1), which has all neighbours. Its result is discarded.
    index = torch.where(is_inside, y * width + x, width + 1)
    neighbors = torch.stack([index + 1, index - 1, index + width, index - width], dim=-1)
    value = heatmaps.flatten(2).gather(2, neighbors)
    gradient = torch.stack([value[..., 0] - value[..., 1], value[..., 2] - value[..., 3]], dim=-1)
    return coords + 0.25 * gradient.sign() * is_inside[..., None]


def dark_step(heatmaps: Tensor, coords: Tensor, scores: Tensor, kernel: int) -> Tensor:
    """Take one Newton step toward the maximum of the logarithm of the blurred heatmap.

    Second derivatives use neighbours two pixels away. Maxima within two pixels of the border do not
    move.
    """
    height, width = heatmaps.shape[2:]
    x, y = coords[..., 0].long(), coords[..., 1].long()
    is_inside = (x > 1) & (x < width - 2) & (y > 1) & (y < height - 2)
    # Other maxima use pixel (2, 2), which has all neighbours. Its result is discarded.
    x, y = torch.where(is_inside, x, 2), torch.where(is_inside, y, 2)
    blurred, gain = _blur(heatmaps, scores, kernel)

    def at(dx: int, dy: int) -> Tensor:
        return _log_at(blurred, gain, x + dx, y + dy, 1e-10, torch.inf)

    middle = at(0, 0)
    gradient = 0.5 * (at(1, 0) - at(-1, 0)), 0.5 * (at(0, 1) - at(0, -1))
    hessian = (
        0.25 * (at(2, 0) - 2 * middle + at(-2, 0)),
        0.25 * (at(0, 2) - 2 * middle + at(0, -2)),
        0.25 * (at(1, 1) - at(-1, 1) - at(1, -1) + at(-1, -1)),
    )
    return coords - torch.where(is_inside[..., None], _newton(gradient, hessian), 0)


def udp_step(heatmaps: Tensor, coords: Tensor, scores: Tensor, kernel: int) -> Tensor:
    """Take a Newton step as ``dark_step`` does, with UDP's derivatives.

    Second derivatives use adjacent pixels. Neighbors beyond the border have the value of the
    nearest border pixel. Values are clamped to 0.001 to 50 before the logarithm.
    """
    height, width = heatmaps.shape[2:]
    x, y = coords[..., 0].long(), coords[..., 1].long()
    blurred, gain = _blur(heatmaps, scores, kernel)

    def at(dx: int, dy: int) -> Tensor:
        near = (x + dx).clamp(0, width - 1), (y + dy).clamp(0, height - 1)
        return _log_at(blurred, gain, *near, 1e-3, 50.0)

    middle, right, left, below, above = at(0, 0), at(1, 0), at(-1, 0), at(0, 1), at(0, -1)
    gradient = 0.5 * (right - left), 0.5 * (below - above)
    hessian = (
        right - 2 * middle + left,
        below - 2 * middle + above,
        0.5 * (at(1, 1) - right - below + 2 * middle - left - above + at(-1, -1)),
    )
    return coords - _newton(gradient, hessian, torch.finfo(torch.float32).eps)


def dark_step_1d(vectors: Tensor, coords: Tensor, scores: Tensor, kernel: int) -> Tensor:
    """Take a Newton step as ``dark_step`` does, in one dimension.

    Neighbors beyond the border have the value of the nearest bin. Values are clamped to 0.001 to 50
    before the logarithm. ``vectors`` are (N, K, bins), ``coords`` and ``scores`` (N, K).
    """
    length = vectors.shape[2]
    blurred = vectors @ _blur_matrix(length, kernel, vectors.device, vectors.dtype)
    gain = _gain(scores, blurred.amax(2))
    near = coords.long()[..., None] + torch.arange(-2, 3, device=coords.device)
    value = blurred.gather(2, near.clamp(0, length - 1)) * gain[..., None]
    left2, left, middle, right, right2 = value.clamp(1e-3, 50.0).log().unbind(2)
    hessian = 0.25 * (right2 - 2 * middle + left2) + 1e-9  # avoids division by 0
    step = 0.5 * (right - left) / hessian
    # Without a limit, the step would be huge where the vector is nearly flat.
    return coords - step.clamp(-kernel / 2, kernel / 2)


def _newton(
    gradient: tuple[Tensor, ...], hessian: tuple[Tensor, ...], damping: float = 0.0
) -> Tensor:
    """Return the inverse Hessian (xx, yy, xy) times the gradient (x, y), as (N, K, 2).

    ``damping`` is added to xx and yy. The result is 0 where the Hessian is singular.
    """
    dx, dy = gradient
    xx, yy, xy = hessian[0] + damping, hessian[1] + damping, hessian[2]
    determinant = xx * yy - xy * xy
    step = torch.stack([yy * dx - xy * dy, xx * dy - xy * dx], dim=-1)
    is_invertible = (determinant != 0)[..., None]
    return torch.where(is_invertible, step / determinant[..., None], 0)


def _blur(heatmaps: Tensor, scores: Tensor, kernel: int) -> tuple[Tensor, Tensor]:
    """Blur heatmaps, with zeros beyond the border.

    Returns the blurred heatmaps, and factors (N, K) that restore their maxima.
    """
    height, width = heatmaps.shape[2:]
    down = _blur_matrix(height, kernel, heatmaps.device, heatmaps.dtype)
    across = _blur_matrix(width, kernel, heatmaps.device, heatmaps.dtype)
    blurred = down @ heatmaps @ across
    return blurred, _gain(scores, blurred.flatten(2).amax(2))


def _gain(scores: Tensor, highest: Tensor) -> Tensor:
    # A heatmap without a positive value has no maximum to restore and becomes flat.
    return torch.where((scores > 0) & (highest > 0), scores / highest, 0)


@lru_cache(maxsize=16)
def _blur_matrix(length: int, kernel: int, device: torch.device, dtype: torch.dtype) -> Tensor:
    """Return a symmetric matrix (length, length) that blurs one axis with a Gaussian.

    Multiplying by it is faster than a convolution, on CPU and GPU.
    """
    # Inference mode is off, because the matrix is cached and inference tensors cannot be exported.
    with torch.inference_mode(False):
        weights = torch.from_numpy(cv2.getGaussianKernel(kernel, 0)[:, 0]).to(dtype)
        pixel = torch.arange(length, device="cpu")
        offset = pixel - pixel[:, None] + kernel // 2
        is_in_kernel = (offset >= 0) & (offset < kernel)
        return (weights[offset.clamp(0, kernel - 1)] * is_in_kernel).to(device)


def _log_at(maps: Tensor, gain: Tensor, x: Tensor, y: Tensor, low: float, high: float) -> Tensor:
    """Return the logarithm (N, K) of ``gain`` times each map's value at x, y, after clamping."""
    index = (y * maps.shape[3] + x).clamp(max=maps.shape[2] * maps.shape[3] - 1)
    value = maps.flatten(2).gather(2, index[..., None])[..., 0]
    return (value * gain).clamp(low, high).log()


def blur_kernel(sigma: float) -> int:
    """Return the kernel size for a target's sigma, by OpenCV's relation between the two.

    It gives the sizes in mmpose's configurations: 11 for sigma 2, and 17 for sigma 3.
    """
    return max(2 * int((sigma - 0.8) / 0.3 + 1) + 1, 3)


METHODS = ("quarter", "dark", "udp")  # values of TEST.REFINE


def build_refinement(cfg: CfgNode, default: str) -> Refine | None:
    """Build the refinement named by TEST.REFINE or, if that is empty, by ``default``.

    Returns None if TEST.POST_PROCESS is False.

    Raises:
        InputError: the name is unknown, or the kernel size is invalid.
    """
    name = cfg.TEST.REFINE or default
    if name not in METHODS:
        raise InputError(f"TEST.REFINE: unknown method {name!r}; choose from {', '.join(METHODS)}")
    if not cfg.TEST.POST_PROCESS:
        return None
    if name == "quarter":
        return quarter_step
    kernel = configured_kernel(cfg, cfg.MODEL.SIGMA)
    return partial(dark_step if name == "dark" else udp_step, kernel=kernel)


def configured_kernel(cfg: CfgNode, sigma: float) -> int:
    """Return TEST.BLUR_KERNEL or, if that is 0, the kernel size for ``sigma``."""
    kernel = cfg.TEST.BLUR_KERNEL
    if kernel and (kernel < 1 or kernel % 2 == 0):
        raise InputError(f"TEST.BLUR_KERNEL: must be an odd number of pixels or 0, not {kernel}")
    return kernel or blur_kernel(sigma)
