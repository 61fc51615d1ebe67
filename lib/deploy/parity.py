"""How far a backend's keypoints are from PyTorch's, on the same crops."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from yacs.config import CfgNode

from lib.core.backends import Backend, TorchBackend
from lib.core.codecs.codec import Outputs
from lib.dataset import build_dataset, crop_of
from lib.dataset.top_down import crop_image
from lib.figures.drawing import draw_scene
from lib.keypoints.geometry import box_to_center_scale
from lib.utils.errors import InputError

NOISE = 1e-3  # of the outputs' standard deviation
DRAWS = 4
STABLE_DISTANCE = 0.05  # pixels that a stable joint may move under the noise


@dataclass(frozen=True)
class Difference:
    """Distances in crop pixels, the largest and the mean, over all ``joints`` and over the
    ``stable`` ones; the largest difference of scores, as a share of the largest score."""

    largest: float
    mean: float
    stable_largest: float
    scores: float
    joints: int
    stable: int


def difference(backend: Backend, reference: TorchBackend, crops: Tensor) -> Difference:
    """Compare on crops (N, 3, H, W).

    A joint is stable if noise far above the rounding of a backend leaves it where it is in the
    reference. Others have two maxima as good as equal, which an untrained network often has: which
    of them wins says nothing of a backend.
    """
    outputs = reference.outputs(crops)
    keypoints, scores = (value.cpu() for value in reference.codec.decode(outputs))
    found, found_scores = backend(crops)
    distance = torch.linalg.vector_norm(found - keypoints, dim=-1)
    is_stable = stable(reference, outputs, keypoints)
    left = distance[is_stable]
    spread = float(scores.abs().max().clamp(min=torch.finfo(torch.float32).tiny))
    return Difference(
        float(distance.max()),
        float(distance.mean()),
        float(left.max()) if len(left) else 0.0,
        float((found_scores - scores).abs().max()) / spread,
        distance.numel(),
        len(left),
    )


def stable(reference: TorchBackend, outputs: Outputs, keypoints: Tensor) -> Tensor:
    """(N, K): whether noise leaves a joint where it is."""
    generator = torch.Generator().manual_seed(0)

    def noisy(output: Tensor) -> Tensor:
        noise = torch.randn(output.shape, generator=generator).to(output.device)
        return output + NOISE * output.std() * noise

    is_stable = torch.ones(keypoints.shape[:2], dtype=torch.bool)
    for _ in range(DRAWS):
        moved, _ = reference.codec.decode(tuple(map(noisy, outputs)))
        distance = torch.linalg.vector_norm(moved.cpu() - keypoints, dim=-1)
        is_stable &= distance < STABLE_DISTANCE
    return is_stable


def random_crops(size: Sequence[int], count: int) -> Tensor:
    """Random crops, uint8 (count, 3, H, W), of ``size`` (width, height); the same each time."""
    width, height = size
    generator = torch.Generator().manual_seed(1)
    return torch.randint(0, 256, (count, 3, height, width), dtype=torch.uint8, generator=generator)


def real_crops(cfg: CfgNode, count: int) -> tuple[Tensor, str]:
    """``count`` people, uint8 (count, 3, H, W), and where they are from: the experiment's test set,
    spread over it, or drawn figures where that is not here."""
    try:
        dataset = build_dataset(cfg, cfg.DATASET.TEST_SET, is_train=False)
        rows = np.linspace(0, len(dataset) - 1, count).astype(int)  # of few people some twice
        crops = torch.stack([dataset[int(row)]["image"] for row in rows])
        return crops, f"{cfg.DATASET.DATASET} {cfg.DATASET.TEST_SET}"
    except InputError:
        return drawn_crops(cfg, count), "drawn figures"


def drawn_crops(cfg: CfgNode, count: int) -> Tensor:
    """Figures drawn on the spot, uint8 (count, 3, H, W)."""
    crop = crop_of(cfg)
    crops: list[Tensor] = []
    index = 0
    while len(crops) < count:
        image, people = draw_scene(0, "val", index)
        index += 1
        boxes = np.array([person["bbox"] for person in people], np.float64).reshape(-1, 4)
        bgr = np.ascontiguousarray(image[..., ::-1])
        for center, scale in zip(*box_to_center_scale(boxes, crop.aspect_ratio), strict=True):
            crops.append(torch.from_numpy(crop_image(bgr, crop.matrix(center, scale), crop.size)))
    return torch.stack(crops[:count])
