"""From a heatmap's highest pixel to coordinates between pixels.

Quarter of a pixel: lib/core/inference.py of leoxiaobin/deep-high-resolution-net.pytorch. DARK:
Zhang et al.: Distribution-Aware Coordinate Representation for Human Pose Estimation. CVPR 2020.
UDP: Huang et al.: The Devil Is in the Details. CVPR 2020. The numbers of the last two are those of
mmpose/codecs/utils/refinement.py in mmpose 1.x.

All take heatmaps (N, K, H, W), their maxima (N, K, 2) as x, y and the values there (N, K), and give
coords (N, K, 2) in heatmap pixels. They work on a batch, on its device. ``dark_step_1d`` does the
same with vectors.
"""

import functools
from collections.abc import Callable
from functools import partial

import cv2
import torch
from yacs.config import CfgNode

from lib.utils.errors import InputError

Refine = Callable[[torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]


def quarter_step(
    heatmaps: torch.Tensor, coords: torch.Tensor, scores: torch.Tensor | None = None
) -> torch.Tensor:
    """A quarter of a pixel toward the higher neighbour along x and y; none at the border."""
    height, width = heatmaps.shape[2:]
    x, y = coords[..., 0].long(), coords[..., 1].long()
    is_inside = (x > 1) & (x < width - 1) & (y > 1) & (y < height - 1)
    index = torch.where(is_inside, y * width + x, width + 1)
    around = torch.stack([index + 1, index - 1, index + width, index - width], dim=-1)
    value = heatmaps.flatten(2).gather(2, around)
    slope = torch.stack([value[..., 0] - value[..., 1], value[..., 2] - value[..., 3]], dim=-1)
    return coords + 0.25 * slope.sign() * is_inside[..., None]


def dark_step(
    heatmaps: torch.Tensor, coords: torch.Tensor, scores: torch.Tensor, kernel: int
) -> torch.Tensor:
    """One Newton step to the peak of the Gaussian whose logarithm the blurred map is; derivatives
    over two pixels, no step within two pixels of the border."""
    height, width = heatmaps.shape[2:]
    x, y = coords[..., 0].long(), coords[..., 1].long()
    is_inside = (x > 1) & (x < width - 2) & (y > 1) & (y < height - 2)
    x, y = torch.where(is_inside, x, 2), torch.where(is_inside, y, 2)
    blurred, gain = _blur(heatmaps, scores, kernel)

    def at(dx: int, dy: int) -> torch.Tensor:
        return _log_at(blurred, gain, x + dx, y + dy, 1e-10, torch.inf)

    middle = at(0, 0)
    slope = 0.5 * (at(1, 0) - at(-1, 0)), 0.5 * (at(0, 1) - at(0, -1))
    bend = (
        0.25 * (at(2, 0) - 2 * middle + at(-2, 0)),
        0.25 * (at(0, 2) - 2 * middle + at(0, -2)),
        0.25 * (at(1, 1) - at(-1, 1) - at(1, -1) + at(-1, -1)),
    )
    return coords - torch.where(is_inside[..., None], _newton(slope, bend), 0)


def udp_step(
    heatmaps: torch.Tensor, coords: torch.Tensor, scores: torch.Tensor, kernel: int
) -> torch.Tensor:
    """As ``dark_step``, with derivatives over one pixel, the border repeated, and values below
    0.001 taken for flat."""
    height, width = heatmaps.shape[2:]
    x, y = coords[..., 0].long(), coords[..., 1].long()
    blurred, gain = _blur(heatmaps, scores, kernel)

    def at(dx: int, dy: int) -> torch.Tensor:
        near = (x + dx).clamp(0, width - 1), (y + dy).clamp(0, height - 1)
        return _log_at(blurred, gain, *near, 1e-3, 50.0)

    middle, right, left, below, above = at(0, 0), at(1, 0), at(-1, 0), at(0, 1), at(0, -1)
    slope = 0.5 * (right - left), 0.5 * (below - above)
    bend = (
        right - 2 * middle + left,
        below - 2 * middle + above,
        0.5 * (at(1, 1) - right - below + 2 * middle - left - above + at(-1, -1)),
    )
    return coords - _newton(slope, bend, torch.finfo(torch.float32).eps)


def dark_step_1d(
    vectors: torch.Tensor, coords: torch.Tensor, scores: torch.Tensor, kernel: int
) -> torch.Tensor:
    """``dark_step`` for vectors (N, K, B), their maxima (N, K) and the values there (N, K); the
    border is repeated, and values below 0.001 are taken for flat."""
    length = vectors.shape[2]
    blurred = vectors @ _blur_matrix(length, kernel, vectors.device, vectors.dtype)
    gain = _gain(scores, blurred.amax(2))
    near = coords.long()[..., None] + torch.arange(-2, 3, device=coords.device)
    value = blurred.gather(2, near.clamp(0, length - 1)) * gain[..., None]
    left2, left, middle, right, right2 = value.clamp(1e-3, 50.0).log().unbind(2)
    bend = 0.25 * (right2 - 2 * middle + left2) + 1e-9
    step = 0.5 * (right - left) / bend
    return coords - step.clamp(-kernel / 2, kernel / 2)  # where it is nearly flat, not out of sight


def _newton(
    slope: tuple[torch.Tensor, ...], bend: tuple[torch.Tensor, ...], damping: float = 0.0
) -> torch.Tensor:
    """(N, K, 2): the inverse of the second derivatives (xx, yy, xy) times the first ones (x, y); 0
    where there is no inverse."""
    dx, dy = slope
    xx, yy, xy = bend[0] + damping, bend[1] + damping, bend[2]
    determinant = xx * yy - xy * xy
    step = torch.stack([yy * dx - xy * dy, xx * dy - xy * dx], dim=-1)
    is_regular = (determinant != 0)[..., None]
    return torch.where(is_regular, step / determinant[..., None], 0)


def _blur(
    heatmaps: torch.Tensor, scores: torch.Tensor, kernel: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """The maps blurred, zero beyond the border, and (N, K) the factors that would give them their
    old maxima back."""
    height, width = heatmaps.shape[2:]
    down = _blur_matrix(height, kernel, heatmaps.device, heatmaps.dtype)
    across = _blur_matrix(width, kernel, heatmaps.device, heatmaps.dtype)
    blurred = down @ heatmaps @ across
    return blurred, _gain(scores, blurred.flatten(2).amax(2))


def _gain(scores: torch.Tensor, highest: torch.Tensor) -> torch.Tensor:
    # A map without a positive value has no peak to give back: it becomes flat.
    return torch.where((scores > 0) & (highest > 0), scores / highest, 0)


@functools.lru_cache(maxsize=16)
def _blur_matrix(
    length: int, kernel: int, device: torch.device, dtype: torch.dtype
) -> torch.Tensor:
    """(length, length): a Gaussian blur along one axis as a product; symmetric. On every kind of
    device this is faster than a convolution of one channel."""
    with torch.inference_mode(False):  # it is kept, and an export cannot take such tensors
        weights = torch.from_numpy(cv2.getGaussianKernel(kernel, 0)[:, 0]).to(dtype)
        pixel = torch.arange(length, device="cpu")
        offset = pixel - pixel[:, None] + kernel // 2
        is_near = (offset >= 0) & (offset < kernel)
        return (weights[offset.clamp(0, kernel - 1)] * is_near).to(device)


def _log_at(
    maps: torch.Tensor,
    gain: torch.Tensor,
    x: torch.Tensor,
    y: torch.Tensor,
    low: float,
    high: float,
) -> torch.Tensor:
    """(N, K): the logarithm of ``gain`` times each map's value at x, y, kept in bounds."""
    index = (y * maps.shape[3] + x).clamp(max=maps.shape[2] * maps.shape[3] - 1)
    value = maps.flatten(2).gather(2, index[..., None])[..., 0]
    return (value * gain).clamp(low, high).log()


def blur_kernel(sigma: float) -> int:
    """The width of the blur that belongs to a Gaussian of that sigma: 11 for 2, 17 for 3."""
    return max(2 * int((sigma - 0.8) / 0.3 + 1) + 1, 3)


STEPS = ("quarter", "dark", "udp")


def build_refine(cfg: CfgNode, step: str) -> Refine | None:
    """What TEST.POST_PROCESS, TEST.REFINE and TEST.BLUR_KERNEL ask for; ``step`` where REFINE says
    nothing."""
    name = cfg.TEST.REFINE or step
    if name not in STEPS:
        raise InputError(f"TEST.REFINE: there is no {name!r}; known are {', '.join(STEPS)}")
    if not cfg.TEST.POST_PROCESS:
        return None
    if name == "quarter":
        return quarter_step
    kernel = chosen_blur(cfg, cfg.MODEL.SIGMA)
    return partial(dark_step if name == "dark" else udp_step, kernel=kernel)


def chosen_blur(cfg: CfgNode, sigma: float) -> int:
    """TEST.BLUR_KERNEL, or the width that belongs to ``sigma`` where it is 0."""
    kernel = cfg.TEST.BLUR_KERNEL
    if kernel and (kernel < 1 or kernel % 2 == 0):
        raise InputError(f"TEST.BLUR_KERNEL: must be an odd number of pixels or 0, not {kernel}")
    return kernel or blur_kernel(sigma)
