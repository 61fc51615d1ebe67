"""Images and annotations of `figures`, the built-in data set of synthetic people with COCO joints.

An image depends only on (seed, split, index). Visibility flags are derived from the finished image
(see `_flags`) and have COCO's meaning: 2 visible, 1 labelled but occluded, 0 not labelled.
"""

from dataclasses import dataclass

import numpy as np

from lib.figures import scenery
from lib.figures.body import (
    JOINTS,
    NUM_FACE_JOINTS,
    Skeleton3D,
    forward_kinematics,
    landmarks,
    rotation,
    sample_proportions,
)
from lib.figures.dress import SURFACE_DEPTH, dress
from lib.figures.poses import sample_pose
from lib.figures.render import Camera, Layer, Part, render, sample_light
from lib.keypoints.skeletons import COCO

SPLITS = {"train": 0, "val": 1}
PEOPLE = (0.36, 0.26, 0.16, 0.1, 0.05, 0.03, 0.02, 0.02)  # probabilities of one to eight people
CLOSE_UPS = 0.12  # fraction of images with a person larger than the image
MIN_AREA = 32**2  # in pixels; COCO annotates no keypoints on smaller people
LENGTHS = (60.0, 400.0)  # range of `Person.length` in pixels, except in close-ups

LIMBS = tuple((a + 1, b + 1) for a, b in COCO.limbs)  # 1-based, as in COCO files

# For each facial landmark, its normal in the head's frame, and a limit. The landmark faces the
# camera if the depth component of the unit normal (positive: away from the camera) is below the
# limit.
FACING = {
    "nose": ((0.0, -0.2, 1.0), 0.2),
    "left_eye": ((0.35, 0.0, 1.0), -0.05),
    "right_eye": ((-0.35, 0.0, 1.0), -0.05),
    "left_ear": ((1.0, 0.0, -0.05), 0.35),
    "right_ear": ((-1.0, 0.0, -0.05), 0.35),
}


@dataclass(frozen=True)
class Person:
    """A person in a scene; lengths are in pixels."""

    parts: list[Part]  # surfaces to render
    camera: Camera  # transform from the body frame to pixels
    joints: np.ndarray  # (17, 3) x, y and depth
    # (17,) A joint is visible if the surface at its pixel is at most this far from it in depth.
    depth_tolerance: np.ndarray
    facing: np.ndarray  # (17,) see `_facing`
    length: float  # longer side of the bounding box, including parts outside the image


def draw_scene(seed: int, split: str, index: int) -> tuple[np.ndarray, list[dict]]:
    """Draw one image of `figures`.

    Returns:
        The image, uint8 (H, W, 3) RGB, and COCO annotations without ids. Box and area are those of
        the visible pixels. As in COCO, barely visible people have no keypoints. People with fewer
        than 40 visible pixels have no annotation.
    """
    rng = np.random.default_rng([seed, SPLITS[split], index])
    size = scenery.sample_size(rng)
    light = sample_light(rng)
    image = scenery.background(rng, size, light)
    people = sample_people(rng, size)
    # The number of the person visible at each pixel; 0 for the background, -1 for occluders.
    owner = np.zeros((size[1], size[0]), np.int16)
    drawn = []
    for number, person in enumerate(people, 1):
        _shadow(rng, image, person)
        layer = render(person.parts, person.camera, light, size)
        if layer is not None:
            _composite(image, owner, layer, number)
            drawn.append((person, layer, number))
        if rng.random() < 0.1:
            target = (*person.camera.center, person.length)
            occluder = scenery.occluder(rng, size, light, target)
            if occluder is not None:
                _composite(image, owner, occluder, -1)
    found = [annotate(person, layer, owner, number) for person, layer, number in drawn]
    annotations = [annotation for annotation in found if annotation is not None]
    return scenery.apply_camera_effects(rng, image), annotations


def sample_people(rng: np.random.Generator, size: tuple[int, int]) -> list[Person]:
    """Sample one to eight people, many of them in groups, sorted from far (small) to near."""
    people: list[Person] = []
    for _ in range(1 + rng.choice(len(PEOPLE), p=PEOPLE)):
        low, high = np.log(LENGTHS)
        length = float(np.exp(rng.uniform(low, high)))
        center = None
        if not people and rng.random() < CLOSE_UPS:
            length = size[1] * float(rng.uniform(1.0, 2.2))
            top = size[1] * rng.uniform(-0.05, 0.2)
            center = (size[0] * float(rng.normal(0.5, 0.15)), top + 0.5 * length)
        elif people and rng.random() < 0.35:
            other = people[rng.integers(len(people))]
            length = float(np.clip(other.length * rng.uniform(0.75, 1.3), *LENGTHS))
            side = rng.choice([-1, 1]) * rng.uniform(0.28, 0.8) * length
            x, y = other.camera.center
            center = (x + side, y + rng.normal(0, 0.06) * length)
        yaw = _sample_yaw(rng)
        people.append(sample_person(rng, size, yaw, length, center))
    return sorted(people, key=lambda person: person.length)


def _sample_yaw(rng: np.random.Generator) -> float:
    """Sample a yaw in degrees; the front is more frequent than side and back, as in photographs."""
    chance = rng.random()
    if chance < 0.5:
        return float(rng.normal(0, 40))
    return float(rng.normal(180, 40) if chance < 0.65 else rng.uniform(0, 360))


def sample_person(
    rng: np.random.Generator,
    size: tuple[int, int],
    yaw: float,
    length: float,
    center: tuple[float, float] | None = None,
    family: str | None = None,
) -> Person:
    """Sample a person in a random pose.

    Args:
        size: (width, height) of the image.
        yaw: degrees; 0 faces the camera, 90 faces the right side of the image.
        length: longer side of the bounding box in pixels, including parts outside the image.
        center: in pixels; None for a random one, usually without cutting off the person.
        family: key of `poses.FAMILIES`; None for a random one.
    """
    body, pose = sample_proportions(rng), sample_pose(rng, family)
    skeleton = forward_kinematics(body, pose)
    pitch, roll = np.clip(rng.normal((5, 0), (9, 5)), -20, 40)
    turn = rotation("z", roll) @ rotation("x", pitch) @ np.diag([1.0, -1.0, -1.0])
    turn = turn @ rotation("y", yaw)
    points = np.array(list(skeleton.joints.values()))
    turned = points @ turn.T
    low, high = turned.min(0) - 0.05, turned.max(0) + 0.05
    scale = length / max(high[:2] - low[:2])
    pivot = turn.T @ (0.5 * (low + high))
    half = 0.5 * scale * (high - low)[:2]
    if center is None:
        center = _sample_center(rng, size, half)
    center = (float(center[0]), float(center[1]))
    camera = Camera(turn, pivot, float(scale), center, rng.uniform(2.5, 7.0))
    joints, scales = camera.project(landmarks(body, skeleton))
    depth_tolerance = [0.13 * body.head] * NUM_FACE_JOINTS + [
        SURFACE_DEPTH[name.split("_")[1]] * body.girth for name in JOINTS[NUM_FACE_JOINTS:]
    ]
    return Person(
        parts=dress(rng, body, skeleton, is_seated=pose.name == "sitting"),
        camera=camera,
        joints=joints,
        depth_tolerance=np.array(depth_tolerance) * scales,
        facing=_facing(skeleton, turn),
        length=length,
    )


def _sample_center(rng: np.random.Generator, size: tuple[int, int], half: np.ndarray) -> np.ndarray:
    """Sample a center (2,) for a person of half size `half`, usually without cutting them off."""
    low, high = half, size - half
    if rng.random() >= 0.85:
        low, high = 0.05 * np.array(size), 0.95 * np.array(size)
    # In ascending order: for a person larger than the image, low is greater than high.
    return rng.uniform(np.minimum(low, high), np.maximum(low, high))


def _facing(skeleton: Skeleton3D, turn: np.ndarray) -> np.ndarray:
    """Return (17,) values that are positive if a joint faces the camera; always 1 for the body."""
    facing = np.ones(len(JOINTS))
    for i, name in enumerate(JOINTS[:NUM_FACE_JOINTS]):
        direction, limit = FACING[name]
        away = (turn @ skeleton.frames["head"] @ direction)[2] / np.linalg.norm(direction)
        facing[i] = limit - away
    return facing


def _shadow(rng: np.random.Generator, image: np.ndarray, person: Person) -> None:
    """Darken the ground under the feet of most people, in place."""
    if rng.random() < 0.35:
        return
    h, w = image.shape[:2]
    feet = person.joints[-2:]
    x, y = feet[:, 0].mean(), feet[:, 1].max() + 0.04 * person.length
    radius_x, radius_y = 0.2 * person.length, 0.05 * person.length
    x0, x1 = int(max(x - 2 * radius_x, 0)), int(min(x + 2 * radius_x, w))
    y0, y1 = int(max(y - 2 * radius_y, 0)), int(min(y + 2 * radius_y, h))
    if x1 > x0 and y1 > y0:
        ys, xs = np.mgrid[y0:y1, x0:x1].astype(np.float32)
        squared_distance = ((xs - x) / radius_x) ** 2 + ((ys - y) / radius_y) ** 2
        fade = np.exp(-squared_distance) * rng.uniform(0.2, 0.6)
        image[y0:y1, x0:x1] *= (1 - fade)[..., None].astype(np.float32)


def _composite(image: np.ndarray, owner: np.ndarray, layer: Layer, number: int) -> None:
    """Blend a layer into the image and mark its pixels in `owner`, in place."""
    scenery.blend(image, layer)
    layer.window(owner)[layer.alpha >= 0.5] = number


def annotate(person: Person, layer: Layer, owner: np.ndarray, number: int) -> dict | None:
    """Return a COCO annotation, or None if fewer than 40 pixels are visible.

    Args:
        owner: (H, W) number of the person visible at each pixel of the finished image; 0 for the
            background, -1 for occluders.
        number: number of this person.
    """
    mask = (layer.window(owner) == number) & layer.body_mask
    area = int(mask.sum())
    if area < 40:
        return None
    xs, ys = np.flatnonzero(mask.any(0)), np.flatnonzero(mask.any(1))
    box = [xs[0] + layer.x, ys[0] + layer.y, xs[-1] - xs[0] + 1, ys[-1] - ys[0] + 1]
    flags = _flags(person, layer, owner, number)
    if area < MIN_AREA or area < 0.12 * layer.body_mask.sum() or (flags == 2).sum() < 2:
        flags[:] = 0
    points = np.where(flags[:, None] > 0, np.round(person.joints[:, :2], 1), 0.0)
    rows = zip(points.tolist(), flags.tolist(), strict=True)
    return {
        "bbox": [float(v) for v in box],
        "area": float(area),
        "keypoints": [v for point, flag in rows for v in (*point, flag)],
        "num_keypoints": int((flags > 0).sum()),
        "iscrowd": 0,
        "category_id": 1,
    }


def _flags(person: Person, layer: Layer, owner: np.ndarray, number: int) -> np.ndarray:
    """Return COCO's visibility flags, int (17,), as human annotators would set them.

    2: at least one of the 3 x 3 pixels centered on the joint shows the body at the joint. 1: a body
    joint in the image that is occluded, but can be guessed from visible neighbors. 0: outside the
    image, occluded and impossible to guess, or an occluded facial landmark.
    """
    height, width = owner.shape
    x, y, _ = person.joints.T
    inside = (x >= 0) & (x <= width - 1) & (y >= 0) & (y <= height - 1) & (person.facing > 0)
    flags = np.zeros(len(JOINTS), int)
    for i in np.flatnonzero(inside):
        flags[i] = 2 if _is_visible(person, i, layer, owner, number) else 1
    visible = flags == 2
    for i in np.flatnonzero(flags == 1):
        # COCO's annotators almost never guess occluded facial landmarks. They guess joints behind
        # the person's own body more often than joints behind other things.
        is_self_occluded = owner[round(y[i]), round(x[i])] == number
        neighbors = visible[_NEIGHBORS[i]]
        is_guessed = neighbors.any() if is_self_occluded else neighbors.all()
        if i < NUM_FACE_JOINTS or not is_guessed:
            flags[i] = 0
    return flags


def _is_visible(person: Person, i: int, layer: Layer, owner: np.ndarray, number: int) -> bool:
    """Return True if one of the 3 x 3 pixels at joint i shows the person at the joint's depth."""
    x, y, z = person.joints[i]
    h, w = layer.depth.shape
    left, right = np.clip((round(x) - 1 - layer.x, round(x) + 2 - layer.x), 0, w)
    top, bottom = np.clip((round(y) - 1 - layer.y, round(y) + 2 - layer.y), 0, h)
    depth = layer.depth[top:bottom, left:right]
    is_person = layer.window(owner)[top:bottom, left:right] == number
    return bool((is_person & (np.abs(depth - z) <= person.depth_tolerance[i] + 0.5)).any())


# For each joint, the body joints connected to it by a limb.
_NEIGHBORS = [
    [a + b - i for a, b in COCO.limbs if i in (a, b) and a + b - i >= NUM_FACE_JOINTS]
    for i in range(len(JOINTS))
]
