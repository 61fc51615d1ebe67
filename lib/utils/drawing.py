"""Drawing of skeletons, boxes, heatmaps, image grids and training curves. Colors are RGB."""

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np

from lib.utils.errors import InputError
from lib.utils.files import write_atomically

Pairs = Sequence[tuple[int, int]]
Color = tuple[int, int, int]

LEFT_COLOR, RIGHT_COLOR, MIDDLE_COLOR = (255, 128, 0), (0, 150, 255), (60, 220, 90)
OUTLINE_COLOR = (20, 20, 20)  # dark, for contrast on bright backgrounds
FONT = cv2.FONT_HERSHEY_SIMPLEX
GAP = 2  # pixels between images


def side_colors(count: int, flip_pairs: Pairs) -> list[Color]:
    """Return a color for each joint: orange for left, blue for right, green for the middle."""
    colors = [MIDDLE_COLOR] * count
    for left, right in flip_pairs:
        colors[left], colors[right] = LEFT_COLOR, RIGHT_COLOR
    return colors


def draw_person(
    image: np.ndarray,
    keypoints: np.ndarray,
    visible: np.ndarray,
    limbs: Pairs,
    flip_pairs: Pairs,
    scores: np.ndarray | None = None,
    color: Color | None = None,
) -> None:
    """Draw a skeleton on ``image`` (H, W, 3) uint8, in place.

    The line width depends on the size of the person and of the image: thin enough not to hide small
    people, thick enough to be seen when a large image is scaled down.

    Args:
        keypoints: (K, 2) in pixels.
        visible: (K,) flags of the joints to draw; a limb is drawn if both its ends are.
        limbs: pairs of joint indices to connect.
        flip_pairs: (left, right) joint indices, which have different colors.
        scores: (K,) written next to the joints if the person is large enough, or None.
        color: one color for the whole skeleton; None for the colors of ``side_colors``.
    """
    visible = np.asarray(visible).astype(bool) & np.isfinite(keypoints).all(1)
    drawn = keypoints[visible]
    if not len(drawn):
        return
    colors = [color] * len(keypoints) if color else side_colors(len(keypoints), flip_pairs)
    extent = float(np.ptp(drawn, axis=0).max())
    width = line_width(image, extent)
    points = [_pixel(point) if on else None for point, on in zip(keypoints, visible, strict=True)]
    lines = [(points[a], points[b], _limb_color(colors[a], colors[b])) for a, b in limbs]
    lines = [line for line in lines if line[0] and line[1]]
    edge = width // 3
    if edge:
        for start, end, _ in lines:
            cv2.line(image, start, end, OUTLINE_COLOR, width + 2 * edge, cv2.LINE_AA)
    for start, end, color in lines:
        cv2.line(image, start, end, color, width, cv2.LINE_AA)
    radius, ring = width + max(1, width // 4), max(1, width // 4)
    if width == 1:  # on a small person rings would hide the colors
        radius, ring = (2 if extent > 45 else 1), 0
    for point, color in zip(points, colors, strict=True):
        if point:
            cv2.circle(image, point, radius, color, -1, cv2.LINE_AA)
            if ring:
                cv2.circle(image, point, radius, (255, 255, 255), ring, cv2.LINE_AA)
    size = max(image.shape[:2])
    height = max(9.0, min(extent, size) / 28, size / 110)
    # On a small person the numbers would cover the skeleton.
    if scores is not None and extent > 8 * height:
        for point, score in zip(points, scores, strict=True):
            if point:
                position = (point[0] + radius + 2, point[1] + round(height / 2))
                draw_text(image, f"{score:.2f}".removeprefix("0"), position, height)


def draw_box(
    image: np.ndarray, box: Sequence[float], label: str = "", color: Color = MIDDLE_COLOR
) -> None:
    """Draw a box (x, y, width, height) on ``image`` (H, W, 3) uint8, in place.

    The label is placed above the upper left corner, or inside the box if there is no room.
    """
    x, y, box_width, box_height = (float(value) for value in box)
    width = max(1, line_width(image, max(box_width, box_height)) // 3)
    top_left, bottom_right = _pixel((x, y)), _pixel((x + box_width, y + box_height))
    cv2.rectangle(image, top_left, bottom_right, color, width)
    if label:
        size = max(image.shape[:2])
        height = float(np.clip(box_height / 14, max(10, size / 90), max(11, size / 50)))
        pad = max(2, round(height / 4))
        scale, thickness = _font_scale(height)
        (text_width, _), _ = cv2.getTextSize(label, FONT, scale, thickness)
        box_top, label_height = max(top_left[1], 0), round(height) + 2 * pad
        left, top = max(top_left[0], 0), box_top - label_height * (box_top >= label_height)
        corner = (left + text_width + 2 * pad, top + label_height)
        cv2.rectangle(image, (left, top), corner, color, -1)
        position = (left + pad, top + pad + round(height))
        cv2.putText(image, label, position, FONT, scale, OUTLINE_COLOR, thickness, cv2.LINE_AA)


def draw_text(
    image: np.ndarray,
    text: str,
    position: tuple[int, int],
    height: float,
    color: Color = (255, 255, 255),
) -> None:
    """Draw one line of text with a dark outline, in place.

    ``position`` is the lower left corner, ``height`` the height of a capital letter, in pixels.
    """
    scale, thickness = _font_scale(height)
    # Shifted copies instead of one thick copy, because OpenCV 5 makes thick letters wider.
    shifts = [(x, y) for x in (-1, 0, 1) for y in (-1, 0, 1) if x or y]
    for x, y in shifts:
        shifted = (position[0] + x * thickness, position[1] + y * thickness)
        cv2.putText(image, text, shifted, FONT, scale, OUTLINE_COLOR, thickness, cv2.LINE_AA)
    cv2.putText(image, text, position, FONT, scale, color, thickness, cv2.LINE_AA)


def _font_scale(height: float) -> tuple[float, int]:
    """Return scale and thickness of a font with capital letters ``height`` pixels high."""
    return height / 22, max(1, round(height / 11))  # at scale 1 capitals are 22 pixels high


def track_color(number: int) -> Color:
    """Return a bright color for a person; consecutive numbers get clearly different colors."""
    hue = number * 67 % 180
    saturation = (190, 110, 255)[number // 8 % 3]  # the hues nearly repeat after eight
    red, green, blue = cv2.cvtColor(np.uint8([[[hue, saturation, 255]]]), cv2.COLOR_HSV2RGB)[0, 0]
    return int(red), int(green), int(blue)


def line_width(image: np.ndarray, extent: float) -> int:
    """Return the line width for a person of ``extent`` pixels in ``image``."""
    size = max(image.shape[:2])
    extent = min(extent, size)  # keypoints may be far outside the image
    width = max(min(extent / 80, 2 + extent / 150), size / 1000)
    return max(1, round(min(width, extent / 30)))


def _limb_color(first: Color, second: Color) -> Color:
    """Return the color of a limb; limbs between left and right get the color of the middle."""
    sides = {first, second} - {MIDDLE_COLOR}
    return sides.pop() if len(sides) == 1 else MIDDLE_COLOR


def _pixel(point: Sequence[float]) -> tuple[int, int]:
    x, y = np.clip(point, -1e4, 4e4)
    return round(float(x)), round(float(y))


def heatmap_rows(images: np.ndarray, heatmaps: np.ndarray) -> np.ndarray:
    """Draw a row for each image: the image, then each of its heatmaps in color over the image.

    Images are (N, H, W, 3) uint8, heatmaps (N, K, h, w).
    """
    height, width = heatmaps.shape[2:]
    rows = []
    for image, maps in zip(images, heatmaps, strict=True):
        small = cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA)
        cells = [small]
        for levels in np.clip(maps * 255, 0, 255).astype(np.uint8):
            colored = cv2.cvtColor(cv2.applyColorMap(levels, cv2.COLORMAP_JET), cv2.COLOR_BGR2RGB)
            cells.append(cv2.addWeighted(colored, 0.7, small, 0.3, 0))
        rows.append(np.concatenate(cells, axis=1))
    return np.concatenate(rows)


def image_grid(images: Sequence[np.ndarray], columns: int) -> np.ndarray:
    """Arrange images of equal size (H, W, 3) in a grid, separated by white gaps."""
    height, width = images[0].shape[:2]
    columns = min(columns, len(images))
    rows = -(-len(images) // columns)
    page = np.full((rows * (height + GAP) + GAP, columns * (width + GAP) + GAP, 3), 255, np.uint8)
    for number, image in enumerate(images):
        y = GAP + number // columns * (height + GAP)
        x = GAP + number % columns * (width + GAP)
        page[y : y + height, x : x + width] = image
    return page


def mosaic(images: Sequence[np.ndarray], width: int) -> np.ndarray:
    """Arrange images of equal height (H, W, 3) in rows, separated by white gaps.

    Each row is scaled down to ``width`` pixels; the last row may be narrower.
    """
    rows: list[list[np.ndarray]] = []
    space = 0
    for image in images:
        if space <= 0:
            rows.append([])
            space = width - GAP
        rows[-1].append(image)
        space -= image.shape[1] + GAP
    strips = [_strip(row, width) for row in rows]
    right = max(strip.shape[1] for strip in strips)
    padded = [
        np.pad(strip, ((GAP, 0), (0, right - strip.shape[1]), (0, 0)), constant_values=255)
        for strip in strips
    ]
    return np.pad(np.concatenate(padded), ((0, GAP), (0, 0), (0, 0)), constant_values=255)


def _strip(images: Sequence[np.ndarray], width: int) -> np.ndarray:
    """Join images of equal height side by side, scaled down to at most ``width`` pixels."""
    gaps = GAP * (len(images) + 1)
    edges = np.cumsum([0] + [image.shape[1] for image in images])
    zoom = min(1.0, (width - gaps) / edges[-1])
    edges = np.rint(edges * zoom).astype(int)
    strip = np.full((max(1, round(len(images[0]) * zoom)), edges[-1] + gaps, 3), 255, np.uint8)
    for number, image in enumerate(images):
        x = edges[number] + GAP * (number + 1)
        size = (max(1, edges[number + 1] - edges[number]), len(strip))
        strip[:, x : x + size[0]] = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
    return strip


def write_image(path: str | Path, image: np.ndarray) -> None:
    """Write an RGB image in the format of the suffix, or raise an InputError."""
    suffix = Path(path).suffix
    try:
        is_done, data = cv2.imencode(suffix, np.ascontiguousarray(image[..., ::-1]))
    except cv2.error:  # some versions of OpenCV raise instead of returning False
        is_done = False
    if not is_done:
        raise InputError(f"{path}: cannot write an image in this format; use a suffix such as .png")
    write_atomically(path, data.tobytes())


def write_curves(path: str | Path, history: Sequence[dict[str, float]]) -> None:
    """Plot losses and metrics over the epochs.

    ``history`` has a dict for each epoch with ``epoch``, ``train_loss``, ``train_acc`` and, after a
    validation, its metrics.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 4))
    # Fixed margins: computing a layout takes longer than an epoch on a few images.
    margins = {"left": 0.08, "right": 0.98, "bottom": 0.13, "top": 0.92, "wspace": 0.15}
    losses, scores = figure.subplots(1, 2, gridspec_kw=margins)
    metric = next((name for name in ("AP", "Mean") if any(name in row for row in history)), None)
    curves = [
        (losses, "train_loss", "training"),
        (losses, "valid_loss", "validation"),
        (scores, "train_acc", "accuracy, training (PCK)"),
        (scores, "valid_acc", "accuracy, validation (PCK)"),
        (scores, metric, f"{metric}, validation"),
    ]
    for axes, name, label in curves:
        points = [(row["epoch"] + 1, row[name]) for row in history if name in row]
        if points:
            # The Mean of MPII is in percent.
            values = [y / 100 if name == "Mean" else y for _, y in points]
            axes.plot([x for x, _ in points], values, marker=".", label=label)
    losses.set(title="loss", xlabel="epochs", yscale="log")
    scores.set(title="scores", xlabel="epochs", ylim=(0, 1))
    for axes in (losses, scores):
        axes.grid(alpha=0.3)
        axes.legend()
    write_atomically(path, lambda file: figure.savefig(file, format="png"))
