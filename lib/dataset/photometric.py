"""Photometric augmentation of a batch of images, on their device.

Geometric augmentation is in lib/dataset/top_down.py and bottom_up.py.
"""

import math
from dataclasses import dataclass, fields

import cv2
import numpy as np
import scipy.fft
import torch
import torch.nn.functional as F
from torch import Tensor
from yacs.config import CfgNode

from lib.utils.devices import to_like

LUMINANCE = (0.299, 0.587, 0.114)  # RGB weights, ITU-R BT.601
BLUR_WIDTH = 9  # kernel size in pixels
# Quantization tables of luminance and chrominance at quality 50: ITU-T T.81, tables K.1 and K.2.
_LUMINANCE_TABLE = """
16 11 10 16 24 40 51 61  12 12 14 19 26 58 60 55  14 13 16 24 40 57 69 56  14 17 22 29 51 87 80 62
18 22 37 56 68 109 103 77  24 35 55 64 81 104 113 92  49 64 78 87 103 121 120 101
72 92 95 98 112 100 103 99"""
_CHROMINANCE_TABLE = f"""
17 18 24 47 99 99 99 99  18 21 26 66 99 99 99 99  24 26 56 99 99 99 99 99  47 66 99 99 99 99 99 99
{"99 " * 32}"""


@dataclass(frozen=True)
class Photometric:
    """Random photometric augmentation of uint8 RGB images (N, 3, H, W).

    Each field is the probability of one kind of change.
    """

    color: float = 0.0  # jitter of exposure, contrast, gamma, white balance, saturation and hue
    gray: float = 0.0  # grayscale
    blur: float = 0.0  # Gaussian blur with a standard deviation of 0.4 to 2 pixels
    noise: float = 0.0  # Gaussian noise with a standard deviation of 3 to 25 (of 255)
    jpeg: float = 0.0  # JPEG block quantization at quality 15 to 60
    # One to three rectangles, with sides of 8 % to 35 % of the image's, are filled with a random
    # color. Half of them also get noise.
    erase: float = 0.0

    def __call__(self, images: Tensor, seed: tuple[int, ...]) -> Tensor:
        """Return augmented ``images``, reproducible for a given ``seed`` and device."""
        if not any(getattr(self, field.name) for field in fields(self)):
            return images
        # All random numbers except noise are drawn on the CPU. If they were drawn on a GPU, or if
        # copies to it were blocking, the CPU would have to wait for the GPU.
        rng = np.random.default_rng(seed)
        device_rng = torch.Generator(images.device).manual_seed(int(rng.integers(2**62)))
        changed = images.float()
        for change, probability in (
            (_erase, self.erase),
            (_color, self.color),
            (_gray, self.gray),
            (_blur, self.blur),
            (_noise, self.noise),
            (_jpeg, self.jpeg),
        ):
            rows = np.flatnonzero(rng.random(len(images)) < probability)
            if len(rows):
                index = torch.from_numpy(rows).to(images.device, non_blocking=True)
                changed[index] = change(changed[index], rng, device_rng).clamp_(0, 255)
        return changed.round_().to(torch.uint8)


def photometric_of(cfg: CfgNode) -> Photometric:
    """Build the photometric augmentation given by DATASET.PROB_*."""
    return Photometric(
        **{field.name: cfg.DATASET[f"PROB_{field.name.upper()}"] for field in fields(Photometric)}
    )


def _column(values: np.ndarray, like: Tensor) -> Tensor:
    """Convert one value per image, (N,), to a tensor (N, 1, 1, 1) on the device of ``like``."""
    return to_like(torch.from_numpy(values.astype(np.float32)), like).view(-1, 1, 1, 1)


def _color(images: Tensor, rng: np.random.Generator, _: torch.Generator) -> Tensor:
    count = len(images)
    saturation = rng.uniform(0.1, 1.9, count)
    hue = np.deg2rad(np.clip(rng.normal(0, 20, count), -60, 60))
    gains = np.exp(rng.normal(0, 0.12, (count, 3)) + rng.normal(0, 0.2, (count, 1)))
    matrices = np.stack(
        [np.diag(g) @ _hue_saturation(h, s) for g, h, s in zip(gains, hue, saturation, strict=True)]
    )
    matrices = to_like(torch.from_numpy(matrices.astype(np.float32)), images)
    images = torch.einsum("nij,njhw->nihw", matrices, images)
    contrast = _column(np.exp(rng.normal(0, 0.25, count)), images)
    mean = images.mean((1, 2, 3), keepdim=True)
    images = (images - mean) * contrast + mean + _column(rng.normal(0, 12, count), images)
    gamma = _column(np.exp(rng.normal(0, 0.2, count)), images)
    return 255 * (images.clamp_(0, 255) / 255) ** gamma


def _hue_saturation(angle: float, saturation: float) -> np.ndarray:
    """Return the (3, 3) matrix that rotates the hue of RGB by ``angle`` (radians) and scales its
    saturation."""
    gray = np.ones((3, 1)) * LUMINANCE
    rotation, _ = cv2.Rodrigues(np.full(3, angle / math.sqrt(3)))  # about the gray axis
    return gray + saturation * rotation @ (np.eye(3) - gray)


def _gray(images: Tensor, _: np.random.Generator, __: torch.Generator) -> Tensor:
    weights = to_like(torch.tensor(LUMINANCE), images).view(1, 3, 1, 1)
    return (images * weights).sum(1, keepdim=True).expand(-1, 3, -1, -1).clone()


def _blur(images: Tensor, rng: np.random.Generator, _: torch.Generator) -> Tensor:
    count, channels, height, width = images.shape
    offsets = torch.arange(BLUR_WIDTH, device=images.device) - BLUR_WIDTH // 2
    sigma = _column(rng.uniform(0.4, 2.0, count), images).view(-1, 1)
    kernels = torch.softmax(-(offsets**2) / (2 * sigma**2), dim=1).repeat_interleave(channels, 0)
    planes = images.reshape(1, -1, height, width)
    margin = BLUR_WIDTH // 2
    for shape, pad in (
        ((1, BLUR_WIDTH), (margin, margin, 0, 0)),
        ((BLUR_WIDTH, 1), (0, 0, margin, margin)),
    ):
        planes = F.pad(planes, pad, mode="replicate")
        planes = F.conv2d(planes, kernels.view(-1, 1, *shape), groups=len(kernels))
    return planes.view_as(images)


def _noise(images: Tensor, rng: np.random.Generator, device_rng: torch.Generator) -> Tensor:
    sigma = _column(rng.uniform(3, 25, len(images)), images)
    noise = torch.randn(images.shape, generator=device_rng, device=images.device)
    return images + sigma * noise


def _jpeg(images: Tensor, rng: np.random.Generator, _: torch.Generator) -> Tensor:
    height, width = images.shape[2:]
    quality = rng.uniform(15, 60, len(images))
    # The factor by which libjpeg scales the quantization tables at a given quality.
    scale = _column(np.where(quality < 50, 50 / quality, 2 - quality / 50), images)
    tables = torch.stack(
        [_table(t) for t in (_LUMINANCE_TABLE, _CHROMINANCE_TABLE, _CHROMINANCE_TABLE)]
    )
    steps = (to_like(tables, images) * scale).clamp(min=1)[:, :, None, None]
    to_ycc = torch.tensor([LUMINANCE, (-0.168736, -0.331264, 0.5), (0.5, -0.418688, -0.081312)])
    planes = torch.einsum("ij,njhw->nihw", to_like(to_ycc, images), images - 128)
    planes = F.pad(planes, (0, -width % 8, 0, -height % 8), mode="replicate")
    # The (8, 8) matrix of the orthonormal discrete cosine transform.
    transform = to_like(torch.from_numpy(scipy.fft.dct(np.eye(8), axis=0, norm="ortho")), images)
    blocks = planes.unflatten(3, (-1, 8)).unflatten(2, (-1, 8)).transpose(3, 4)
    blocks = transform @ blocks @ transform.T
    blocks = (blocks / steps).round_() * steps
    blocks = transform.T @ blocks @ transform
    planes = blocks.transpose(3, 4).flatten(4, 5).flatten(2, 3)[:, :, :height, :width]
    return torch.einsum("ij,njhw->nihw", to_like(torch.linalg.inv(to_ycc), images), planes) + 128


def _table(text: str) -> Tensor:
    return torch.tensor([float(word) for word in text.split()]).view(8, 8)


def _erase(images: Tensor, rng: np.random.Generator, device_rng: torch.Generator) -> Tensor:
    sides = np.array(images.shape[:1:-1])  # width, height
    for image in images:
        for _ in range(rng.integers(1, 4)):
            size = np.maximum(sides * rng.uniform(0.08, 0.35, 2), 1).astype(int)
            x, y = (rng.random(2) * (sides - size + 1)).astype(int)
            patch = image[:, y : y + size[1], x : x + size[0]]
            color = torch.from_numpy(rng.uniform(0, 255, (3, 1, 1)).astype(np.float32))
            patch.copy_(to_like(color, image).expand_as(patch))
            if rng.random() < 0.5:
                noise = torch.randn(patch.shape, generator=device_rng, device=image.device)
                patch.add_(float(rng.uniform(10, 80)) * noise)
    return images
