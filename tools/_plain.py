"""What tools/benchmark.py compares with: the straightforward way, as such code bases do it.

One sample, one joint and one pair at a time, in NumPy; no part of ``lib`` is used. The rules are
those of leoxiaobin/deep-high-resolution-net.pytorch, so that the answers must agree.
"""

import contextlib
import io
from typing import Any

import cv2
import numpy as np
import torch
from pycocotools.coco import COCO

MEAN = torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1)
STD = torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1)
PIXELS = 200.0  # a scale of 1

Pairs = tuple[tuple[int, int], ...]


def train_view(person: dict, width: int, rng: np.random.Generator, how: Any, body: Any) -> tuple:
    """Centre, scale, rotation and whether to mirror: the draws of training, in their order."""
    center, scale = person["center"].copy(), person["scale"]
    visible = person["visible"]
    if visible.sum() > how.half_body_joints and rng.random() < how.half_body_probability:
        half = half_body(person["joints"], visible, rng, body.upper_body)
        center, scale = half or (center, scale)
    spread, turn = how.scale_factor, how.rotation_factor
    scale = scale * np.clip(rng.standard_normal() * spread + 1, 1 - spread, 1 + spread)
    rotation = np.clip(rng.standard_normal() * turn, -2 * turn, 2 * turn)
    rotation = rotation if rng.random() <= 0.6 else 0
    mirrored = rng.random() <= 0.5
    if mirrored:
        center[0] = width - 1 - center[0]
    return center, scale, rotation, mirrored


def half_body(
    joints: np.ndarray, visible: np.ndarray, rng: np.random.Generator, upper_body: tuple[int, ...]
) -> tuple[np.ndarray, np.ndarray] | None:
    """Centre and scale around the upper or the lower joints; crops are 3 wide and 4 high."""
    upper, lower = [], []
    for k in range(len(joints)):
        if visible[k] > 0:
            (upper if k in upper_body else lower).append(joints[k])
    if rng.standard_normal() < 0.5 and len(upper) > 2:
        chosen = upper
    else:
        chosen = lower if len(lower) > 2 else upper
    if len(chosen) < 2:
        return None
    chosen = np.array(chosen, np.float32)
    width, height = chosen.max(0) - chosen.min(0)
    width, height = max(width, height * 0.75), max(height, width / 0.75)
    return chosen.mean(0), np.array([width, height], np.float32) / PIXELS * 1.5


def sample(
    path: str,
    person: dict,
    size: tuple[int, int],
    heatmap_size: tuple[int, int],
    sigma: float,
    body: Any,
    how: Any = None,
    rng: np.random.Generator | None = None,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Network-ready image (3, H, W), heatmaps (K, h, w) and weights (K, 1) of one person."""
    image = cv2.imread(path, cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION)
    image = cv2.cvtColor(image, cv2.COLOR_BGR2RGB)
    joints, visible = person["joints"].copy(), person["visible"].copy()
    center, scale, rotation = person["center"], person["scale"], 0
    if how is not None:
        width = image.shape[1]
        center, scale, rotation, mirrored = train_view(person, width, rng, how, body)
        if mirrored:
            image = image[:, ::-1]
            joints[:, 0] = width - 1 - joints[:, 0]
            for left, right in body.flip_pairs:
                joints[[left, right]] = joints[[right, left]]
                visible[[left, right]] = visible[[right, left]]
    matrix = crop_matrix(center, scale, rotation, size)
    patch = cv2.warpAffine(image, matrix, size, flags=cv2.INTER_LINEAR)
    for k in range(len(joints)):
        if visible[k] > 0:
            joints[k] = matrix @ np.array([joints[k, 0], joints[k, 1], 1.0])
    heatmaps, weight = gaussians(joints, visible, size, heatmap_size, sigma)
    pixels = torch.from_numpy(patch.transpose(2, 0, 1).copy()).float().div(255)
    return pixels.sub(MEAN).div(STD), torch.from_numpy(heatmaps), torch.from_numpy(weight)


def crop_matrix(
    center: np.ndarray,
    scale: np.ndarray,
    rotation: float,
    size: tuple[int, int],
    inverse: bool = False,
) -> np.ndarray:
    """The (2, 3) matrix from image to crop, from three points; ``inverse`` gives the way back."""
    radians = np.pi * rotation / 180
    half = scale[0] * PIXELS * -0.5
    source, crop = np.zeros((3, 2), np.float32), np.zeros((3, 2), np.float32)
    source[0], crop[0] = center, np.array(size) * 0.5
    source[1] = center + np.array([-half * np.sin(radians), half * np.cos(radians)])
    crop[1] = crop[0] + np.array([0, size[0] * -0.5])
    for points in (source, crop):
        across = points[0] - points[1]
        points[2] = points[1] + np.array([-across[1], across[0]])
    return cv2.getAffineTransform(*((crop, source) if inverse else (source, crop)))


def gaussians(
    joints: np.ndarray,
    visible: np.ndarray,
    size: tuple[int, int],
    heatmap_size: tuple[int, int],
    sigma: float,
) -> tuple[np.ndarray, np.ndarray]:
    """Heatmaps (K, h, w) with a Gaussian at each joint, and weights (K, 1)."""
    width, height = heatmap_size
    heatmaps = np.zeros((len(joints), height, width), np.float32)
    weight = visible.astype(np.float32).reshape(-1, 1)
    reach = int(sigma * 3)
    for k in range(len(joints)):
        x = int(joints[k][0] / (size[0] / width) + 0.5)
        y = int(joints[k][1] / (size[1] / height) + 0.5)
        left, top, right, bottom = x - reach, y - reach, x + reach + 1, y + reach + 1
        if left >= width or top >= height or right < 0 or bottom < 0:
            weight[k] = 0
            continue
        across = np.arange(0, 2 * reach + 1, 1, np.float32)
        down = across[:, None]
        bell = np.exp(-((across - reach) ** 2 + (down - reach) ** 2) / (2 * sigma**2))
        if weight[k] > 0.5:
            rows = slice(max(0, top), min(bottom, height))
            columns = slice(max(0, left), min(right, width))
            heatmaps[k][rows, columns] = bell[
                rows.start - top : rows.stop - top, columns.start - left : columns.stop - left
            ]
    return heatmaps, weight


def post_process(
    outputs: torch.Tensor,
    mirrored: torch.Tensor,
    target: torch.Tensor,
    center: np.ndarray,
    scale: np.ndarray,
    pairs: Pairs,
) -> tuple[np.ndarray, float]:
    """Keypoints (N, K, 2) in image pixels and accuracy, by heatmaps of crops and mirrored ones."""
    flipped = mirrored.numpy()[:, :, :, ::-1].copy()
    for left, right in pairs:
        flipped[:, [left, right]] = flipped[:, [right, left]]
    flipped[:, :, :, 1:] = flipped[:, :, :, :-1].copy()
    heatmaps = (outputs.numpy() + flipped) * 0.5
    right = accuracy(heatmaps, target.numpy())
    places = maxima(heatmaps)
    height, width = heatmaps.shape[2:]
    for n in range(len(places)):
        for k in range(places.shape[1]):
            x, y = int(places[n, k, 0]), int(places[n, k, 1])
            if 1 < x < width - 1 and 1 < y < height - 1:
                part = heatmaps[n][k]
                slope = [part[y][x + 1] - part[y][x - 1], part[y + 1][x] - part[y - 1][x]]
                places[n, k] += np.sign(np.array(slope)) * 0.25
        matrix = crop_matrix(center[n], scale[n], 0, (width, height), inverse=True)
        for k in range(places.shape[1]):
            places[n, k] = matrix @ np.array([places[n, k, 0], places[n, k, 1], 1.0])
    return places, right


def maxima(heatmaps: np.ndarray) -> np.ndarray:
    """(N, K, 2) x, y of the highest values, 0 where none is above 0."""
    people, joints, _, width = heatmaps.shape
    flat = heatmaps.reshape(people, joints, -1)
    index = flat.argmax(2)
    places = np.stack([index % width, index // width], 2).astype(np.float32)
    return places * (flat.max(2) > 0)[..., None]


def accuracy(heatmaps: np.ndarray, target: np.ndarray) -> float:
    """The published PCK between maxima, the mean over joints."""
    found, truth = maxima(heatmaps), maxima(target)
    norm = np.array(heatmaps.shape[2:]) / 10
    shares = []
    for k in range(found.shape[1]):
        distances = [
            np.linalg.norm(found[n, k] / norm - truth[n, k] / norm)
            for n in range(len(found))
            if truth[n, k, 0] > 1 and truth[n, k, 1] > 1
        ]
        if distances:
            shares.append(np.mean(np.array(distances) < 0.5))
    return float(np.mean(shares)) if shares else 0.0


def oks_nms(
    keypoints: np.ndarray,
    scores: np.ndarray,
    areas: np.ndarray,
    images: np.ndarray,
    threshold: float,
    sigmas: np.ndarray,
    soft: bool,
) -> np.ndarray:
    """Rows that OKS-NMS leaves, sorted; image by image and pair by pair."""
    rows_of: dict[int, list[int]] = {}
    for row, image in enumerate(images.tolist()):
        rows_of.setdefault(image, []).append(row)
    kept: list[int] = []
    for rows in rows_of.values():
        order = np.array(rows)[scores[rows].argsort()[::-1]]
        values = scores[order]
        count = 0
        while order.size and not (soft and count == 20):
            one, order, values = order[0], order[1:], values[1:]
            kept.append(one)
            count += 1
            overlap = oks(keypoints, areas, one, order, sigmas)
            if soft:
                values = values * np.exp(-(overlap**2) / threshold)
                falling = values.argsort()[::-1]
                order, values = order[falling], values[falling]
            else:
                order = order[overlap <= threshold]
    return np.sort(kept)


def oks(
    keypoints: np.ndarray, areas: np.ndarray, one: int, others: np.ndarray, sigmas: np.ndarray
) -> np.ndarray:
    """OKS of a person with others, one after another."""
    variances = (sigmas * 2) ** 2
    overlap = np.zeros(len(others))
    for number, other in enumerate(others):
        dx = keypoints[other, :, 0] - keypoints[one, :, 0]
        dy = keypoints[other, :, 1] - keypoints[one, :, 1]
        e = (dx**2 + dy**2) / variances / ((areas[one] + areas[other]) / 2 + np.spacing(1)) / 2
        overlap[number] = np.sum(np.exp(-e)) / len(e)
    return overlap


def box_nms(dets: np.ndarray, threshold: float) -> np.ndarray:
    """Rows that stay, highest score first."""
    x1, y1, x2, y2, scores = dets.astype(np.float32).T
    areas = (x2 - x1 + 1) * (y2 - y1 + 1)
    order = scores.argsort()[::-1]
    kept = []
    while order.size:
        one, rest = order[0], order[1:]
        kept.append(one)
        width = np.minimum(x2[one], x2[rest]) - np.maximum(x1[one], x1[rest]) + 1
        height = np.minimum(y2[one], y2[rest]) - np.maximum(y1[one], y1[rest]) + 1
        inter = np.maximum(width, 0) * np.maximum(height, 0)
        order = rest[inter / (areas[one] + areas[rest] - inter) <= np.float32(threshold)]
    return np.array(kept)


def load(path: str, folder: str, aspect_ratio: float) -> list[dict]:
    """The people of an annotation file as a list of dicts."""
    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCO(path)
    people = []
    for image_id in coco.getImgIds():
        image = coco.loadImgs(image_id)[0]
        for entry in coco.loadAnns(coco.getAnnIds(imgIds=image_id, iscrowd=False)):
            person = load_person(entry, image["width"], image["height"], aspect_ratio)
            if person is not None:
                person["image"] = f"{folder}/{image['file_name']}"
                people.append(person)
    return people


def load_person(entry: dict, width: int, height: int, aspect_ratio: float) -> dict | None:
    """One annotation, None where it has no joints or no box."""
    x, y, w, h = entry["bbox"]
    x1, y1 = max(0, x), max(0, y)
    x2, y2 = min(width - 1, x1 + max(0, w - 1)), min(height - 1, y1 + max(0, h - 1))
    if entry["area"] <= 0 or x2 < x1 or y2 < y1 or max(entry["keypoints"]) == 0:
        return None
    joints, visible = np.zeros((17, 3)), np.zeros((17, 3))
    for k in range(17):
        joints[k, 0], joints[k, 1] = entry["keypoints"][3 * k : 3 * k + 2]
        visible[k, :2] = min(entry["keypoints"][3 * k + 2], 1)
    w, h = x2 - x1, y2 - y1
    w, h = max(w, h * aspect_ratio), max(h, w / aspect_ratio)
    center = np.array([(x1 + x2) * 0.5, (y1 + y2) * 0.5], np.float32)
    scale = np.array([w, h], np.float32) / PIXELS * 1.25
    return {"center": center, "scale": scale, "joints": joints, "visible": visible}
