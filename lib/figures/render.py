"""A small ray caster for `figures`: round cones, a depth buffer, procedural textures, one light.

A round cone is the volume of a sphere that moves along a segment while its radius changes linearly.
Its intersection with a ray has a closed form, and it suits tapered limbs with round joints.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import cv2
import numpy as np

# (N, 3) points and (N, 3) unit normals in the frame of a part -> (N, 3) RGB colors, 0 to 255.
Paint = Callable[[np.ndarray, np.ndarray], np.ndarray]


@dataclass(frozen=True)
class Part:
    """Cones that share a paint.

    A cone is a row ax, ay, az, bx, by, bz, ra, rb, is_open in the body frame. An open cone has no
    round cap at b; it ends like a sleeve. `frame` and `origin` are only for the paint.
    """

    cones: np.ndarray  # (n, 9)
    frame: np.ndarray  # (3, 3) with the columns left, up, forward
    origin: np.ndarray  # origin of the frame
    paint: Paint  # texture; its points are in this frame, divided by `unit`
    unit: float = 1.0
    is_body: bool = True  # False for carried objects, which are not part of the person's mask


def cone(a: np.ndarray, b: np.ndarray, ra: float, rb: float, is_open: bool = False) -> np.ndarray:
    """Create one row of `Part.cones`."""
    return np.concatenate([a, b, [ra, rb, is_open]])


@dataclass(frozen=True)
class Camera:
    """Transform from the body frame to pixels: a rotation, then a perspective projection."""

    turn: np.ndarray  # (3, 3) rotation to camera axes (x right, y down, z away)
    pivot: np.ndarray  # (3,) center of the rotation
    scale: float  # pixels per body unit at the pivot
    center: tuple[float, float]  # pixel of the pivot
    distance: float  # from the camera to the pivot, in body units

    def project(self, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Project points (n, 3); returns x, y, depth in pixels (n, 3), and the scale at each point
        in pixels per body unit (n,)."""
        turned = (np.atleast_2d(points) - self.pivot) @ self.turn.T
        pixels = self.scale * self.distance / np.maximum(self.distance + turned[:, 2], 0.3)
        xy = turned[:, :2] * pixels[:, None] + self.center
        return np.column_stack([xy, turned[:, 2] * self.scale]), pixels

    def zoom(self, factor: float, origin: tuple[float, float]) -> "Camera":
        """Return the camera of a window at `origin` with `factor` times the resolution."""
        # Pixel centers have integer coordinates at both resolutions.
        half = 0.5 * (factor - 1)
        center = tuple((c - o) * factor + half for c, o in zip(self.center, origin, strict=True))
        return Camera(self.turn, self.pivot, self.scale * factor, center, self.distance)


@dataclass(frozen=True)
class Layer:
    """A rendered person or object, in a window of the image."""

    x: int  # left edge of the window
    y: int  # upper edge
    color: np.ndarray  # float32 (h, w, 3), premultiplied by alpha
    alpha: np.ndarray  # float32 (h, w)
    body_mask: np.ndarray  # bool (h, w), the person without carried objects
    depth: np.ndarray  # float32 (h, w), of the nearest surface, in pixels; inf if there is none

    def window(self, image: np.ndarray) -> np.ndarray:
        """Return the part of an array (H, W, ...) that the layer covers, as a view."""
        h, w = self.alpha.shape
        return image[self.y : self.y + h, self.x : self.x + w]


@lru_cache(maxsize=1)
def noise_tile() -> np.ndarray:
    """Return smooth periodic noise, float32 (256, 256), about -1 to 1; always the same."""
    rng = np.random.default_rng(20)
    fy, fx = np.meshgrid(np.fft.fftfreq(256), np.fft.fftfreq(256), indexing="ij")
    frequency = np.hypot(fx, fy)
    spectrum = np.fft.fft2(rng.standard_normal((256, 256))) / (frequency + 0.012) ** 1.4
    spectrum[0, 0] = 0
    tile = np.fft.ifft2(spectrum).real
    return (tile / (2 * tile.std())).clip(-1.3, 1.3).astype(np.float32)


def sample_noise(u: np.ndarray, v: np.ndarray) -> np.ndarray:
    """Sample the periodic noise tile at coordinates (N,) in pixels."""
    # NumPy indexes one axis much faster than two.
    return noise_tile().take((v.astype(np.int32) & 255) * 256 + (u.astype(np.int32) & 255))


def render(
    parts: list[Part], camera: Camera, light: "Light", size: tuple[int, int]
) -> Layer | None:
    """Render parts for an image of `size` (width, height); None if they are outside the image."""
    cones = np.concatenate([part.cones for part in parts])
    a, scale_a = camera.project(cones[:, 0:3])
    b, scale_b = camera.project(cones[:, 3:6])
    radii = np.column_stack([cones[:, 6] * scale_a, cones[:, 7] * scale_b])
    low = np.minimum(a[:, :2] - radii[:, :1], b[:, :2] - radii[:, 1:]).min(0)
    high = np.maximum(a[:, :2] + radii[:, :1], b[:, :2] + radii[:, 1:]).max(0)
    x0, y0 = np.maximum(np.floor(low).astype(int) - 1, 0)
    x1, y1 = np.minimum(np.ceil(high).astype(int) + 2, size)
    if x1 - x0 < 2 or y1 - y0 < 2:
        return None
    oversampling = 2
    camera = camera.zoom(oversampling, (float(x0), float(y0)))
    shape = ((y1 - y0) * oversampling, (x1 - x0) * oversampling)
    color, hit, body, depth = _draw(parts, cones, camera, light, shape)
    size_out = (x1 - x0, y1 - y0)
    alpha = cv2.resize(hit, size_out, interpolation=cv2.INTER_AREA)
    if not alpha.any():
        return None
    color = cv2.resize(color, size_out, interpolation=cv2.INTER_AREA)
    body_mask = cv2.resize(body, size_out, interpolation=cv2.INTER_AREA) >= 0.5
    depth = np.minimum(depth[::2], depth[1::2])
    depth = np.minimum(depth[:, ::2], depth[:, 1::2]) / oversampling
    return Layer(int(x0), int(y0), color, alpha, body_mask, depth)


def _draw(
    parts: list[Part], cones: np.ndarray, camera: Camera, light: "Light", shape: tuple[int, int]
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Return color (h, w, 3), hit (h, w), body (h, w) and depth (h, w), all float32, at the
    resolution of `camera`. `hit` is 1 on all surfaces, `body` only on the person's."""
    a, scale_a = camera.project(cones[:, 0:3])
    b, scale_b = camera.project(cones[:, 3:6])
    sizes = np.column_stack([cones[:, 6] * scale_a, cones[:, 7] * scale_b])
    depth, which, along = cast_rays(a, b, sizes, cones[:, 8] > 0, shape)
    # NumPy is much faster with flat indices than with pairs of indices, and with separate arrays of
    # x, y and z than with rows of three.
    flat = np.flatnonzero(which >= 0)
    k, t = which.ravel()[flat].astype(np.intp), along.ravel()[flat]
    a, b, sizes = (array.astype(np.float32).T for array in (a, b, sizes))
    radius = np.maximum(sizes[0].take(k) + t * (sizes[1] - sizes[0]).take(k), 1e-3)
    rows, columns = np.divmod(flat, shape[1])
    points = np.empty((len(flat), 3), np.float32)
    points[:, 0], points[:, 1], points[:, 2] = columns, rows, depth.ravel()[flat]
    normal = np.empty_like(points)
    for i in range(3):
        core = a[i].take(k) + t * (b[i] - a[i]).take(k)
        normal[:, i] = (points[:, i] - core) / radius
    shade = light.shade(normal)
    # NumPy sorts 16-bit integers faster.
    owner = np.repeat(np.arange(len(parts), dtype=np.int16), [len(part.cones) for part in parts])
    part_of = owner[k]
    order = np.argsort(part_of, kind="stable")
    flat, part_of = flat[order], part_of[order]
    points, normal, shade = (array.take(order, 0) for array in (points, normal, shade))
    painted = np.empty_like(points)
    starts = np.searchsorted(part_of, np.arange(len(parts) + 1))
    for part, start, stop in zip(parts, starts[:-1], starts[1:], strict=True):
        if start == stop:
            continue
        origin, scale = camera.project(part.origin)
        basis = (camera.turn @ part.frame).astype(np.float32)
        local = (points[start:stop] - origin[0].astype(np.float32)) @ basis
        painted[start:stop] = part.paint(
            local / np.float32(scale[0] * part.unit), normal[start:stop] @ basis
        )
    painted *= shade
    hit, body = np.zeros(shape, np.float32), np.zeros(shape, np.float32)
    color = np.zeros((*shape, 3), np.float32)
    hit.ravel()[flat] = 1
    body.ravel()[flat] = np.array([part.is_body for part in parts], np.float32)[part_of]
    color.reshape(-1, 3)[flat] = np.clip(painted, 0, 255)
    return color, hit, body, depth


def cast_rays(
    a: np.ndarray, b: np.ndarray, radii: np.ndarray, is_open: np.ndarray, shape: tuple[int, int]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Intersect parallel rays, one per pixel, with round cones.

    The rays are parallel because `Camera.project` has already applied the perspective to the cones.

    At each point m(t) of its axis, a cone is a sphere of radius r(t). The ray through p enters this
    sphere at the depth z(t) = az + t dz - sqrt(f(t)), where
    f(t) = r(t)^2 - |p - m(t)|^2 = qc + 2 qb t + qa t^2, with distances in the image plane. For
    f > 0, z is convex, so the nearest surface is where dz sqrt(f) = qa t + qb, with t clamped to
    the segment.

    Args:
        a, b: (n, 3) ends of the cones in pixels; z points away from the camera.
        radii: (n, 2).
        is_open: (n,) cones without a cap at b.
        shape: (h, w) of the image.

    Returns:
        Depth, float32 (h, w); the index of the cone, int16 (h, w), -1 if there is none; and t,
        float32 (h, w), 0 at a and 1 at b.
    """
    depth = np.full(shape, np.inf, np.float32)
    which = np.full(shape, -1, np.int16)
    along = np.zeros(shape, np.float32)
    low = np.floor(np.minimum(a[:, :2] - radii[:, :1], b[:, :2] - radii[:, 1:])).astype(int)
    high = np.ceil(np.maximum(a[:, :2] + radii[:, :1], b[:, :2] + radii[:, 1:])).astype(int) + 1
    low, high = np.maximum(low, 0), np.minimum(high, (shape[1], shape[0]))
    for k in range(len(a)):
        (x0, y0), (x1, y1) = low[k], high[k]
        if x1 <= x0 or y1 <= y0:
            continue
        dx, dy, dz = (float(v) for v in b[k] - a[k])
        ra, dr = float(radii[k, 0]), float(radii[k, 1] - radii[k, 0])
        qx = np.arange(x0, x1, dtype=np.float32) - np.float32(a[k, 0])
        qy = (np.arange(y0, y1, dtype=np.float32) - np.float32(a[k, 1]))[:, None]
        # Kept negative; for a cone seen end-on it would be 0 or more.
        qa = min(dr * dr - dx * dx - dy * dy, -1e-2)
        qb = (qx * dx + ra * dr) + qy * dy
        qc = (ra * ra - qx * qx) - qy * qy
        discriminant = np.maximum(qb * qb - qa * qc, 0)
        unclamped = (dz * np.sqrt(discriminant / (dz * dz - qa)) - qb) / qa
        t = unclamped.clip(0, 1)
        f = qc + t * (2 * qb + qa * t)
        z = np.float32(a[k, 2]) + t * dz - np.sqrt(np.maximum(f, 0))
        window = (slice(y0, y1), slice(x0, x1))
        nearer = (f > 0) & (z < depth[window])
        if is_open[k]:
            nearer &= unclamped < 1
        np.copyto(depth[window], z, where=nearer)
        np.copyto(along[window], t, where=nearer)
        np.copyto(which[window], k, where=nearer)
    return depth, which, along


@dataclass(frozen=True)
class Light:
    """A lamp and ambient light."""

    direction: np.ndarray  # (3,) unit vector to the lamp, in camera axes
    lamp: np.ndarray  # RGB factors up to about 1
    ambient: np.ndarray  # RGB factors up to about 1

    def shade(self, normal: np.ndarray) -> np.ndarray:
        """Return RGB factors (N, 3) for surfaces with the given normals (N, 3) in camera axes."""
        facing = np.maximum(normal @ self.direction.astype(np.float32), 0)
        # Surfaces that face up (y < 0) or the camera (z < 0) get more ambient light.
        sky = (0.82 - 0.18 * normal[:, 1]) * (0.62 - 0.38 * np.minimum(normal[:, 2], 0))
        lamp, ambient = self.lamp.astype(np.float32), self.ambient.astype(np.float32)
        return np.stack([facing * r + sky * s for r, s in zip(lamp, ambient, strict=True)], axis=1)


def sample_light(rng: np.random.Generator) -> Light:
    """Sample a light: soft or hard, warm or cold, from above and mostly from the camera's side."""
    direction = np.array([rng.uniform(-1, 1), rng.uniform(-1.2, 0.1), rng.uniform(-1, 0.25)])
    direction /= np.linalg.norm(direction)
    hardness = rng.uniform(0.15, 0.75)
    warmth = rng.normal(0, 0.06)
    lamp = hardness * np.array([1 + warmth, 1.0, 1 - warmth])
    ambient = (1.0 - 0.6 * hardness) * np.array([1 - 0.5 * warmth, 1.0, 1 + 0.5 * warmth])
    return Light(direction, lamp, ambient * rng.uniform(0.8, 1.1))
