"""Surroundings of people: backgrounds, clutter that resembles limbs, occluders, camera effects."""

import cv2
import numpy as np

from lib.figures import paint as paints
from lib.figures.body import rotation
from lib.figures.render import Camera, Layer, Light, Part, cone, noise_tile, render

Rng = np.random.Generator
GROUND_COLORS = (
    (90, 125, 60),
    (150, 140, 115),
    (125, 125, 125),
    (210, 195, 160),
    (235, 238, 242),
    (80, 115, 140),
    (120, 85, 60),
)
# Image size (width, height) -> probability.
SIZES = {
    (320, 240): 0.2,
    (240, 320): 0.1,
    (384, 288): 0.16,
    (288, 384): 0.1,
    (400, 300): 0.14,
    (480, 320): 0.08,
    (480, 360): 0.1,
    (360, 480): 0.06,
    (640, 480): 0.06,
}


def sample_size(rng: Rng) -> tuple[int, int]:
    """Sample an image size (width, height)."""
    return list(SIZES)[rng.choice(len(SIZES), p=list(SIZES.values()))]


def background(rng: Rng, size: tuple[int, int], light: Light) -> np.ndarray:
    """Draw a background, float32 (H, W, 3): outdoors, indoors, a texture or a studio.

    It may contain clutter, which is rare in a studio, and may be out of focus.
    """
    draw = [_outdoors, _indoors, _texture, _studio][rng.choice(4, p=[0.38, 0.3, 0.16, 0.16])]
    image = np.ascontiguousarray(draw(rng, size))
    if draw is _studio and rng.random() < 0.75:
        return image
    for _ in range(rng.integers(0, 7)):
        _shape(rng, image)
    for _ in range(rng.integers(0, 4)):
        layer = render(_clutter(rng), _clutter_camera(rng, size), light, size)
        if layer is not None:
            blend(image, layer)
    if rng.random() < 0.35:
        image = cv2.GaussianBlur(image, (0, 0), float(rng.uniform(0.7, 3.5)))
    return image


def blend(image: np.ndarray, layer: Layer) -> None:
    """Blend a layer into a float32 image, in place."""
    window = layer.window(image)
    window *= 1 - layer.alpha[..., None]
    window += layer.color


def _noise(rng: Rng, size: tuple[int, int], zoom: float) -> np.ndarray:
    """Sample noise, float32 (H, W), about -1 to 1: a random part of the noise tile, enlarged by
    `zoom`."""
    w, h = size
    rolled = np.roll(noise_tile(), tuple(rng.integers(0, 256, 2)), (0, 1))
    cut = rolled[: max(2, min(256, int(h / zoom))), : max(2, min(256, int(w / zoom)))]
    return cv2.resize(cut, (w, h), interpolation=cv2.INTER_LINEAR)


def _gradient(
    rng: Rng, size: tuple[int, int], top: np.ndarray, bottom: np.ndarray, roughness: float
) -> np.ndarray:
    """Draw a vertical gradient with noise."""
    ramp = np.linspace(0, 1, size[1], dtype=np.float32)[:, None, None]
    column = (np.asarray(top) * (1 - ramp) + np.asarray(bottom) * ramp).astype(np.float32)
    noise = 1 + roughness * _noise(rng, size, float(rng.uniform(0.8, 6)))
    return np.stack([column[..., i] * noise for i in range(3)], axis=2)


def _outdoors(rng: Rng, size: tuple[int, int]) -> np.ndarray:
    """Draw sky, a skyline of trees or houses, and ground."""
    w, h = size
    horizon = int(h * rng.uniform(0.2, 0.65))
    sky = rng.uniform((140, 165, 190), (225, 235, 255)) * rng.uniform(0.6, 1.0)
    image = _gradient(rng, size, sky, np.minimum(sky * 1.15, 250), rng.uniform(0.0, 0.2))
    color = np.array(GROUND_COLORS[rng.integers(len(GROUND_COLORS))]) * rng.uniform(0.65, 1.1)
    if rng.random() < 0.75:
        _skyline(rng, image, horizon)
    below = (w, h - horizon)
    image[horizon:] = _gradient(rng, below, color * 0.9, color * 1.05, rng.uniform(0.05, 0.35))
    for _ in range(rng.integers(0, 4)):
        _tree(rng, image, horizon)
    if rng.random() < 0.3:
        # Lines on the ground that meet at the horizon, like those of a road.
        for x in np.linspace(-w, 2 * w, int(rng.integers(3, 9))):
            line, thickness = tuple(color * rng.uniform(0.7, 1.4)), int(rng.integers(1, 4))
            cv2.line(image, (w // 2, horizon), (int(x), h), line, thickness, cv2.LINE_AA)
    return image


def _skyline(rng: Rng, image: np.ndarray, horizon: int) -> None:
    w = image.shape[1]
    x = 0
    green = rng.random() < 0.5
    base = rng.uniform((30, 60, 25), (90, 120, 70)) if green else rng.uniform(90, 200, 3)
    while x < w:
        wide, high = int(rng.integers(w // 16, w // 4)), int(horizon * rng.uniform(0.1, 0.8))
        color = tuple(base * rng.uniform(0.7, 1.25))
        if green:
            crown = (x + wide // 2, horizon), (wide, high)
            cv2.ellipse(image, *crown, 0, 180, 360, color, -1, cv2.LINE_AA)
        else:
            cv2.rectangle(image, (x, horizon - high), (x + wide, horizon), color, -1)
            _windows(rng, image, (x, horizon - high, wide, high))
        x += max(4, int(wide * rng.uniform(0.6, 1.1)))


def _windows(rng: Rng, image: np.ndarray, box: tuple[int, int, int, int]) -> None:
    x, y, w, h = box
    step = int(rng.integers(8, 22))
    color = tuple(rng.uniform(20, 240, 3))
    for row in range(y + 4, y + h - step // 2, step):
        for column in range(x + 4, x + w - step // 2, step):
            cv2.rectangle(image, (column, row), (column + step // 2, row + step // 2), color, -1)


def _tree(rng: Rng, image: np.ndarray, horizon: int) -> None:
    h, w = image.shape[:2]
    x = int(rng.integers(0, w))
    y = int(rng.integers(horizon, max(horizon + 1, (horizon + h) // 2)))
    high, wide = int(h * rng.uniform(0.25, 0.8)), int(rng.integers(4, 20))
    bark = tuple(rng.uniform((60, 45, 30), (130, 105, 85)))
    top = (x + int(rng.normal(0, wide)), y - high)
    cv2.line(image, (x, y), top, bark, wide, cv2.LINE_AA)
    for _ in range(rng.integers(6, 22)):
        center = (x + int(rng.normal(0, high * 0.2)), y - high + int(rng.normal(0, high * 0.15)))
        radius = max(int(high * rng.uniform(0.04, 0.15)), 2)
        leaves = tuple(rng.uniform((35, 70, 20), (95, 145, 65)))
        cv2.circle(image, center, radius, leaves, -1, cv2.LINE_AA)


def _indoors(rng: Rng, size: tuple[int, int]) -> np.ndarray:
    """Draw a wall with pictures, doors or shelves, and a floor."""
    w, h = size
    edge = int(h * rng.uniform(0.5, 0.85))
    wall = paints.sample_color(rng, 0.3) * 0.4 + rng.uniform(60, 150)
    image = _gradient(rng, size, wall * 0.95, wall, rng.uniform(0.0, 0.12))
    floor = paints.sample_color(rng, 0.6) * 0.8
    image[edge:] = _gradient(rng, (w, h - edge), floor, floor * 1.15, rng.uniform(0.03, 0.3))
    for _ in range(rng.integers(1, 6)):
        x, y = int(rng.integers(-w // 8, w)), int(rng.integers(0, edge))
        wide, high = int(rng.integers(w // 12, w // 3)), int(rng.integers(h // 12, h // 2))
        corners = (x, y), (x + wide, min(y + high, edge))
        cv2.rectangle(image, *corners, tuple(paints.sample_color(rng)), -1)
        cv2.rectangle(image, *corners, tuple(wall * 0.5), int(rng.integers(1, 4)))
    if rng.random() < 0.35:
        step = int(rng.integers(10, 50))
        for x in range(int(rng.integers(0, step)), w, step):
            cv2.line(image, (x, 0), (x, edge), tuple(wall * 0.85), 1)
    cv2.line(image, (0, edge), (w, edge), tuple(wall * 0.6), int(rng.integers(1, 5)))
    return image


def _texture(rng: Rng, size: tuple[int, int]) -> np.ndarray:
    """Draw a gradient with blotches of one or two other colors."""
    top, bottom = paints.sample_color(rng), paints.sample_color(rng)
    image = _gradient(rng, size, top, bottom, rng.uniform(0, 0.3))
    for _ in range(rng.integers(1, 3)):
        noise = _noise(rng, size, float(rng.uniform(1, 8))) * rng.uniform(1, 5)
        weight = np.clip(noise + 0.5, 0, 1)[..., None]
        image += weight * (paints.sample_color(rng).astype(np.float32) - image) * np.float32(0.8)
    return image


def _studio(rng: Rng, size: tuple[int, int]) -> np.ndarray:
    """Draw a plain, often whitish backdrop, brighter around a random point; perhaps a floor."""
    w, h = size
    color = paints.sample_color(rng, 0.2)
    if rng.random() < 0.5:
        color = np.full(3, rng.uniform(190, 250)) + rng.normal(0, 5, 3)
    image = _gradient(rng, size, color, color * rng.uniform(0.85, 1.05), rng.uniform(0.0, 0.04))
    if rng.random() < 0.3:
        edge = int(h * rng.uniform(0.6, 0.92))
        image[edge:] *= np.float32(rng.uniform(0.75, 1.1))
        image = cv2.GaussianBlur(image, (0, 0), float(rng.uniform(0.5, 8)))
    x, y = rng.uniform(0, w), rng.uniform(0, h)
    ys, xs = np.mgrid[0:h, 0:w].astype(np.float32)
    far = np.hypot(xs - x, ys - y) / np.float32(max(size))
    return image * (1 - np.float32(rng.uniform(0, 0.35)) * far)[..., None]


def _shape(rng: Rng, image: np.ndarray) -> None:
    """Draw a rectangle, disc, polygon or, most often, a limb-like bar, in place."""
    h, w = image.shape[:2]
    color = tuple(float(v) for v in paints.sample_color(rng))
    if rng.random() < 0.3:
        color = tuple(float(v) for v in paints.SKIN_COLORS[rng.integers(len(paints.SKIN_COLORS))])
    style = rng.choice(4, p=[0.25, 0.15, 0.2, 0.4])
    x, y = int(rng.integers(0, w)), int(rng.integers(0, h))
    reach = int(rng.integers(10, max(w, h) // 3))
    if style == 0:
        cv2.rectangle(image, (x, y), (x + reach, y + int(reach * rng.uniform(0.3, 2))), color, -1)
    elif style == 1:
        cv2.circle(image, (x, y), reach // 2, color, -1, cv2.LINE_AA)
    elif style == 2:
        points = np.array([x, y]) + rng.integers(-reach, reach + 1, (int(rng.integers(3, 7)), 2))
        cv2.fillPoly(image, [cv2.convexHull(points.astype(np.int32))], color, cv2.LINE_AA)
    else:
        end = (x + int(rng.normal(0, reach)), y + int(rng.normal(0, reach)))
        thickness = int(rng.integers(2, 18))
        cv2.line(image, (x, y), end, color, thickness, cv2.LINE_AA)
        core_color, core_thickness = tuple(0.8 * v for v in color), max(1, thickness // 3)
        cv2.line(image, (x, y), end, core_color, core_thickness, cv2.LINE_AA)


def _clutter(rng: Rng) -> list[Part]:
    """Build 3D clutter: limb-like pieces, a chair or a bare tree; y points up."""
    style = rng.choice(3, p=[0.5, 0.3, 0.2])
    cones = []
    if style == 0:
        start = rng.normal(0, 0.2, 3)
        for _ in range(rng.integers(1, 6)):
            end = start + rng.normal(0, 0.18, 3)
            cones.append(cone(start, end, *rng.uniform(0.02, 0.08, 2)))
            start = end if rng.random() < 0.6 else rng.normal(0, 0.3, 3)
    elif style == 1:
        thickness = rng.uniform(0.008, 0.02)
        for x in (-0.2, 0.2):
            for z, top in ((-0.2, 0.9 * rng.random()), (0.2, 0.0)):
                cones.append(cone((x, top, z), (1.1 * x, -0.45, 1.1 * z), thickness, thickness))
            cones.append(cone((x, 0, -0.2), (x, 0, 0.2), 0.03, 0.03))
        cones += [cone((-0.2, 0, z), (0.2, 0, z), 0.04, 0.04) for z in (-0.15, 0.0, 0.15)]
    else:
        cones.append(cone((0, -0.6, 0), (*rng.normal(0, 0.05, 2), 0), 0.06, 0.045))
        for _ in range(rng.integers(2, 7)):
            y = rng.uniform(-0.2, 0.1)
            tip = rng.normal(0, 0.3), y + rng.uniform(0.1, 0.5), rng.normal(0, 0.2)
            cones.append(cone((0, y, 0), tip, 0.035, 0.012))
    paint = paints.cloth(rng, paints.sample_color(rng), 0.3)
    if rng.random() < 0.3:
        skin = np.array(paints.SKIN_COLORS[rng.integers(len(paints.SKIN_COLORS))])
        paint = paints.plain(rng, skin, 0.05)
    return [Part(np.array(cones, float), np.eye(3), np.zeros(3), paint)]


def _clutter_camera(rng: Rng, size: tuple[int, int]) -> Camera:
    pitch, yaw = rng.uniform(-5, 20), rng.uniform(0, 360)
    turn = rotation("x", pitch) @ np.diag([1.0, -1.0, -1.0]) @ rotation("y", yaw)
    center = (rng.uniform(0, size[0]), rng.uniform(0.2, 1) * size[1])
    return Camera(turn, np.zeros(3), rng.uniform(60, 260), center, 4.0)


def occluder(
    rng: Rng, size: tuple[int, int], light: Light, target: tuple[float, float, float]
) -> Layer | None:
    """Draw an object in front of a person; None if it is outside the image.

    `target` has x and y of the person's center and the person's length, in pixels.
    """
    x, y, length = target
    center = (x + rng.normal(0, 0.25) * length, y + rng.uniform(-0.1, 0.5) * length)
    if rng.random() < 0.3:
        camera = _clutter_camera(rng, size)
        camera = Camera(camera.turn, camera.pivot, length * rng.uniform(0.35, 0.8), center, 4.0)
        return render(_clutter(rng), camera, light, size)
    mask = np.zeros((size[1], size[0]), np.uint8)
    draw = [_box, _pole, _table, _plant, _rail][rng.integers(5)]
    draw(rng, mask, center, length)
    if not mask.any():
        return None
    top = paints.sample_color(rng)
    color = _gradient(rng, size, top, top * rng.uniform(0.6, 1.0), rng.uniform(0.05, 0.3))
    color = color.clip(0, 255)
    alpha = mask.astype(np.float32) / 255
    depth = np.where(mask > 127, 0, np.inf).astype(np.float32)
    return Layer(0, 0, color * alpha[..., None], alpha, mask > 127, depth)


def _box(rng: Rng, mask: np.ndarray, center: tuple[float, float], length: float) -> None:
    wide, high = length * rng.uniform(0.12, 0.45), length * rng.uniform(0.1, 0.4)
    box = cv2.boxPoints((center, (wide, high), float(rng.normal(0, 12))))
    cv2.fillPoly(mask, [box.astype(np.int32)], 255, cv2.LINE_AA)


def _pole(rng: Rng, mask: np.ndarray, center: tuple[float, float], length: float) -> None:
    lean, h = rng.normal(0, 0.05), mask.shape[0]
    thickness = max(2, int(length * rng.uniform(0.02, 0.09)))
    ends = (int(center[0] - lean * h), -10), (int(center[0] + lean * h), h + 10)
    cv2.line(mask, *ends, 255, thickness, cv2.LINE_AA)


def _table(rng: Rng, mask: np.ndarray, center: tuple[float, float], length: float) -> None:
    x, y = int(center[0]), int(center[1])
    half, drop = int(length * rng.uniform(0.35, 0.8)), int(length * rng.uniform(0.35, 0.6))
    thickness = max(2, int(length * rng.uniform(0.03, 0.12)))
    cv2.line(mask, (x - half, y), (x + half, y), 255, thickness, cv2.LINE_AA)
    for leg in (x - int(0.9 * half), x + int(0.9 * half)):
        cv2.line(mask, (leg, y), (leg, y + drop), 255, max(2, thickness // 2), cv2.LINE_AA)


def _plant(rng: Rng, mask: np.ndarray, center: tuple[float, float], length: float) -> None:
    x, y = center
    for _ in range(rng.integers(6, 20)):
        angle, reach = rng.uniform(-160, -20), length * rng.uniform(0.1, 0.32)
        tip = x + reach * np.cos(np.deg2rad(angle)), y + reach * np.sin(np.deg2rad(angle))
        middle = int((x + tip[0]) / 2), int((y + tip[1]) / 2)
        axes = max(2, int(reach / 2)), max(1, int(length * rng.uniform(0.01, 0.035)))
        cv2.ellipse(mask, middle, axes, float(angle), 0, 360, 255, -1, cv2.LINE_AA)


def _rail(rng: Rng, mask: np.ndarray, center: tuple[float, float], length: float) -> None:
    y, w = int(center[1]), mask.shape[1]
    thickness = max(1, int(length * rng.uniform(0.012, 0.04)))
    for k in range(int(rng.integers(1, 4))):
        level = y + int(k * 0.12 * length)
        cv2.line(mask, (0, level), (w, level + int(rng.normal(0, 6))), 255, thickness, cv2.LINE_AA)


def apply_camera_effects(rng: Rng, image: np.ndarray) -> np.ndarray:
    """Convert float32 (H, W, 3) to uint8, with random exposure, color cast, contrast, vignette,
    blur, noise and JPEG compression."""
    h, w = image.shape[:2]
    gain = np.clip(rng.normal(1.05, 0.16), 0.6, 1.45) * np.clip(rng.normal(1, 0.04, 3), 0.9, 1.1)
    contrast = np.clip(rng.normal(1.0, 0.12), 0.7, 1.3)
    # Contrast scales the distances of all pixels from a medium gray, 110, which then becomes
    # `new_gray`.
    new_gray = np.float32(110 + rng.normal(0, 6))
    image = (image * gain.astype(np.float32) - 110) * np.float32(contrast) + new_gray
    if rng.random() < 0.25:
        ys, xs = np.mgrid[-1 : 1 : h * 1j, -1 : 1 : w * 1j].astype(np.float32)
        image *= (1 - rng.uniform(0.1, 0.3) * (xs**2 + ys**2))[..., None].astype(np.float32)
    if rng.random() < 0.25:
        image = cv2.GaussianBlur(image, (0, 0), float(rng.uniform(0.4, 1.1)))
    if rng.random() < 0.6:
        image = image + rng.standard_normal(image.shape, np.float32) * np.float32(rng.uniform(1, 9))
    pixels = np.clip(image, 0, 255).astype(np.uint8)
    if rng.random() < 0.25:
        quality = int(rng.integers(25, 75))
        _, code = cv2.imencode(".jpg", pixels, [cv2.IMWRITE_JPEG_QUALITY, quality])
        pixels = cv2.imdecode(code, cv2.IMREAD_COLOR)
    return pixels
