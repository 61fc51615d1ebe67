"""Body surface and clothes of `figures`: painted round cones around a 3D skeleton.

Thicknesses are fractions of an adult's height, for a person of average girth. They were estimated
from anatomical drawings.
"""

from dataclasses import dataclass

import numpy as np

from lib.figures import carried
from lib.figures import paint as paints
from lib.figures.body import SIDES, Proportions, Skeleton3D
from lib.figures.render import Paint, Part, cone

Rng = np.random.Generator
Wardrobe = dict[str, Paint]  # see `paint.sample_wardrobe`

# Maximum depth of the body surface in front of a joint, as a fraction of an adult's height. A
# surface further in front is another part of the body that occludes the joint.
SURFACE_DEPTH = {
    "shoulder": 0.075,
    "elbow": 0.05,
    "wrist": 0.042,
    "hip": 0.115,
    "knee": 0.07,
    "ankle": 0.055,
}


@dataclass(frozen=True)
class Outfit:
    """The clothes of one person.

    Sleeve lengths are fractions of the upper arm; values above 1 continue on the forearm. Lengths
    of shorts, skirts and coats are fractions of the thigh; values above 1 continue on the shin.
    """

    top: str  # shirt, jacket or bare
    sleeve: float
    bottom: str  # trousers, shorts or skirt
    bottom_length: float  # of shorts or a skirt; trousers always reach the ankle
    looseness: float  # width relative to the body, above 1
    flare: float  # width of trousers at the ankle and of cuffs: 0 narrow, 1 wide
    coat: float  # length of a coat below the hips; 0 for no coat
    hair: str  # short, bald, long, bob, tail (ponytail) or bun
    hat: str  # "", cap, beanie, helmet or brim (a hat with a wide brim)
    bag: str  # "", backpack or shoulder
    held: str  # object in one hand: "", ball, stick or bag


def sample_outfit(rng: Rng, kind: str) -> Outfit:
    """Sample random clothes, hair and carried objects for a man, woman or child."""
    female = kind == "woman" or (kind == "child" and rng.random() < 0.5)
    shares = [0.72, 0.28, 0.0] if female else [0.66, 0.26, 0.08]
    top = str(rng.choice(["shirt", "jacket", "bare"], p=shares))
    long = float(rng.uniform(1.6, 1.98))
    sleeve = long if top == "jacket" or rng.random() < 0.35 else float(rng.uniform(0.15, 0.7))
    shares = [0.45, 0.17, 0.38] if female else [0.68, 0.32, 0.0]
    bottom = str(rng.choice(["trousers", "shorts", "skirt"], p=shares))
    bottom_length = rng.uniform(0.45, 1.0)
    if bottom == "skirt" and rng.random() < 0.5:
        bottom_length = rng.uniform(1.0, 1.9)
    is_baggy = rng.random() < 0.25
    shares = [0.12, 0.0, 0.36, 0.2, 0.22, 0.1] if female else [0.8, 0.11, 0.05, 0.02, 0.01, 0.01]
    hair = str(rng.choice(["short", "bald", "long", "bob", "tail", "bun"], p=shares))
    hats = ["", "cap", "beanie", "helmet", "brim"]
    return Outfit(
        top=top,
        sleeve=sleeve,
        bottom=bottom,
        bottom_length=float(bottom_length),
        looseness=float(rng.uniform(1.2, 1.6) if is_baggy else rng.uniform(1.02, 1.22)),
        flare=float(rng.uniform(0.3, 1.0) if rng.random() < 0.3 else 0.0),
        coat=float(rng.uniform(0.2, 1.3) if top == "jacket" and rng.random() < 0.6 else 0.0),
        hair=hair,
        hat=str(rng.choice(hats, p=[0.74, 0.09, 0.05, 0.05, 0.07])),
        bag=str(rng.choice(["", "backpack", "shoulder"], p=[0.84, 0.07, 0.09])),
        held=str(rng.choice(["", "ball", "stick", "bag"], p=[0.8, 0.05, 0.07, 0.08])),
    )


def dress(rng: Rng, body: Proportions, skeleton: Skeleton3D, is_seated: bool = False) -> list[Part]:
    """Build the parts of a person in random clothes, with carried objects and perhaps a seat."""
    outfit = sample_outfit(rng, body.kind)
    wardrobe = paints.sample_wardrobe(
        rng, may_be_a_dress=outfit.bottom == "skirt", has_bare_trunk=outfit.top == "bare"
    )
    parts = _trunk(rng, body, skeleton, outfit, wardrobe)
    for side in SIDES:
        parts += _arm(body, skeleton, outfit, wardrobe, side)
        parts += _leg(body, skeleton, outfit, wardrobe, side)
    if outfit.bottom == "skirt":
        parts.append(
            _drape(body, skeleton, outfit.bottom_length, outfit.looseness, wardrobe["bottom"])
        )
    if outfit.coat:
        coat_paint = paints.open_coat(wardrobe["top"], wardrobe["bottom"], rng.uniform(0.0, 0.07))
        parts.append(_drape(body, skeleton, outfit.coat, max(outfit.looseness, 1.12), coat_paint))
    parts += _head(rng, body, skeleton, outfit, wardrobe)
    parts += carried.carried_objects(
        rng, body, skeleton, outfit.bag, outfit.held, wardrobe["carried"]
    )
    if is_seated and rng.random() < 0.7:
        parts.append(carried.seat(rng, body, skeleton))
    return parts


def _limb(
    a: np.ndarray,
    b: np.ndarray,
    radii: tuple[float, float],
    side_axis: np.ndarray,
    paint: Paint,
    is_open: bool = False,
) -> Part:
    """Build a part that is a single cone from a to b.

    In the part's frame, y points from b to a, and x is as close to `side_axis` as possible. With
    `is_open` the cone has no cap at b, like a sleeve.
    """
    up = (a - b) / max(np.linalg.norm(a - b), 1e-6)
    left = side_axis - np.dot(side_axis, up) * up
    if np.linalg.norm(left) < 0.1:
        left = np.cross(up, np.roll(side_axis, 1))
    left /= np.linalg.norm(left)
    frame = np.column_stack([left, up, np.cross(left, up)])
    return Part(cone(a, b, *radii, is_open)[None], frame, a, paint)


def _trunk(
    rng: Rng, body: Proportions, skeleton: Skeleton3D, outfit: Outfit, wardrobe: Wardrobe
) -> list[Part]:
    """Build pelvis, belly, chest, shoulders and neck."""
    j, frames, g = skeleton.joints, skeleton.frames, body.girth
    chest, pelvis, waist = frames["chest"], frames["pelvis"], frames["waist"]
    loose = 1.0 if outfit.top == "bare" else 1.0 + 0.5 * (outfit.looseness - 1)
    ribs = j["chest"] + chest @ (0, 0.12 * body.trunk, 0)
    belly = j["waist"] + waist @ (0, 0, 0.008 + 0.5 * body.belly)
    crotch = j["pelvis"] + pelvis @ (0, -0.012, 0.002)
    belly_radius = 0.062 * g * loose + body.belly
    top = [
        cone(ribs + chest @ (0, 0, 0.004), belly, 0.068 * g * loose, belly_radius),
        cone(belly, crotch, belly_radius, 0.069 * g * loose, True),
    ]
    for sign, side in zip((1.0, -1.0), SIDES, strict=True):
        armpit = ribs + chest @ (sign * (0.76 * body.shoulder - 0.01), 0.0, 0.0)
        flank = j["waist"] + waist @ (sign * (0.55 * body.shoulder - 0.008), 0, 0.0)
        hip = j["pelvis"] + pelvis @ (sign * (body.hip - 0.002), -0.01, 0)
        top.append(cone(armpit, flank, 0.05 * g * loose, 0.05 * g * loose + 0.6 * body.belly))
        top.append(cone(flank, hip, 0.05 * g * loose + 0.6 * body.belly, 0.068 * g * loose, True))
        top.append(cone(ribs, armpit, 0.062 * g * loose, 0.052 * g * loose))
        base = j["neck"] + chest @ (sign * 0.025, -0.012, -0.006)
        top.append(cone(base, j[f"{side}_shoulder"], 0.033 * g, 0.037 * g * loose))
        top.append(cone(armpit, j[f"{side}_shoulder"], 0.046 * g * loose, 0.036 * g * loose))
        if body.kind == "woman":
            bust = ribs + chest @ (sign * 0.036, -0.012, 0.034)
            top.append(cone(bust, bust + chest @ (0, 0.045, -0.02), 0.037 * g, 0.026 * g))
    shirt = Part(np.array(top), frames["waist"], j["chest"], wardrobe["trunk"])
    left, right = j["left_hip"], j["right_hip"]
    buttocks = left + pelvis @ (-0.01, 0.005, -0.024), right + pelvis @ (0.01, 0.005, -0.024)
    hips = [
        cone(j["pelvis"] + pelvis @ (x, 0.014, -0.004), hip, 0.064 * g, 0.068 * g)
        for x, hip in ((body.hip + 0.004, left), (-body.hip - 0.004, right))
    ]
    hips.append(cone(*buttocks, 0.066 * g, 0.066 * g))
    hips.append(cone(left, right, 0.062 * g, 0.062 * g))
    lower = Part(np.array(hips), pelvis, j["pelvis"], wardrobe["pelvis"])
    neck = [cone(j["neck"] + chest @ (0, -0.02, 0), j["skull"], 0.036 * g**0.5, 0.034 * g**0.5)]
    return [shirt, lower, Part(np.array(neck), chest, j["neck"], wardrobe["skin"])]


def _arm(
    body: Proportions, skeleton: Skeleton3D, outfit: Outfit, wardrobe: Wardrobe, side: str
) -> list[Part]:
    """Build upper arm, forearm, hand and sleeve."""
    j, g, left = skeleton.joints, body.girth, skeleton.frames["chest"][:, 0]
    shoulder, elbow, wrist, hand = (
        j[f"{side}_{name}"] for name in ("shoulder", "elbow", "wrist", "hand")
    )
    skin, sleeve = wardrobe["skin"], wardrobe["top"]
    parts = [
        _limb(shoulder, elbow, (0.037 * g, 0.027 * g), left, skin),
        _limb(elbow, wrist, (0.028 * g, 0.018 * g), left, skin),
    ]
    if outfit.top != "bare":
        sleeve_girth = outfit.looseness * g
        end = min(outfit.sleeve, 1.0)
        hem = shoulder + end * (elbow - shoulder)
        radii = (0.038 * sleeve_girth, (0.039 - 0.008 * end) * sleeve_girth)
        parts.append(_limb(shoulder, hem, radii, left, sleeve, end < 1))
        if outfit.sleeve > 1:
            cuff = elbow + (outfit.sleeve - 1) * (wrist - elbow)
            radii = (0.031 * sleeve_girth, 0.024 * sleeve_girth * (1 + 0.9 * outfit.flare))
            parts.append(_limb(elbow, cuff, radii, left, sleeve, True))
    forward = skeleton.frames["chest"][:, 2]
    along = hand - wrist
    palm = wrist + 0.5 * along
    across = forward - np.dot(forward, along) / max(np.dot(along, along), 1e-9) * along
    across *= 0.022 * g / max(np.linalg.norm(across), 1e-6)
    cones = [
        cone(wrist, palm, 0.018 * g, 0.021 * g),
        cone(palm + 0.3 * across, hand + 0.25 * across, 0.016 * g, 0.01 * g),
        cone(palm - 0.3 * across, hand - 0.35 * across, 0.016 * g, 0.009 * g),
        cone(wrist + 0.15 * along + 0.5 * across, palm + 1.5 * across, 0.012 * g, 0.009 * g),
    ]
    return [*parts, Part(np.array(cones), skeleton.frames["chest"], wrist, wardrobe["hand"])]


def _leg(
    body: Proportions, skeleton: Skeleton3D, outfit: Outfit, wardrobe: Wardrobe, side: str
) -> list[Part]:
    """Build thigh, shin with calf, shoe, and one leg of trousers or shorts."""
    j, g = skeleton.joints, body.girth
    hip, knee, ankle = (j[f"{side}_{name}"] for name in ("hip", "knee", "ankle"))
    foot = skeleton.frames[f"{side}_foot"]
    left = foot[:, 0]
    wears_trousers = outfit.bottom == "trousers"
    thigh_paint = wardrobe["bottom"] if wears_trousers else wardrobe["skin"]
    leg_girth = g * (1.0 + 0.8 * (outfit.looseness - 1) if wears_trousers else 1.0)
    flare = outfit.flare if wears_trousers else 0.0
    knee_factor = 1 + 0.2 * flare
    parts = [
        _limb(hip, knee, (0.064 * leg_girth, 0.043 * leg_girth * knee_factor), left, thigh_paint)
    ]
    shin_paint = thigh_paint if wears_trousers else wardrobe["shin"]
    radii = (0.042 * leg_girth * knee_factor, 0.028 * leg_girth * (1 + 1.3 * flare))
    shin = _limb(knee, ankle, radii, left, shin_paint, wears_trousers)
    back = -shin.frame[:, 2]
    calf = knee + 0.28 * (ankle - knee) + back * 0.014 * g
    bulge = cone(calf, knee + 0.75 * (ankle - knee), 0.037 * leg_girth, 0.025 * leg_girth)
    parts.append(Part(np.concatenate([shin.cones, bulge[None]]), shin.frame, ankle, shin.paint))
    if outfit.bottom == "shorts":
        hem = hip + outfit.bottom_length * (knee - hip)
        hem_radius = (0.07 - 0.016 * outfit.bottom_length) * outfit.looseness * g
        parts.append(_limb(hip, hem, (0.068 * g, hem_radius), left, wardrobe["bottom"], True))
    heel, toe = j[f"{side}_heel"], j[f"{side}_toe"]
    ball = heel + 0.68 * (toe - heel)
    cones = [
        cone(heel, ball, 0.026 * g, 0.026 * g),
        cone(ball, toe, 0.026 * g, 0.02 * g),
        cone(ankle, ball + foot @ (0, 0.006, -0.02), 0.026 * g, 0.022 * g),
        cone(ankle, heel, 0.025 * g, 0.026 * g),
    ]
    return [*parts, Part(np.array(cones), foot, ankle, wardrobe["shoe"])]


def _drape(
    body: Proportions, skeleton: Skeleton3D, length: float, looseness: float, paint: Paint
) -> Part:
    """Build cloth around both legs: a skirt, or the lower part of a coat."""
    j, g, pelvis = skeleton.joints, body.girth, skeleton.frames["pelvis"]
    radius = g * looseness * (0.066 + 0.012 * length)
    cones, hems = [], []
    for side in SIDES:
        hip, knee, ankle = (j[f"{side}_{name}"] for name in ("hip", "knee", "ankle"))
        hem = hip + min(length, 1.0) * (knee - hip)
        cones.append(cone(hip, hem, 0.071 * g * looseness**0.5, radius, length <= 1))
        if length > 1:
            hem = knee + (length - 1) * (ankle - knee)
            cones.append(cone(knee, hem, radius, radius, True))
        hems.append(hem)
    # Cloth between the legs, stretched if they are apart.
    middle, gap = 0.5 * (hems[0] + hems[1]), float(np.linalg.norm(hems[0] - hems[1]))
    cones.append(cone(j["pelvis"], middle, 0.068 * g, max(radius, 0.45 * gap), True))
    return Part(np.array(cones), pelvis, j["pelvis"], paint)


def _head(
    rng: Rng, body: Proportions, skeleton: Skeleton3D, outfit: Outfit, wardrobe: Wardrobe
) -> list[Part]:
    """Build head, hair and hat; coordinates are in head lengths (see `body.HEAD_POINTS`)."""
    frame, center, unit = skeleton.frames["head"], skeleton.joints["head"], body.head

    def place(point: tuple[float, float, float]) -> np.ndarray:
        return center + frame @ np.array(point) * unit

    def part(cones: list[tuple], paint: Paint) -> Part:
        scaled = [cone(place(a), place(b), ra * unit, rb * unit) for a, b, ra, rb in cones]
        return Part(np.array(scaled), frame, center, paint, unit=unit)

    jaw = rng.uniform(0.14, 0.19)
    face = [
        ((0, 0.12, -0.12), (0, 0.12, 0.06), 0.33, 0.31),
        ((0, -0.02, 0.06), (0, -0.33, 0.17), 0.29, jaw),
        ((0, 0.04, 0.35), (0, -0.09, 0.41), 0.03, 0.055),
    ]
    ears = [((s * 0.32, 0.06, -0.06), (s * 0.315, -0.06, -0.03), 0.065, 0.045) for s in (1, -1)]
    parts = [part(face, wardrobe["face"]), part(ears, wardrobe["skin"])]
    hair = [] if outfit.hair == "bald" else HAIR["scalp"] + HAIR.get(outfit.hair, [])
    # Under these hats, only hair that hangs below them is drawn.
    if outfit.hat in ("beanie", "helmet") or (outfit.hat == "cap" and outfit.hair == "bun"):
        hair = HAIR.get(outfit.hair, []) if outfit.hair in ("long", "bob", "tail") else []
    if hair:
        parts.append(part(hair, wardrobe["hair"]))
    if outfit.hat:
        parts.append(part(HATS[outfit.hat], wardrobe["hat"]))
    return parts


# Cones by name: (end a, end b, radius at a, radius at b), in head lengths in the head's frame.
HAIR = {
    "scalp": [((0, 0.13, -0.15), (0, 0.18, -0.01), 0.355, 0.335)],  # for all styles but bald
    "long": [
        ((0, 0.0, -0.2), (0, -0.75, -0.24), 0.3, 0.2),
        ((0.25, 0.12, -0.1), (0.24, -0.65, -0.1), 0.13, 0.1),
        ((-0.25, 0.12, -0.1), (-0.24, -0.65, -0.1), 0.13, 0.1),
    ],
    "bob": [
        ((0, 0.0, -0.2), (0, -0.3, -0.18), 0.31, 0.24),
        ((0.26, 0.1, -0.07), (0.26, -0.28, -0.03), 0.12, 0.12),
        ((-0.26, 0.1, -0.07), (-0.26, -0.28, -0.03), 0.12, 0.12),
    ],
    "tail": [((0, 0.15, -0.5), (0, -0.45, -0.58), 0.11, 0.06)],
    "bun": [((0, 0.32, -0.42), (0, 0.38, -0.42), 0.16, 0.14)],
}
HATS = {
    "cap": [
        ((0, 0.2, -0.13), (0, 0.22, 0.0), 0.365, 0.345),
        *[((s * 0.14, 0.22, 0.2), (s * 0.11, 0.16, 0.55), 0.06, 0.035) for s in (-1, 0, 1)],
    ],
    "beanie": [
        ((0, 0.2, -0.13), (0, 0.23, -0.01), 0.375, 0.36),
        ((0, 0.4, -0.1), (0, 0.52, -0.12), 0.25, 0.12),
    ],
    "brim": [
        ((0, 0.22, -0.13), (0, 0.3, -0.01), 0.37, 0.33),
        *[
            ((0.3 * x, 0.22, 0.3 * z - 0.07), (0.72 * x, 0.19, 0.72 * z - 0.07), 0.05, 0.03)
            for x, z in ((np.cos(a), np.sin(a)) for a in np.linspace(0, 2 * np.pi, 24))
        ],
    ],
    "helmet": [
        ((0, 0.19, -0.15), (0, 0.22, 0.02), 0.42, 0.39),
        ((0, 0.05, -0.25), (0, 0.1, -0.2), 0.33, 0.36),
    ],
}
