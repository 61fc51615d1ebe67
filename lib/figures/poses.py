"""Random poses of `figures`: anatomically possible joint angles, in about twenty families.

Angles are in degrees. Flexion is forward for hip, shoulder and spine, and bends the limb for knee
and elbow; abduction is away from the body; internal rotation turns the forearm (or the toes)
inwards. Both sides use the convention of the left one; `body` mirrors the right one.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

Rng = np.random.Generator


@dataclass
class Arm:
    """One arm, given by angles or by a target for the wrist.

    `reach` is the target relative to the shoulder, in the chest's frame (outward, up, forward) and
    in arm lengths. `pole` is then the direction in which the elbow points.
    """

    flexion: float = 0.0
    abduction: float = 8.0
    internal: float = 20.0
    elbow: float = 15.0
    reach: tuple[float, float, float] | None = None
    pole: tuple[float, float, float] = (0.6, -0.5, -0.6)


@dataclass
class Leg:
    """One leg; `ankle` is plantar flexion (toes down)."""

    flexion: float = 0.0
    abduction: float = 4.0
    internal: float = -6.0
    knee: float = 4.0
    ankle: float = 0.0


@dataclass
class BodyPose:
    """The pose of a whole body; `arms` and `legs` are [left, right]. `lean` tilts the pelvis
    forward; `lying` rotates it in the image plane."""

    arms: list[Arm]
    legs: list[Leg]
    spine: tuple[float, float, float] = (0.0, 0.0, 0.0)  # flexion, side bend, twist
    neck: tuple[float, float, float] = (0.0, 0.0, 0.0)  # pitch down, side bend, turn
    lean: float = 0.0
    lying: float = 0.0
    name: str = field(default="", compare=False)


def _relaxed_arm(rng: Rng) -> Arm:
    return Arm(rng.uniform(-12, 22), rng.uniform(3, 20), rng.uniform(0, 45), rng.uniform(5, 40))


def _reach(rng: Rng, point: tuple[float, float, float], pole=(0.6, -0.5, -0.6), spread=0.06) -> Arm:
    x, y, z = np.asarray(point) + rng.normal(0, spread, 3)
    return Arm(reach=(float(x), float(y), float(z)), pole=pole)


def _busy_arm(rng: Rng) -> Arm:
    """Draw an arm pose for any standing or sitting body."""
    choices = [
        lambda: _relaxed_arm(rng),
        lambda: Arm(
            rng.uniform(20, 60), rng.uniform(0, 20), rng.uniform(10, 50), rng.uniform(60, 120)
        ),
        lambda: Arm(
            rng.uniform(60, 110), rng.uniform(-5, 25), rng.uniform(-20, 40), rng.uniform(0, 50)
        ),
        lambda: Arm(
            rng.uniform(-10, 20), rng.uniform(60, 100), rng.uniform(-90, 30), rng.uniform(0, 95)
        ),
        lambda: Arm(
            rng.uniform(120, 170), rng.uniform(0, 25), rng.uniform(-30, 30), rng.uniform(0, 70)
        ),
        lambda: _reach(rng, (0.05, -0.62, 0.08), (0.9, 0.0, -0.5), 0.04),
        lambda: _reach(rng, (-0.12, 0.30, 0.18), (0.8, -0.4, 0.3), 0.05),
        lambda: _reach(rng, (-0.30, -0.25, 0.35), (0.6, -0.8, 0.0)),
    ]
    weights = np.array([4, 2.5, 1.5, 1.2, 1.2, 1.5, 1.0, 1.5])
    return choices[rng.choice(len(choices), p=weights / weights.sum())]()


def _standing_legs(rng: Rng) -> list[Leg]:
    wide = rng.uniform(1, 14)
    legs = [Leg(rng.uniform(-6, 6), wide, rng.uniform(-20, 2), rng.uniform(0, 8)) for _ in range(2)]
    if rng.random() < 0.4:
        legs[rng.integers(2)] = Leg(
            rng.uniform(8, 25), wide, rng.uniform(-30, 0), rng.uniform(15, 40)
        )
    elif rng.random() < 0.2:  # crossed
        front = rng.integers(2)
        legs[front].abduction, legs[front].flexion = -rng.uniform(4, 12), rng.uniform(4, 14)
    return legs


def _standing(rng: Rng) -> BodyPose:
    return BodyPose([_relaxed_arm(rng), _relaxed_arm(rng)], _standing_legs(rng))


def _standing_busy(rng: Rng) -> BodyPose:
    return BodyPose([_busy_arm(rng), _busy_arm(rng)], _standing_legs(rng), spine=_spine(rng, 6))


def _hands_on_hips(rng: Rng) -> BodyPose:
    arms = [_reach(rng, (0.02, -0.66, 0.06), (0.95, 0.0, -0.35), 0.03) for _ in range(2)]
    return BodyPose(arms, _standing_legs(rng))


def _arms_crossed(rng: Rng) -> BodyPose:
    arms = [_reach(rng, (-0.42, -0.36, 0.26), (0.7, -0.7, 0.1), 0.03) for _ in range(2)]
    return BodyPose(arms, _standing_legs(rng))


def _arms_raised(rng: Rng) -> BodyPose:
    arms = [
        Arm(rng.uniform(120, 172), rng.uniform(0, 30), rng.uniform(-40, 20), rng.uniform(0, 80))
        if rng.random() < 0.6
        else Arm(
            rng.uniform(-5, 20), rng.uniform(95, 150), rng.uniform(-100, 0), rng.uniform(0, 80)
        )
        for _ in range(2)
    ]
    return BodyPose(arms, _standing_legs(rng), spine=_spine(rng, 8))


def _arms_wide(rng: Rng) -> BodyPose:
    arms = [
        Arm(rng.uniform(-15, 25), rng.uniform(55, 105), rng.uniform(-60, 20), rng.uniform(0, 45))
        for _ in range(2)
    ]
    return BodyPose(arms, _standing_legs(rng), spine=_spine(rng, 12))


def _stride(rng: Rng, front: tuple, back: tuple, swing: tuple, elbow: tuple) -> BodyPose:
    """Draw a pose with one leg forward and the arms swinging opposite; arguments are ranges (low,
    high)."""
    legs = [
        Leg(rng.uniform(*front[0]), rng.uniform(0, 6), rng.uniform(-12, 4), rng.uniform(*front[1])),
        Leg(
            rng.uniform(*back[0]), rng.uniform(0, 6), rng.uniform(-12, 4), rng.uniform(*back[1]), 15
        ),
    ]
    arms = [
        Arm(-rng.uniform(*swing), rng.uniform(4, 18), rng.uniform(0, 35), rng.uniform(*elbow)),
        Arm(rng.uniform(*swing), rng.uniform(2, 15), rng.uniform(10, 45), rng.uniform(*elbow)),
    ]
    if rng.random() < 0.5:
        arms, legs = arms[::-1], legs[::-1]
    return BodyPose(arms, legs)


def _walking(rng: Rng) -> BodyPose:
    pose = _stride(rng, ((12, 32), (0, 15)), ((-22, -5), (5, 45)), (5, 32), (8, 40))
    if rng.random() < 0.35:
        pose.arms[rng.integers(2)] = _busy_arm(rng)
    return pose


def _running(rng: Rng) -> BodyPose:
    pose = _stride(rng, ((35, 80), (30, 105)), ((-25, 0), (15, 100)), (15, 55), (65, 120))
    pose.lean = rng.uniform(4, 20)
    pose.spine = _spine(rng, 8)
    return pose


def _sitting(rng: Rng) -> BodyPose:
    knee, wide = rng.uniform(60, 105), rng.uniform(3, 22)
    legs = [
        Leg(rng.uniform(75, 98), wide, rng.uniform(-15, 10), knee + rng.uniform(-15, 15), 5)
        for _ in range(2)
    ]
    lap = [_reach(rng, (-0.12, -0.68, 0.42), (0.8, -0.5, -0.4)) for _ in range(2)]
    arms = lap if rng.random() < 0.5 else [_busy_arm(rng), lap[1]]
    if rng.random() < 0.5:
        arms = arms[::-1]
    return BodyPose(
        arms,
        legs,
        spine=(rng.uniform(-5, 25), rng.normal(0, 5), rng.normal(0, 8)),
        lean=rng.uniform(-14, 8),
    )


def _floor_sitting(rng: Rng) -> BodyPose:
    if rng.random() < 0.5:
        legs = [
            Leg(rng.uniform(75, 95), rng.uniform(2, 12), -5, rng.uniform(5, 90), 10)
            for _ in range(2)
        ]
    else:
        legs = [
            Leg(rng.uniform(80, 95), rng.uniform(38, 52), -45, rng.uniform(105, 130), 20)
            for _ in range(2)
        ]
    arms = [_reach(rng, (-0.05, -0.55, 0.5)), _busy_arm(rng)]
    return BodyPose(
        arms,
        legs,
        spine=(rng.uniform(0, 25), rng.normal(0, 4), rng.normal(0, 8)),
        lean=rng.uniform(-12, 5),
    )


def _crouching(rng: Rng) -> BodyPose:
    wide = rng.uniform(5, 32)
    legs = [
        Leg(rng.uniform(95, 122), wide, rng.uniform(-20, 0), rng.uniform(100, 138), -18)
        for _ in range(2)
    ]
    arms = [_reach(rng, (-0.1, -0.5, 0.6)), _busy_arm(rng)]
    return BodyPose(
        arms,
        legs,
        spine=(rng.uniform(5, 35), rng.normal(0, 5), rng.normal(0, 8)),
        lean=rng.uniform(5, 28),
    )


def _kneeling(rng: Rng) -> BodyPose:
    legs = [
        Leg(rng.uniform(75, 98), rng.uniform(2, 18), 0, rng.uniform(80, 105)),
        Leg(rng.uniform(-10, 15), rng.uniform(0, 12), 0, rng.uniform(85, 105), 50),
    ]
    legs = legs if rng.random() < 0.5 else legs[::-1]
    return BodyPose([_busy_arm(rng), _busy_arm(rng)], legs, spine=_spine(rng, 10))


def _bending(rng: Rng) -> BodyPose:
    lean = rng.uniform(20, 60)
    bend = rng.uniform(10, 45)
    legs = [
        Leg(lean + rng.uniform(-8, 12), rng.uniform(1, 14), -5, rng.uniform(0, 30))
        for _ in range(2)
    ]
    hang = lean + bend
    arms = [
        Arm(
            rng.uniform(0.6, 1.1) * hang, rng.uniform(0, 15), rng.uniform(0, 30), rng.uniform(0, 45)
        )
        for _ in range(2)
    ]
    if rng.random() < 0.3:
        arms[rng.integers(2)] = _reach(rng, (0.02, -0.66, 0.06), (0.95, 0.0, -0.35), 0.03)
    return BodyPose(
        arms,
        legs,
        spine=(bend, rng.normal(0, 6), rng.normal(0, 10)),
        neck=(-0.4 * hang, 0, 0),
        lean=lean,
    )


def _jumping(rng: Rng) -> BodyPose:
    legs = [
        Leg(rng.uniform(-15, 70), rng.uniform(2, 32), rng.uniform(-15, 0), rng.uniform(10, 100), 30)
        for _ in range(2)
    ]
    arms = [
        Arm(rng.uniform(20, 165), rng.uniform(5, 60), rng.uniform(-60, 20), rng.uniform(0, 80))
        for _ in range(2)
    ]
    return BodyPose(arms, legs, spine=(rng.uniform(-18, 15), rng.normal(0, 8), rng.normal(0, 10)))


def _kicking(rng: Rng) -> BodyPose:
    legs = [
        Leg(rng.uniform(35, 105), rng.uniform(-5, 25), -8, rng.uniform(0, 60), 25),
        Leg(rng.uniform(-8, 8), rng.uniform(2, 10), -8, rng.uniform(5, 30)),
    ]
    arms = [
        Arm(rng.uniform(-50, 10), rng.uniform(25, 80), 0, rng.uniform(5, 60)),
        Arm(rng.uniform(10, 70), rng.uniform(20, 70), 10, rng.uniform(5, 70)),
    ]
    if rng.random() < 0.5:
        arms, legs = arms[::-1], legs[::-1]
    return BodyPose(arms, legs, spine=_spine(rng, 12), lean=rng.uniform(-20, 8))


def _swinging(rng: Rng) -> BodyPose:
    """Tennis, throwing, batting: a lunge, a twisted trunk, one arm extended."""
    legs = [
        Leg(rng.uniform(15, 65), rng.uniform(8, 28), -15, rng.uniform(15, 70)),
        Leg(rng.uniform(-25, 10), rng.uniform(5, 25), -15, rng.uniform(5, 45), 15),
    ]
    hand = Arm(
        rng.uniform(-30, 150), rng.uniform(40, 110), rng.uniform(-90, 20), rng.uniform(10, 100)
    )
    arms = [hand, _busy_arm(rng)]
    if rng.random() < 0.35:
        arms[1] = _reach(rng, (-0.25, -0.1, 0.6), (0.4, -0.9, 0.0))
    if rng.random() < 0.5:
        arms = arms[::-1]
    if rng.random() < 0.5:
        legs = legs[::-1]
    return BodyPose(arms, legs, spine=_spine(rng, 18), lean=rng.uniform(0, 20))


def _riding(rng: Rng) -> BodyPose:
    """Skiing, skating, surfing: knees bent, arms out for balance."""
    bend = rng.uniform(25, 70)
    legs = [
        Leg(bend + rng.uniform(-8, 8), rng.uniform(4, 25), -5, bend + rng.uniform(0, 25), -12)
        for _ in range(2)
    ]
    arms = [
        Arm(rng.uniform(10, 60), rng.uniform(15, 75), rng.uniform(-10, 40), rng.uniform(15, 95))
        for _ in range(2)
    ]
    return BodyPose(arms, legs, spine=_spine(rng, 12), lean=rng.uniform(5, 35))


def _lying(rng: Rng) -> BodyPose:
    pose = _standing_busy(rng) if rng.random() < 0.6 else _jumping(rng)
    pose.lying = float(rng.choice([-1, 1])) * rng.uniform(60, 120)
    return pose


def _spine(rng: Rng, spread: float) -> tuple[float, float, float]:
    flexion, side, twist = np.clip(rng.normal(0, spread, 3), -2.2 * spread, 2.2 * spread)
    return float(flexion) + 2.0, float(side), float(twist)


FAMILIES: dict[str, tuple[float, Callable[[Rng], BodyPose]]] = {
    "standing": (19, _standing),
    "standing_busy": (19, _standing_busy),
    "walking": (14, _walking),
    "running": (8, _running),
    "sitting": (13, _sitting),
    "floor_sitting": (3, _floor_sitting),
    "crouching": (4, _crouching),
    "kneeling": (3, _kneeling),
    "hands_on_hips": (4, _hands_on_hips),
    "arms_crossed": (2, _arms_crossed),
    "arms_raised": (4, _arms_raised),
    "arms_wide": (3, _arms_wide),
    "bending": (3, _bending),
    "jumping": (2, _jumping),
    "kicking": (2, _kicking),
    "swinging": (5, _swinging),
    "riding": (2, _riding),
    "lying": (1, _lying),
}


def sample_pose(rng: Rng, family: str | None = None) -> BodyPose:
    """Draw a pose of `family` (a key of `FAMILIES`), or of a random family."""
    if family is None:
        weights = np.array([weight for weight, _ in FAMILIES.values()], dtype=float)
        family = list(FAMILIES)[rng.choice(len(weights), p=weights / weights.sum())]
    pose = FAMILIES[family][1](rng)
    pitch, side, turn = np.clip(rng.normal(0, (10, 6, 22)), (-25, -18, -65), (35, 18, 65))
    pose.neck = (pose.neck[0] + float(pitch) + 4.0, float(side), float(turn))
    pose.name = family
    return pose
