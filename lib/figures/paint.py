"""Procedural textures of `figures`: skin, faces, hair and cloth.

A paint is a function of points (N, 3) and normals (N, 3) in the frame of a part (left, up, forward)
that returns RGB (N, 3), 0 to 255.
"""

import colorsys

import cv2
import numpy as np

from lib.figures.render import Paint, sample_noise

Rng = np.random.Generator

SKIN_COLORS = (
    (245, 214, 190),
    (235, 196, 165),
    (222, 176, 140),
    (198, 148, 110),
    (160, 110, 78),
    (120, 80, 55),
    (84, 56, 42),
)
HAIR_COLORS = (
    (28, 22, 20),
    (45, 32, 24),
    (80, 54, 34),
    (120, 84, 50),
    (176, 134, 80),
    (214, 184, 130),
    (150, 70, 36),
    (160, 160, 160),
)
CLOTH_COLORS = (
    (35, 35, 38),
    (70, 72, 76),
    (140, 140, 142),
    (232, 232, 230),
    (38, 46, 78),
    (190, 172, 140),
    (90, 76, 62),
)
# Area of the trunk covered by a decal, relative to the chest joint, in units of an adult's
# height: x min, x max, y min, y max.
DECAL = (-0.13, 0.13, -0.19, 0.12)


def sample_color(rng: Rng, basic_probability: float = 0.4) -> np.ndarray:
    """Sample a color of cloth.

    With probability `basic_probability`, it is close to one of `CLOTH_COLORS`.
    """
    if rng.random() < basic_probability:
        return np.array(CLOTH_COLORS[rng.integers(len(CLOTH_COLORS))]) + rng.normal(0, 8, 3)
    hue, saturation, value = rng.random(), rng.uniform(0.25, 0.95), rng.uniform(0.3, 0.95)
    return 255 * np.array(colorsys.hsv_to_rgb(hue, saturation, value))


def sample_wardrobe(rng: Rng, may_be_a_dress: bool, has_bare_trunk: bool) -> dict[str, Paint]:
    """Sample paints for all parts of a person.

    With `may_be_a_dress`, top and bottom may share one paint, as in a dress.
    """
    skin = np.array(SKIN_COLORS[rng.integers(len(SKIN_COLORS))]) + rng.normal(0, 7, 3)
    hair = np.array(HAIR_COLORS[rng.integers(len(HAIR_COLORS))]) + rng.normal(0, 6, 3)
    bare_skin = plain(rng, skin, 0.04)
    bottom = cloth(rng, sample_color(rng, 0.65), pattern_probability=0.25)
    top, top_color = bottom, sample_color(rng)
    if not may_be_a_dress or rng.random() >= 0.45:
        top = cloth(rng, top_color, pattern_probability=0.5)
    glove = rng.random() < 0.06
    return {
        "skin": bare_skin,
        "hand": plain(rng, sample_color(rng), 0.05) if glove else bare_skin,
        "face": face(rng, skin, hair),
        "hair": plain(rng, hair, 0.3, stretch=5.0),
        "hat": cloth(rng, sample_color(rng), pattern_probability=0.25),
        "top": bare_skin if has_bare_trunk else top,
        "trunk": bare_trunk(rng, skin) if has_bare_trunk else trunk(rng, top, skin),
        "bottom": bottom,
        "pelvis": bottom,
        "shin": socks(rng, bare_skin),
        "shoe": bare_skin if rng.random() < 0.07 else shoe(rng),
        "carried": cloth(rng, sample_color(rng), pattern_probability=0.5),
    }


def plain(rng: Rng, color: np.ndarray, roughness: float, stretch: float = 1.0) -> Paint:
    """Create a single-color paint with noise of strength `roughness`; `stretch` elongates the noise
    vertically, as in hair."""
    shift = rng.uniform(0, 256, 2)
    grain = rng.uniform(120, 260)
    color = np.asarray(color, np.float32)

    def paint(points: np.ndarray, normal: np.ndarray) -> np.ndarray:
        u = (points[:, 0] + 0.7 * points[:, 2]) * grain * stretch**0.5 + shift[0]
        v = (points[:, 1] + 0.3 * points[:, 2]) * grain / stretch + shift[1]
        noise = 1 + roughness * sample_noise(u, v)
        return np.stack([channel * noise for channel in color], axis=1)

    return paint


def cloth(rng: Rng, color: np.ndarray, pattern_probability: float) -> Paint:
    """Create a cloth with folds and, with `pattern_probability`, a pattern in a second color."""
    base = plain(rng, color, rng.uniform(0.06, 0.22))
    if rng.random() >= pattern_probability:
        return base
    second = np.asarray(sample_color(rng), np.float32)
    # Styles: 0 horizontal and 1 vertical stripes, 2 checks, 3 grid lines, 4 blotches, 5 dots.
    style = rng.integers(6)
    frequency = 2 * np.pi / rng.uniform(0.018, 0.075)
    threshold = rng.uniform(-0.4, 0.4)
    shift = rng.uniform(0, 256, 2)

    def mask(x: np.ndarray, y: np.ndarray, z: np.ndarray) -> np.ndarray:
        if style == 4:
            return sample_noise((x + z) * 400 + shift[0], y * 400 + shift[1]) > threshold
        across = np.sin(y * frequency)
        if style == 5:
            return across * np.sin((x + 0.4 * z) * frequency) > 0.45
        along = np.sin((x + 0.5 * z) * frequency)
        if style == 3:
            return (across > 0.6) | (along > 0.6)
        stripes = across > threshold, along > threshold
        return stripes[style] if style < 2 else stripes[0] ^ stripes[1]

    def paint(points: np.ndarray, normal: np.ndarray) -> np.ndarray:
        color = base(points, normal)
        chosen = mask(*points.T)
        # Mix in some of the first color, because it contains the shading of the folds.
        color[chosen] = 0.88 * second + 0.12 * color[chosen]
        return color

    return paint


def trunk(rng: Rng, top: Paint, skin: np.ndarray) -> Paint:
    """Create a paint for the body of a shirt or jacket, with decals on front and back."""
    front, back = front_decal(rng, skin), back_decal(rng)

    def paint(points: np.ndarray, normal: np.ndarray) -> np.ndarray:
        color = top(points, normal)
        for decal, side in ((front, 1.0), (back, -1.0)):
            _apply_decal(color, decal, points, side * normal[:, 2] > 0.2)
        return color

    return paint


def open_coat(outer: Paint, inner: Paint, half_width: float) -> Paint:
    """Create a paint for an open coat with a strip of `inner`, `2 * half_width` wide, in front."""

    def paint(points: np.ndarray, normal: np.ndarray) -> np.ndarray:
        is_open = (np.abs(points[:, 0]) < half_width) & (normal[:, 2] > 0.3)
        return np.where(is_open[:, None], inner(points, normal), outer(points, normal))

    return paint


def bare_trunk(rng: Rng, skin: np.ndarray) -> Paint:
    """Create a paint for a bare trunk, with nipples, navel, spine and shoulder blades."""
    base = plain(rng, skin, 0.05)
    dark = np.asarray(skin, np.float32) * (0.68, 0.55, 0.5)

    def paint(points: np.ndarray, normal: np.ndarray) -> np.ndarray:
        color = base(points, normal)
        x, y, _ = points.T
        front, back = normal[:, 2] > 0.2, normal[:, 2] < -0.2
        nipples = np.hypot(np.abs(x) - 0.05, y - 0.03) < 0.008
        navel = np.hypot(x, y + 0.13) < 0.007
        lines = (np.abs(x) < 0.003) & (y > -0.11) | (np.abs(y - 0.002 - 0.6 * x**2) < 0.003)
        blades = (np.abs(np.abs(x) - 0.05 - 0.2 * (y - 0.04)) < 0.004) & (y > 0.02)
        color[front & (nipples | navel)] = dark
        color[front & lines | back & (blades | (np.abs(x) < 0.005))] *= 0.86
        return color

    return paint


def _apply_decal(
    color: np.ndarray, decal: np.ndarray, points: np.ndarray, facing: np.ndarray
) -> None:
    """Blend a decal, uint8 (h, w, 4), into the colors of the points in the mask `facing`, in place.

    The left edge of the decal is on the person's right.
    """
    x0, x1, y0, y1 = DECAL
    h, w = decal.shape[:2]
    u = ((points[:, 0] - x0) * (w / (x1 - x0))).astype(np.int32)
    v = ((y1 - points[:, 1]) * (h / (y1 - y0))).astype(np.int32)
    inside = np.flatnonzero(facing & (u >= 0) & (u < w) & (v >= 0) & (v < h))
    ink = decal[v[inside], u[inside]].astype(np.float32)
    alpha = ink[:, 3:] / 255
    color[inside] += alpha * (ink[:, :3] - color[inside])


def front_decal(rng: Rng, skin: np.ndarray) -> np.ndarray:
    """Paint a decal for the front of a top, uint8 (80, 68, 4).

    It has a neckline, sometimes a pocket, and a random style, such as buttons or a tie.
    """
    decal = np.zeros((80, 68, 4), np.uint8)
    ink = _opaque(sample_color(rng, 0.5))
    styles = ["none", "print", "buttons", "zip", "tie", "open", "straps"]
    weights = np.array([3, 3, 2, 1.5, 1, 1.5, 1])
    style = rng.choice(styles, p=weights / weights.sum())
    if style == "print":
        _print(rng, decal, ink)
    elif style == "buttons":
        cv2.line(decal, (34, 8), (34, 79), (*[int(v) for v in sample_color(rng)], 160), 1)
        for y in range(14, 80, 10):
            cv2.circle(decal, (34, y), 1, ink, -1)
    elif style == "zip":
        cv2.line(decal, (34, 6), (34, 79), ink, 2)
    elif style == "tie":
        cv2.fillPoly(decal, [np.array([[32, 8], [36, 8], [39, 60], [34, 68], [29, 60]])], ink)
    elif style == "open":
        wide = int(rng.integers(6, 14))
        top, bottom = [[34 - wide, 4], [34 + wide, 4]], [[34 + wide // 2, 79], [34 - wide // 2, 79]]
        cv2.fillPoly(decal, [np.array(top + bottom)], ink)
    elif style == "straps":
        for x in (17, 51):
            cv2.line(decal, (x, 0), (x, 79), ink, 5)
    # A pocket or badge on the person's left, which is the right of the decal.
    if rng.random() < 0.25:
        cv2.rectangle(decal, (43, 24), (51, 32), _opaque(sample_color(rng, 0.3)), -1)
    depth = int(rng.integers(7, 18))
    if rng.random() < 0.5:
        cv2.fillPoly(decal, [np.array([[23, 0], [45, 0], [34, depth + 6]])], _opaque(skin * 0.95))
    else:
        cv2.ellipse(decal, (34, 0), (11, depth), 0, 0, 180, _opaque(skin * 0.95), -1)
    return decal


def back_decal(rng: Rng) -> np.ndarray:
    """Paint a decal for the back of a top, uint8 (80, 68, 4): a seam, number, yoke or hood."""
    decal = np.zeros((80, 68, 4), np.uint8)
    ink = _opaque(sample_color(rng, 0.5))
    style = rng.choice(["seam", "number", "yoke", "hood"], p=[0.45, 0.25, 0.15, 0.15])
    if style == "number":
        text = str(rng.integers(1, 100))
        cv2.putText(decal, text, (34 - 13 * len(text), 58), cv2.FONT_HERSHEY_DUPLEX, 1.25, ink, 4)
        decal = decal[:, ::-1]  # mirrored: from behind, the person's left is on the left
    elif style == "yoke":
        cv2.rectangle(decal, (0, 0), (67, int(rng.integers(14, 30))), ink, -1)
    elif style == "hood":
        cv2.ellipse(decal, (34, 4), (20, int(rng.integers(16, 28))), 0, 0, 180, ink, -1)
    else:
        cv2.line(decal, (4, 12), (63, 12), (0, 0, 0, 70), 1)
        cv2.line(decal, (34, 12), (34, 79), (0, 0, 0, 50), 1)
    return decal


def _print(rng: Rng, decal: np.ndarray, ink: tuple) -> None:
    style = rng.integers(4)
    if style == 0:
        text = "".join(chr(65 + c) for c in rng.integers(0, 26, rng.integers(2, 5)))
        cv2.putText(decal, text, (34 - 8 * len(text), 44), cv2.FONT_HERSHEY_DUPLEX, 0.8, ink, 2)
    elif style == 1:
        cv2.circle(decal, (34, 38), int(rng.integers(8, 16)), ink, -1)
    elif style == 2:
        half = int(rng.integers(8, 18))
        cv2.rectangle(decal, (34 - half, 26), (34 + half, 26 + half), ink, -1)
    else:
        y = int(rng.integers(24, 50))
        cv2.rectangle(decal, (0, y), (67, y + int(rng.integers(5, 16))), ink, -1)


def _opaque(color: np.ndarray) -> tuple[int, int, int, int]:
    r, g, b = (int(v) for v in np.clip(color, 0, 255))
    return r, g, b, 255


def face(rng: Rng, skin: np.ndarray, hair: np.ndarray) -> Paint:
    """Create a paint for a face, perhaps with a beard or glasses. Points are in head lengths."""
    base = plain(rng, skin, 0.03)
    skin = np.asarray(skin, np.float32)
    brow, lips = 0.7 * hair + 0.1 * skin, skin * rng.uniform((0.75, 0.4, 0.42), (0.92, 0.6, 0.6))
    iris = np.array(((40, 26, 18), (60, 90, 130), (70, 90, 60), (90, 60, 30))[rng.integers(4)])
    beard = rng.random() < 0.16
    glasses = rng.random() < 0.14
    smile = rng.uniform(-0.2, 1.2)
    dark_glass = rng.random() < 0.4

    def paint(points: np.ndarray, normal: np.ndarray) -> np.ndarray:
        color = base(points, normal)
        x, y, z = points.T
        ax, front = np.abs(x), z > 0.05
        if beard:
            color[front & (y < -0.13 - 0.35 * np.maximum(0.1 - z, 0)) & (z < 0.5)] = hair
        eye = front & (((ax - 0.14) / 0.075) ** 2 + ((y - 0.05) / 0.042) ** 2 < 1)
        color[eye] = (238, 236, 232)
        color[front & ((ax - 0.14) ** 2 + (y - 0.05) ** 2 < 0.036**2)] = iris
        lid, arch = y - 0.095 + 2 * (ax - 0.14) ** 2, y - 0.15 + 3 * (ax - 0.13) ** 2
        color[front & (np.abs(ax - 0.14) < 0.08) & (np.abs(lid) < 0.012)] *= 0.55
        color[front & (np.abs(ax - 0.145) < 0.085) & (np.abs(arch) < 0.022)] = brow
        color[front & (ax < 0.1) & (np.abs(y + 0.215 - 2 * smile * x**2) < 0.028)] = lips
        # nostrils
        color[front & (np.abs(ax - 0.028) < 0.016) & (np.abs(y + 0.125) < 0.014)] *= 0.5
        if glasses:
            ring = np.hypot((ax - 0.145) / 1.15, y - 0.045)
            rim = front & ((ring < 0.105) if dark_glass else (np.abs(ring - 0.095) < 0.014))
            color[rim | front & (ax < 0.05) & (np.abs(y - 0.06) < 0.012)] = (28, 26, 28)
        return color

    return paint


def socks(rng: Rng, bare_skin: Paint) -> Paint:
    """Create a paint for a shin, bare or with a sock of random height; the origin is the ankle."""
    # -1, far below the foot, means no sock.
    height = float(rng.choice([-1.0, 0.04, 0.08, 0.19], p=[0.35, 0.3, 0.2, 0.15]))
    sock = plain(rng, sample_color(rng, 0.7), 0.06)

    def paint(points: np.ndarray, normal: np.ndarray) -> np.ndarray:
        is_sock = (points[:, 1] < height)[:, None]
        return np.where(is_sock, sock(points, normal), bare_skin(points, normal))

    return paint


def shoe(rng: Rng) -> Paint:
    """Create a paint for a shoe with a sole, a toe cap and, in some cases, laces."""
    upper = plain(rng, sample_color(rng, 0.6), 0.06)
    sole = np.asarray(sample_color(rng, 0.9), np.float32)
    trim = np.asarray(sample_color(rng, 0.6), np.float32)
    lace = rng.random() < 0.6

    def paint(points: np.ndarray, normal: np.ndarray) -> np.ndarray:
        color = upper(points, normal)
        _, y, z = points.T
        if lace:
            color[(normal[:, 1] > 0.3) & (z > 0.01) & (z < 0.06) & (np.sin(z * 500) > 0)] = trim
        color[z > 0.085] = 0.5 * color[z > 0.085] + 0.5 * trim
        color[y < -0.034] = sole
        return color

    return paint
