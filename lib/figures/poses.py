"""Random poses of `figures`: anatomically possible joint angles, in families such as walking.

Angles are in degrees. Flexion moves the upper arm, the thigh and the trunk forward, and bends the
elbow and the knee. Abduction moves a limb away from the body. Internal rotation turns the forearm
or the toes inwards. All angles are those of a left limb; body.py mirrors them for right limbs.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np

Rng = np.random.Generator


@dataclass
class Arm:
    """One arm, given by angles or by a target for the wrist."""

    flexion: float = 0.0
    abduction: float = 8.0
    internal: float = 20.0
    elbow: float = 15.0
    # Target relative to the shoulder, in arm lengths in the chest's frame (outward, up, forward).
    reach: tuple[float, float, float] | None = None
    # Direction in which the elbow points, in the same frame; only used with `reach`.
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
    """The pose of a whole body."""

    arms: list[Arm]  # left, right
    legs: list[Leg]  # left, right
    spine: tuple[float, float, float] = (0.0, 0.0, 0.0)  # flexion, side bend, twist
    neck: tuple[float, float, float] = (0.0, 0.0, 0.0)  # pitch down, side bend, turn
    lean: float = 0.0  # tilt of the pelvis forward
    lying: float = 0.0  # rotation of the pelvis about its forward axis
    name: str = ""  # family, a key of `FAMILIES`


def _arm(rng: Rng, *angles: tuple[float, float] | float) -> Arm:
    """Sample an arm from its angles, in order, as ranges (low, high) or fixed values."""
    return Arm(*(rng.uniform(*a) if isinstance(a, tuple) else a for a in angles))


def _leg(rng: Rng, *angles: tuple[float, float] | float) -> Leg:
    """Sample a leg from its angles, in order, as ranges (low, high) or fixed values."""
    return Leg(*(rng.uniform(*a) if isinstance(a, tuple) else a for a in angles))


def _relaxed_arm(rng: Rng) -> Arm:
    return _arm(rng, (-12, 22), (3, 20), (0, 45), (5, 40))


def _reach(rng: Rng, point: tuple[float, float, float], pole=(0.6, -0.5, -0.6), spread=0.06) -> Arm:
    """Sample an arm whose wrist is near `point`, in the coordinates of `Arm.reach`."""
    x, y, z = np.asarray(point) + rng.normal(0, spread, 3)
    return Arm(reach=(float(x), float(y), float(z)), pole=pole)


def _varied_arm(rng: Rng) -> Arm:
    """Sample one of several arm poses that suit a standing or sitting person."""
    choices = [
        lambda: _relaxed_arm(rng),
        lambda: _arm(rng, (20, 60), (0, 20), (10, 50), (60, 120)),
        lambda: _arm(rng, (60, 110), (-5, 25), (-20, 40), (0, 50)),
        lambda: _arm(rng, (-10, 20), (60, 100), (-90, 30), (0, 95)),
        lambda: _arm(rng, (120, 170), (0, 25), (-30, 30), (0, 70)),
        lambda: _reach(rng, (0.05, -0.62, 0.08), (0.9, 0.0, -0.5), 0.04),
        lambda: _reach(rng, (-0.12, 0.30, 0.18), (0.8, -0.4, 0.3), 0.05),
        lambda: _reach(rng, (-0.30, -0.25, 0.35), (0.6, -0.8, 0.0)),
    ]
    weights = np.array([4, 2.5, 1.5, 1.2, 1.2, 1.5, 1.0, 1.5])
    return choices[rng.choice(len(choices), p=weights / weights.sum())]()


def _standing_legs(rng: Rng) -> list[Leg]:
    abduction = rng.uniform(1, 14)
    legs = [_leg(rng, (-6, 6), abduction, (-20, 2), (0, 8)) for _ in range(2)]
    if rng.random() < 0.4:
        legs[rng.integers(2)] = _leg(rng, (8, 25), abduction, (-30, 0), (15, 40))
    elif rng.random() < 0.2:  # crossed
        front = rng.integers(2)
        legs[front].abduction, legs[front].flexion = -rng.uniform(4, 12), rng.uniform(4, 14)
    return legs


def _hand_on_hip(rng: Rng) -> Arm:
    return _reach(rng, (0.02, -0.66, 0.06), (0.95, 0.0, -0.35), 0.03)


def _crossed_arm(rng: Rng) -> Arm:
    return _reach(rng, (-0.42, -0.36, 0.26), (0.7, -0.7, 0.1), 0.03)


def _raised_arm(rng: Rng) -> Arm:
    if rng.random() < 0.6:
        return _arm(rng, (120, 172), (0, 30), (-40, 20), (0, 80))
    return _arm(rng, (-5, 20), (95, 150), (-100, 0), (0, 80))


def _spread_arm(rng: Rng) -> Arm:
    return _arm(rng, (-15, 25), (55, 105), (-60, 20), (0, 45))


def _standing(rng: Rng, arm: Callable[[Rng], Arm], spine_spread: float = 0.0) -> BodyPose:
    """Sample a standing person; without `spine_spread` the spine is straight."""
    pose = BodyPose([arm(rng), arm(rng)], _standing_legs(rng))
    if spine_spread:
        pose.spine = _spine(rng, spine_spread)
    return pose


def _stride(rng: Rng, front: tuple, back: tuple, swing: tuple, elbow: tuple) -> BodyPose:
    """Sample a pose with one leg forward and the arms swinging opposite.

    `front` and `back` each hold two ranges (low, high), of the flexion of hip and knee. `swing` and
    `elbow` are the ranges of the flexion of shoulder and elbow.
    """
    legs = [
        _leg(rng, front[0], (0, 6), (-12, 4), front[1]),
        _leg(rng, back[0], (0, 6), (-12, 4), back[1], 15),
    ]
    arms = [_arm(rng, swing, (4, 18), (0, 35), elbow), _arm(rng, swing, (2, 15), (10, 45), elbow)]
    arms[0].flexion *= -1
    if rng.random() < 0.5:
        arms, legs = arms[::-1], legs[::-1]
    return BodyPose(arms, legs)


def _walking(rng: Rng) -> BodyPose:
    pose = _stride(rng, ((12, 32), (0, 15)), ((-22, -5), (5, 45)), (5, 32), (8, 40))
    if rng.random() < 0.35:
        pose.arms[rng.integers(2)] = _varied_arm(rng)
    return pose


def _running(rng: Rng) -> BodyPose:
    pose = _stride(rng, ((35, 80), (30, 105)), ((-25, 0), (15, 100)), (15, 55), (65, 120))
    pose.lean = rng.uniform(4, 20)
    pose.spine = _spine(rng, 8)
    return pose


def _sitting(rng: Rng) -> BodyPose:
    knee, abduction = rng.uniform(60, 105), rng.uniform(3, 22)
    legs = [
        Leg(rng.uniform(75, 98), abduction, rng.uniform(-15, 10), knee + rng.uniform(-15, 15), 5)
        for _ in range(2)
    ]
    lap = [_reach(rng, (-0.12, -0.68, 0.42), (0.8, -0.5, -0.4)) for _ in range(2)]
    arms = lap if rng.random() < 0.5 else [_varied_arm(rng), lap[1]]
    if rng.random() < 0.5:
        arms = arms[::-1]
    spine = rng.uniform(-5, 25), rng.normal(0, 5), rng.normal(0, 8)
    return BodyPose(arms, legs, spine, lean=rng.uniform(-14, 8))


def _floor_sitting(rng: Rng) -> BodyPose:
    if rng.random() < 0.5:
        legs = [_leg(rng, (75, 95), (2, 12), -5, (5, 90), 10) for _ in range(2)]
    else:
        legs = [_leg(rng, (80, 95), (38, 52), -45, (105, 130), 20) for _ in range(2)]
    arms = [_reach(rng, (-0.05, -0.55, 0.5)), _varied_arm(rng)]
    spine = rng.uniform(0, 25), rng.normal(0, 4), rng.normal(0, 8)
    return BodyPose(arms, legs, spine, lean=rng.uniform(-12, 5))


def _crouching(rng: Rng) -> BodyPose:
    abduction = rng.uniform(5, 32)
    legs = [_leg(rng, (95, 122), abduction, (-20, 0), (100, 138), -18) for _ in range(2)]
    arms = [_reach(rng, (-0.1, -0.5, 0.6)), _varied_arm(rng)]
    spine = rng.uniform(5, 35), rng.normal(0, 5), rng.normal(0, 8)
    return BodyPose(arms, legs, spine, lean=rng.uniform(5, 28))


def _kneeling(rng: Rng) -> BodyPose:
    legs = [
        _leg(rng, (75, 98), (2, 18), 0, (80, 105)),
        _leg(rng, (-10, 15), (0, 12), 0, (85, 105), 50),
    ]
    legs = legs if rng.random() < 0.5 else legs[::-1]
    return BodyPose([_varied_arm(rng), _varied_arm(rng)], legs, spine=_spine(rng, 10))


def _bending(rng: Rng) -> BodyPose:
    lean = rng.uniform(20, 60)
    bend = rng.uniform(10, 45)
    legs = [
        Leg(lean + rng.uniform(-8, 12), rng.uniform(1, 14), -5, rng.uniform(0, 30))
        for _ in range(2)
    ]
    tilt = lean + bend
    # The flexion is sampled as a fraction of the tilt.
    arms = [_arm(rng, (0.6, 1.1), (0, 15), (0, 30), (0, 45)) for _ in range(2)]
    for arm in arms:
        arm.flexion *= tilt
    if rng.random() < 0.3:
        arms[rng.integers(2)] = _hand_on_hip(rng)
    spine = bend, rng.normal(0, 6), rng.normal(0, 10)
    return BodyPose(arms, legs, spine, neck=(-0.4 * tilt, 0, 0), lean=lean)


def _jumping(rng: Rng) -> BodyPose:
    legs = [_leg(rng, (-15, 70), (2, 32), (-15, 0), (10, 100), 30) for _ in range(2)]
    arms = [_arm(rng, (20, 165), (5, 60), (-60, 20), (0, 80)) for _ in range(2)]
    return BodyPose(arms, legs, spine=(rng.uniform(-18, 15), rng.normal(0, 8), rng.normal(0, 10)))


def _kicking(rng: Rng) -> BodyPose:
    legs = [
        _leg(rng, (35, 105), (-5, 25), -8, (0, 60), 25),
        _leg(rng, (-8, 8), (2, 10), -8, (5, 30)),
    ]
    arms = [_arm(rng, (-50, 10), (25, 80), 0, (5, 60)), _arm(rng, (10, 70), (20, 70), 10, (5, 70))]
    if rng.random() < 0.5:
        arms, legs = arms[::-1], legs[::-1]
    return BodyPose(arms, legs, spine=_spine(rng, 12), lean=rng.uniform(-20, 8))


def _swinging(rng: Rng) -> BodyPose:
    """Sample a swing, as in tennis or throwing: a lunge, a twisted trunk, one arm extended."""
    legs = [
        _leg(rng, (15, 65), (8, 28), -15, (15, 70)),
        _leg(rng, (-25, 10), (5, 25), -15, (5, 45), 15),
    ]
    arms = [_arm(rng, (-30, 150), (40, 110), (-90, 20), (10, 100)), _varied_arm(rng)]
    if rng.random() < 0.35:
        arms[1] = _reach(rng, (-0.25, -0.1, 0.6), (0.4, -0.9, 0.0))
    if rng.random() < 0.5:
        arms = arms[::-1]
    if rng.random() < 0.5:
        legs = legs[::-1]
    return BodyPose(arms, legs, spine=_spine(rng, 18), lean=rng.uniform(0, 20))


def _balancing(rng: Rng) -> BodyPose:
    """Sample a balanced stance, as in skiing or surfing: knees bent, arms out."""
    bend = rng.uniform(25, 70)
    legs = [
        Leg(bend + rng.uniform(-8, 8), rng.uniform(4, 25), -5, bend + rng.uniform(0, 25), -12)
        for _ in range(2)
    ]
    arms = [_arm(rng, (10, 60), (15, 75), (-10, 40), (15, 95)) for _ in range(2)]
    return BodyPose(arms, legs, spine=_spine(rng, 12), lean=rng.uniform(5, 35))


def _lying(rng: Rng) -> BodyPose:
    pose = _standing(rng, _varied_arm, 6) if rng.random() < 0.6 else _jumping(rng)
    pose.lying = float(rng.choice([-1, 1])) * rng.uniform(60, 120)
    return pose


def _spine(rng: Rng, spread: float) -> tuple[float, float, float]:
    """Sample the flexion of the spine, 2 degrees on average, and its side bend and twist."""
    flexion, side, twist = np.clip(rng.normal(0, spread, 3), -2.2 * spread, 2.2 * spread)
    return float(flexion) + 2.0, float(side), float(twist)


# Family -> weight, and function that samples a pose.
FAMILIES: dict[str, tuple[float, Callable[[Rng], BodyPose]]] = {
    "standing": (19, partial(_standing, arm=_relaxed_arm)),
    "standing_varied": (19, partial(_standing, arm=_varied_arm, spine_spread=6)),
    "walking": (14, _walking),
    "running": (8, _running),
    "sitting": (13, _sitting),
    "floor_sitting": (3, _floor_sitting),
    "crouching": (4, _crouching),
    "kneeling": (3, _kneeling),
    "hands_on_hips": (4, partial(_standing, arm=_hand_on_hip)),
    "arms_crossed": (2, partial(_standing, arm=_crossed_arm)),
    "arms_raised": (4, partial(_standing, arm=_raised_arm, spine_spread=8)),
    "arms_wide": (3, partial(_standing, arm=_spread_arm, spine_spread=12)),
    "bending": (3, _bending),
    "jumping": (2, _jumping),
    "kicking": (2, _kicking),
    "swinging": (5, _swinging),
    "balancing": (2, _balancing),
    "lying": (1, _lying),
}


def sample_pose(rng: Rng, family: str | None = None) -> BodyPose:
    """Sample a pose of `family` (a key of `FAMILIES`), or of a random family."""
    if family is None:
        weights = np.array([weight for weight, _ in FAMILIES.values()], dtype=float)
        family = list(FAMILIES)[rng.choice(len(weights), p=weights / weights.sum())]
    pose = FAMILIES[family][1](rng)
    pitch, side, turn = np.clip(rng.normal(0, (10, 6, 22)), (-25, -18, -65), (35, 18, 65))
    # On average, people look down by 4 degrees.
    pose.neck = (pose.neck[0] + float(pitch) + 4.0, float(side), float(turn))
    pose.name = family
    return pose
