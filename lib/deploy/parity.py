"""Parity checks: differences between a backend's results and PyTorch's, on the same images."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from yacs.config import CfgNode

from lib.core.backends import Backend, TorchBackend
from lib.core.bottom_up import BottomUp
from lib.core.codecs.codec import Outputs
from lib.core.codecs.grouping import Candidates
from lib.dataset import build_dataset, crop_of
from lib.dataset.bottom_up import scene_batch
from lib.dataset.loading import Batch
from lib.dataset.top_down import crop_image
from lib.figures.drawing import draw_scene
from lib.keypoints.geometry import box_to_center_scale
from lib.utils.errors import InputError

NOISE_SCALE = 1e-3  # relative to the outputs' standard deviation
NOISE_SAMPLES = 4
STABLE_DISTANCE = 0.05  # pixels by which noise may move a stable joint


@dataclass(frozen=True)
class Difference:
    """Differences between a backend and the reference.

    Attributes:
        largest, mean: largest and mean distance between keypoints, in crop pixels.
        stable_largest: largest distance of the stable joints.
        scores: largest difference between scores, divided by the largest score.
        joints, stable: numbers of all joints and of stable joints.
    """

    largest: float
    mean: float
    stable_largest: float
    scores: float
    joints: int
    stable: int


def difference(backend: Backend, reference: TorchBackend, crops: Tensor) -> Difference:
    """Compare a backend with the reference on crops (N, 3, H, W).

    A joint is stable if noise that is much larger than rounding errors moves it by less than
    ``STABLE_DISTANCE`` in the reference. Other joints have two almost equal maxima, as is common
    with untrained networks. Rounding decides which of the two is larger, so their differences say
    nothing about the backend.
    """
    outputs = reference.outputs(crops)
    keypoints, scores = (value.cpu() for value in reference.codec.decode(outputs))
    found, found_scores = backend(crops)
    distance = torch.linalg.vector_norm(found - keypoints, dim=-1)
    stable_distance = distance[stable_joints(reference, outputs, keypoints)]
    largest_score = float(scores.abs().max().clamp(min=torch.finfo(torch.float32).tiny))
    return Difference(
        float(distance.max()),
        float(distance.mean()),
        float(stable_distance.max()) if len(stable_distance) else 0.0,
        float((found_scores - scores).abs().max()) / largest_score,
        distance.numel(),
        len(stable_distance),
    )


@dataclass(frozen=True)
class SceneDifference:
    """Differences between an exported bottom-up network and the reference, on one image.

    Attributes:
        heatmaps, tags: largest difference, divided by the largest magnitude.
        scores: largest difference between the candidates' scores, divided by the largest score.
        candidate_values: largest amount by which a candidate's score and tag differ from the
            exported network's own heatmap and tag map at the candidate's position.
        people, expected: numbers of people found by the exported network and by the reference.
    """

    heatmaps: float
    tags: float
    scores: float
    candidate_values: float
    people: int
    expected: int

    @property
    def largest(self) -> float:
        """Largest of the differences; NaN if one is NaN."""
        return float(np.max([self.heatmaps, self.tags, self.scores, self.candidate_values]))


def scene_difference(task: BottomUp, reference: BottomUp, batch: Batch) -> SceneDifference:
    """Compare two bottom-up tasks on one image, a batch from ``scene_batch``."""
    outputs, expected = task.forward(batch), reference.forward(batch)
    found, candidates = task.codec.merge(outputs), task.codec.candidates(outputs)
    pairs = (
        *zip(found, reference.codec.merge(expected), strict=True),
        (candidates.score, reference.codec.candidates(expected).score),
    )
    tiny = torch.finfo(torch.float32).tiny
    differences = [float((a - b).abs().max() / b.abs().max().clamp(min=tiny)) for a, b in pairs]
    candidate_values = _candidate_values(found, candidates)
    counts = (len(task.predict(outputs, batch)), len(reference.predict(expected, batch)))
    return SceneDifference(*differences, candidate_values, *counts)


def _candidate_values(merged: Outputs, candidates: Candidates) -> float:
    """Return the largest difference between candidates and merged outputs at their positions."""
    heatmaps, tags = merged
    x, y = candidates.xy.long().unbind(-1)
    index = (y * heatmaps.shape[3] + x).clamp(0, heatmaps[0, 0].numel() - 1)
    score = heatmaps.flatten(2).gather(2, index)
    tag = tags.flatten(2, 3).gather(2, index[..., None].expand_as(candidates.tag))
    error = (score - candidates.score).abs() + (tag - candidates.tag).abs().amax(-1)
    return float((error * (candidates.score > 0)).max())


def stable_joints(reference: TorchBackend, outputs: Outputs, keypoints: Tensor) -> Tensor:
    """Return a mask (N, K), True for joints that noise moves by less than ``STABLE_DISTANCE``."""
    generator = torch.Generator().manual_seed(0)

    def noisy(output: Tensor) -> Tensor:
        noise = torch.randn(output.shape, generator=generator).to(output.device)
        return output + NOISE_SCALE * output.std() * noise

    is_stable = torch.ones(keypoints.shape[:2], dtype=torch.bool)
    for _ in range(NOISE_SAMPLES):
        moved, _ = reference.codec.decode(tuple(map(noisy, outputs)))
        distance = torch.linalg.vector_norm(moved.cpu() - keypoints, dim=-1)
        is_stable &= distance < STABLE_DISTANCE
    return is_stable


def random_crops(size: Sequence[int], count: int) -> Tensor:
    """Return reproducible random crops, uint8 (count, 3, H, W), of ``size`` (width, height)."""
    width, height = size
    generator = torch.Generator().manual_seed(1)
    return torch.randint(0, 256, (count, 3, height, width), dtype=torch.uint8, generator=generator)


def real_crops(cfg: CfgNode, count: int) -> tuple[Tensor, str]:
    """Return crops of people, uint8 (count, 3, H, W), and the name of their source.

    The crops are evenly spaced over the experiment's test set, or show synthetic people if that set
    is not installed.
    """
    try:
        samples, source = _test_samples(cfg, count)
        return torch.stack([sample["image"] for sample in samples]), source
    except InputError:
        return drawn_crops(cfg, count), "synthetic people"


def _test_samples(cfg: CfgNode, count: int) -> tuple[list[dict[str, Tensor]], str]:
    """Return samples evenly spaced over the test set, and its name, or raise an InputError.

    Samples repeat if the test set is smaller than ``count``.
    """
    dataset = build_dataset(cfg, cfg.DATASET.TEST_SET, is_train=False)
    rows = np.linspace(0, len(dataset) - 1, count).astype(int)
    return [dataset[int(row)] for row in rows], f"{cfg.DATASET.DATASET} {cfg.DATASET.TEST_SET}"


def random_scene(size: int) -> Batch:
    """Return a reproducible random image for a network whose input is ``size`` pixels square."""
    image = np.random.default_rng(1).integers(0, 256, (size, size, 3), np.uint8)
    return scene_batch(image, 0, size)


def real_scenes(cfg: CfgNode, count: int) -> tuple[list[Batch], str]:
    """Return whole images and the name of their source, as ``real_crops`` does."""
    try:
        return _test_samples(cfg, count)
    except InputError:
        return drawn_scenes(cfg, count), "synthetic people"


def drawn_scenes(cfg: CfgNode, count: int, split: str = "val") -> list[Batch]:
    """Return whole images of synthetic people."""
    images = [draw_scene(0, split, index)[0][..., ::-1] for index in range(count)]
    size = int(cfg.MODEL.IMAGE_SIZE[0])
    return [scene_batch(image.copy(), 0, size) for image in images]


def drawn_crops(cfg: CfgNode, count: int, split: str = "val") -> Tensor:
    """Return crops of synthetic people, uint8 (count, 3, H, W)."""
    crops: list[Tensor] = []
    index = 0
    while len(crops) < count:
        image, people = draw_scene(0, split, index)
        index += 1
        boxes = np.array([person["bbox"] for person in people], np.float64).reshape(-1, 4)
        crops += crops_of_people(cfg, image[..., ::-1].copy(), boxes)
    return torch.stack(crops[:count])


def crops_of_people(cfg: CfgNode, image: np.ndarray, boxes: np.ndarray) -> list[Tensor]:
    """Return the crops, uint8 (3, H, W), of the boxes (N, 4) in a BGR image."""
    crop = crop_of(cfg)
    return [
        torch.from_numpy(crop_image(image, crop.matrix(center, scale), crop.size))
        for center, scale in zip(*box_to_center_scale(boxes, crop.aspect_ratio), strict=True)
    ]
