"""Grouping of keypoint candidates into people by their tags (associative embedding).

Newell, Huang, Deng: Associative Embedding: End-to-End Learning for Joint Detection and Grouping.
NIPS 2017. Numerically equivalent to ``HeatmapParser`` in lib/core/group.py of
HRNet/HigherHRNet-Human-Pose-Estimation, except where several assignments of candidates to people
have the same cost. The published code may then choose another one.

A person is an array (K, 3 + T) of x, y, score and T tags for each joint, 0 where a joint is absent.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor
from torch.nn import functional

from lib.utils.errors import InputError

UNMATCHED = 1e10  # cost of a candidate that is matched to no person
BLOCK = 16  # side of the blocks that ``refine`` searches, in pixels
CHUNK = 24  # number of blocks that are searched at once


class Candidates(NamedTuple):
    """The M highest peaks of each joint's heatmap, in descending order of score.

    xy: (N, K, M, 2) float, in heatmap pixels. score: (N, K, M). tag: (N, K, M, T).
    """

    xy: Tensor
    score: Tensor
    tag: Tensor


@dataclass(frozen=True)
class Grouping:
    """The grouping algorithm and its settings. The defaults are those of HigherHRNet.

    Attributes:
        joint_order: order in which joints are added to people.
        max_people: maximum number of candidates per joint. Only the first ``max_people`` people can
            receive further joints.
        detection_threshold: candidates with this score or a lower one are dropped.
        tag_threshold: maximum distance between the tags of a joint and its person.
        uses_score: match by rounded tag distance first and by score second.
        ignores_excess: once there are ``max_people`` people, ignore all candidates of the remaining
            joints.
        kernel: odd side length of the window in which a peak must be the maximum.
        adjusts: move keypoints a quarter of a pixel toward the higher neighbour.
        refines: fill in the joints that were not found.
    """

    joint_order: tuple[int, ...]
    max_people: int = 30
    detection_threshold: float = 0.1
    tag_threshold: float = 1.0
    uses_score: bool = True
    ignores_excess: bool = False
    kernel: int = 5
    adjusts: bool = True
    refines: bool = True

    def group(
        self, heatmaps: np.ndarray, tags: np.ndarray, candidates: Candidates
    ) -> tuple[np.ndarray, np.ndarray]:
        """Group the candidates of one image.

        Args:
            heatmaps: (K, H, W) float32.
            tags: (K, H, W, T) float32.
            candidates: candidates of this image (N = 1).

        Returns:
            People (P, K, 3 + T) and their scores (P,). A person's score is the mean score of all
            joints, computed before missing joints are filled in.

        Raises:
            InputError: heatmaps or tags contain NaN or Inf.
        """
        if not np.isfinite(heatmaps.sum() + tags.sum()):
            raise InputError("network output contains NaN or Inf; check the weights")
        xy, score, tag = (part[0].float().cpu().numpy() for part in candidates)
        people = self.match(np.concatenate([xy, score[..., None], tag], axis=2))
        if self.adjusts:
            adjust(people, heatmaps)
        scores = people[:, :, 2].mean(1)
        if self.refines:
            refine(people, heatmaps, tags)
        return people, scores

    def match(self, candidates: np.ndarray) -> np.ndarray:
        """Group candidates (K, M, 3 + T) of x, y, score and tags into people (P, K, 3 + T).

        Joints are processed one after the other. An optimal assignment adds the candidates of a
        joint to the people found so far, by the distance between their tags and the person's mean
        tags. Candidates that match nobody start new people.
        """
        # As in the published code, people are identified by the first tag of their first joint. If
        # two people would start with exactly the same tag, they become one.
        people: dict[float, np.ndarray] = {}
        tags: dict[float, list[np.ndarray]] = {}

        def start_person(joint: int, candidate: np.ndarray) -> None:
            key = float(candidate[3])
            person = people.setdefault(key, np.zeros(candidates.shape[::2], np.float32))
            person[joint] = candidate
            tags[key] = [candidate[3:]]

        for joint in self.joint_order:
            found = candidates[joint]
            # float64 as in the published code: many assignments have almost equal costs, so
            # another precision could lead to a different choice.
            found = found[found[:, 2] > self.detection_threshold].astype(np.float64)
            keys = list(people)[: self.max_people]
            if not keys:
                for candidate in found:
                    start_person(joint, candidate)
                continue
            if not len(found) or (self.ignores_excess and len(keys) == self.max_people):
                continue
            means = np.array([np.mean(tags[key], axis=0, dtype=np.float32) for key in keys])
            distance = np.linalg.norm(found[:, None, 3:] - means, axis=2)
            for row, column in zip(*self._assign(distance, found[:, 2]), strict=True):
                candidate = found[row]
                if column < len(keys) and distance[row, column] < self.tag_threshold:
                    people[keys[column]][joint] = candidate
                    tags[keys[column]].append(candidate[3:])
                else:
                    start_person(joint, candidate)
        if not people:
            return np.zeros((0, *candidates.shape[::2]), np.float32)
        return np.array([*people.values()], np.float32)

    def _assign(self, distance: np.ndarray, score: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the rows and columns of the assignment with the lowest cost.

        ``distance`` is (candidates, people). If there are more candidates than people, the surplus
        candidates are assigned to extra columns.
        """
        cost = np.round(distance) * 100 - score[:, None] if self.uses_score else distance
        excess = max(cost.shape[0] - cost.shape[1], 0)
        cost = np.pad(cost, ((0, 0), (0, excess)), constant_values=UNMATCHED)
        return linear_sum_assignment(cost)


def find_candidates(heatmaps: Tensor, tags: Tensor, count: int, kernel: int) -> Candidates:
    """Find the ``count`` highest peaks of heatmaps (N, K, H, W), and their tags (N, K, H, W, T).

    A peak is the maximum of a window with the odd side length ``kernel``.
    """
    width = heatmaps.shape[3]
    peaks = heatmaps * (heatmaps == window_maxima(heatmaps, kernel))
    # torch.export would keep min() in the graph, but it evaluates an if during export.
    if count > heatmaps[0, 0].numel():
        count = heatmaps[0, 0].numel()
    score, index = peaks.flatten(2).topk(count, dim=2)
    tag = tags.flatten(2, 3).gather(2, index[..., None].expand(-1, -1, -1, tags.shape[4]))
    y = index // width
    xy = torch.stack([index - y * width, y], dim=3).to(heatmaps.dtype)
    return Candidates(xy, score, tag)


def window_maxima(x: Tensor, kernel: int) -> Tensor:
    """Return the maximum around each pixel of (N, K, H, W), in a window of side ``kernel``."""
    # Each step takes the maximum of the map and a shifted copy, which at most doubles the window.
    # On a CPU this is much faster than max_pool2d.
    half = kernel // 2
    padded = functional.pad(x, (half,) * 4, value=-torch.inf)
    for axis in (2, 3):
        width, largest = 1, padded
        while width < kernel:
            step = min(width, kernel - width)
            length = largest.shape[axis] - step
            shifted = largest.narrow(axis, step, length)
            largest = torch.maximum(largest.narrow(axis, 0, length), shifted)
            width += step
        padded = largest
    return padded


def adjust(people: np.ndarray, heatmaps: np.ndarray) -> None:
    """Move the keypoints of people (P, K, 3 + T) to sub-pixel positions, in place.

    Along each axis, a keypoint moves a quarter of a pixel toward the higher neighbour, or toward
    lower coordinates if both neighbours are equal. Half a pixel is then added, as in the published
    code.
    """
    person, joint = np.nonzero(people[:, :, 2] > 0)
    x, y = people[person, joint, :2].astype(int).T
    people[person, joint, :2] += _quarter_steps(heatmaps, joint, x, y) + np.float32(0.5)


def _quarter_steps(
    heatmaps: np.ndarray, joint: np.ndarray, x: np.ndarray, y: np.ndarray
) -> np.ndarray:
    """Return steps (n, 2) of a quarter of a pixel toward the higher neighbour."""
    _, height, width = heatmaps.shape
    right, left = np.minimum(x + 1, width - 1), np.maximum(x - 1, 0)
    below, above = np.minimum(y + 1, height - 1), np.maximum(y - 1, 0)
    is_right = heatmaps[joint, y, right] > heatmaps[joint, y, left]
    is_below = heatmaps[joint, below, x] > heatmaps[joint, above, x]
    return np.where(np.stack([is_right, is_below], 1), 0.25, -0.25).astype(np.float32)


def refine(people: np.ndarray, heatmaps: np.ndarray, tags: np.ndarray) -> None:
    """Fill in the missing joints of people (P, K, 3 + T), in place.

    A missing joint is placed at the pixel that maximises the heatmap minus the rounded distance
    between the pixel's tag and the person's mean tag. It is then moved as by ``adjust``. If the
    heatmap is not positive at the pixel, the joint stays missing. Heatmaps are (K, H, W), tags
    (K, H, W, T).
    """
    means = _mean_tags(people, tags)
    is_missing = people[:, :, 2] == 0
    for joint in np.flatnonzero(is_missing.any(0)):
        rows = np.flatnonzero(is_missing[:, joint])
        x, y = _best_pixels(heatmaps[joint], tags[joint], means[rows])
        score = heatmaps[joint, y, x]
        steps = _quarter_steps(heatmaps, np.full(len(x), joint), x, y)
        is_filled = score > 0
        xy = np.stack([x, y], 1).astype(np.float32) + np.float32(0.5) + steps
        people[rows[is_filled], joint, :2] = xy[is_filled]
        people[rows[is_filled], joint, 2] = score[is_filled]


def _mean_tags(people: np.ndarray, tags: np.ndarray) -> np.ndarray:
    """Return the mean tags (P, T) at the pixels of each person's found joints."""
    found = people[:, :, 2] > 0
    x, y = (people[:, :, axis].astype(int) for axis in (0, 1))
    found_tags = tags[np.arange(people.shape[1]), y, x] * found[..., None]
    return found_tags.sum(1) / np.maximum(found.sum(1), 1).astype(np.float32)[:, None]


def _best_pixels(
    heatmap: np.ndarray, tags: np.ndarray, means: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return x and y (n,) that maximise heatmap - round(tag distance) for each mean tag (n, T).

    Blocks of pixels are searched in descending order of an upper bound: the maximum of the heatmap
    in the block minus the rounded distance from the mean tag to the range of the block's tags. The
    search stops when no other block can contain a higher value. Of pixels with equal values, the
    first in row-major order is returned, as by ``argmax``.
    """
    width = heatmap.shape[1]
    blocks, starts = _blocks(heatmap, -np.inf)
    tag_blocks = np.stack([_blocks(tags[..., t], 0.0)[0] for t in range(tags.shape[2])], axis=2)
    low, high = tag_blocks.min(1), tag_blocks.max(1)
    outside = np.maximum(np.maximum(low - means[:, None], means[:, None] - high), 0)
    # The margin of 1e-4 covers float32 rounding errors.
    nearest = np.round(np.maximum(np.linalg.norm(outside, axis=2) - 1e-4, 0))
    bound = blocks.max(1) - nearest
    offsets = np.arange(BLOCK)[:, None] * width + np.arange(BLOCK)
    pixels = starts[:, None] + offsets.ravel()
    order = np.argsort(-bound, axis=1)
    pixel = []
    for number, mean in enumerate(means):
        best = -np.inf, 0  # (value, -index): of equal values, the smallest index wins
        for start in range(0, len(starts), CHUNK):
            chunk = order[number, start : start + CHUNK]
            if bound[number, chunk[0]] < best[0]:
                break
            distance = np.sqrt(((tag_blocks[chunk] - mean) ** 2).sum(2))
            value = blocks[chunk] - np.round(distance)
            highest = value.max()
            best = max(best, (highest, -int(pixels[chunk][value == highest].min())))
        pixel.append(-best[1])
    y, x = np.divmod(pixel, width)
    return x, y


def _blocks(values: np.ndarray, fill: float) -> tuple[np.ndarray, np.ndarray]:
    """Split an array (H, W) into blocks.

    Returns:
        The blocks (B, BLOCK * BLOCK), with ``fill`` for pixels outside the array, and the index
        (B,) of each block's first pixel in the flat array.
    """
    height, width = values.shape
    padding = ((0, -height % BLOCK), (0, -width % BLOCK))
    values = np.pad(values, padding, constant_values=fill)
    rows, columns = values.shape[0] // BLOCK, values.shape[1] // BLOCK
    blocks = values.reshape(rows, BLOCK, columns, BLOCK).swapaxes(1, 2)
    starts = np.arange(rows)[:, None] * BLOCK * width + np.arange(columns) * BLOCK
    return blocks.reshape(-1, BLOCK * BLOCK), starts.ravel()


def joint_order(names: Sequence[str]) -> tuple[int, ...]:
    """Return the order in which joints are grouped.

    For 17 joints, as in COCO, and 14 joints, as in CrowdPose, it is HigherHRNet's order. For other
    numbers of joints, it is the order of ``names``.
    """
    known = {
        17: (0, 1, 2, 3, 4, 5, 6, 11, 12, 7, 8, 9, 10, 13, 14, 15, 16),
        14: (0, 1, 2, 3, 4, 5, 6, 11, 12, 7, 8, 9, 10, 13),
    }
    return known.get(len(names), tuple(range(len(names))))
