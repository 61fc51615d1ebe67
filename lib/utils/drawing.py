"""Pictures for people: skeletons over images, heatmaps, sheets, curves. Colours are RGB."""

import io
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np

from lib.utils.errors import InputError
from lib.utils.files import write_atomically

Pairs = Sequence[tuple[int, int]]

LEFT, RIGHT, MIDDLE = (255, 128, 0), (0, 150, 255), (60, 220, 90)


def side_colors(count: int, flip_pairs: Pairs) -> list[tuple[int, int, int]]:
    """One colour for each joint: orange for the person's left, blue for the right, green for the
    middle."""
    colors = [MIDDLE] * count
    for left, right in flip_pairs:
        colors[left], colors[right] = LEFT, RIGHT
    return colors


def draw_person(
    image: np.ndarray,
    keypoints: np.ndarray,
    is_shown: np.ndarray,
    limbs: Pairs,
    flip_pairs: Pairs,
) -> None:
    """Draw one skeleton into ``image`` (H, W, 3) uint8 in place.

    Args:
        keypoints: (K, 2) pixels.
        is_shown: (K,) flags; a limb is drawn when both its ends are.
    """
    colors = side_colors(len(keypoints), flip_pairs)
    shown = keypoints[is_shown.astype(bool)]
    if not len(shown):
        return
    extent = float(np.max(shown.max(0) - shown.min(0)))
    width = int(np.clip(extent / 80, 1, 8))
    points = [tuple(round(float(v)) for v in np.clip(p, -1e4, 1e4)) for p in keypoints]
    for a, b in limbs:
        if is_shown[a] and is_shown[b]:
            color = colors[a] if colors[a] == colors[b] else MIDDLE
            cv2.line(image, points[a], points[b], color, width, cv2.LINE_AA)
    for point, color, is_on in zip(points, colors, is_shown, strict=True):
        if is_on:
            cv2.circle(image, point, width + 1, color, -1, cv2.LINE_AA)
            cv2.circle(image, point, width + 1, (255, 255, 255), 1, cv2.LINE_AA)


def heatmap_rows(images: np.ndarray, heatmaps: np.ndarray) -> np.ndarray:
    """A sheet with one row a person: the crop (N, H, W, 3), then each of its heatmaps (N, K, h, w)
    over it in colour."""
    height, width = heatmaps.shape[2:]
    rows = []
    for image, maps in zip(images, heatmaps, strict=True):
        small = cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA)
        cells = [small]
        for values in maps:
            levels = np.clip(values * 255, 0, 255).astype(np.uint8)
            colored = cv2.cvtColor(cv2.applyColorMap(levels, cv2.COLORMAP_JET), cv2.COLOR_BGR2RGB)
            cells.append(cv2.addWeighted(colored, 0.7, small, 0.3, 0))
        rows.append(np.concatenate(cells, axis=1))
    return np.concatenate(rows)


def sheet(images: Sequence[np.ndarray], columns: int, gap: int = 2) -> np.ndarray:
    """Images of one size (H, W, 3) in rows of ``columns``, with a white gap."""
    height, width = images[0].shape[:2]
    columns = min(columns, len(images))
    rows = -(-len(images) // columns)
    page = np.full((rows * (height + gap) + gap, columns * (width + gap) + gap, 3), 255, np.uint8)
    for number, image in enumerate(images):
        y = gap + number // columns * (height + gap)
        x = gap + number % columns * (width + gap)
        page[y : y + height, x : x + width] = image
    return page


def write_picture(path: str | Path, image: np.ndarray) -> None:
    """Write an RGB image; the suffix says the format. An InputError where that cannot be."""
    suffix = Path(path).suffix
    try:
        is_done, data = cv2.imencode(suffix, np.ascontiguousarray(image[..., ::-1]))
    except cv2.error:  # what some versions of OpenCV do instead of saying False
        is_done = False
    if not is_done:
        raise InputError(f"{path}: cannot encode a picture as {suffix}")
    write_atomically(path, data.tobytes())


def write_curves(path: str | Path, history: Sequence[dict[str, float]]) -> None:
    """Loss and scores over epochs, from rows with ``epoch``, ``train_loss``, ``train_acc`` and a
    validation's values."""

    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 4), layout="constrained")
    losses, scores = figure.subplots(1, 2)
    main = next((name for name in ("AP", "Mean") if any(name in row for row in history)), None)
    curves = [
        (losses, "train_loss", "training"),
        (losses, "valid_loss", "validation"),
        (scores, "train_acc", "accuracy, training (PCK)"),
        (scores, "valid_acc", "accuracy, validation (PCK)"),
        (scores, main, f"{main}, validation"),
    ]
    for axes, name, label in curves:
        points = [(row["epoch"] + 1, row[name]) for row in history if name in row]
        if points:
            values = [y / 100 if name == "Mean" else y for _, y in points]
            axes.plot([x for x, _ in points], values, marker=".", label=label)
    losses.set(title="loss", xlabel="epochs", yscale="log")
    scores.set(title="scores", xlabel="epochs", ylim=(0, 1))
    for axes in (losses, scores):
        axes.grid(alpha=0.3)
        axes.legend()
    buffer = io.BytesIO()
    FigureCanvasAgg(figure).print_png(buffer)
    write_atomically(path, buffer.getvalue())
