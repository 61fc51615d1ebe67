"""Body proportions and forward kinematics: the 3D joints of a person in a given pose.

Body frame: origin at the pelvis, x to the person's left, y up, z forward. The unit is the standing
height of an adult.
"""

from dataclasses import dataclass

import numpy as np

from lib.figures.poses import Arm, BodyPose, Leg
from lib.keypoints.skeletons import COCO

SIDES = ("left", "right")

JOINTS = COCO.names  # left is the person's left
NUM_FACE_JOINTS = 5  # the first five joints are on the surface of the head

# Facial landmarks in the head's frame, in head lengths (chin to crown) from the center of the head.
# They lie on the surface modeled in dress.py.
HEAD_POINTS = {
    "nose": (0.0, -0.09, 0.47),
    "left_eye": (0.14, 0.05, 0.325),
    "right_eye": (-0.14, 0.05, 0.325),
    "left_ear": (0.35, 0.0, -0.05),
    "right_ear": (-0.35, 0.0, -0.05),
}

# Annotators of photographs mark shoulders and hips nearer to the body's outline than the joint is.
# OUTWARD is this offset (outward, up) in half widths of the shoulders or hips. It was measured as
# the median error, on 60 photographs, of a network trained on the joints themselves.
OUTWARD = {"shoulder": (0.15, 0.1), "hip": (0.5, -0.1)}


@dataclass(frozen=True)
class Proportions:
    """Lengths of body parts, in units of an adult's height."""

    kind: str  # man, woman or child
    head: float
    neck: float
    trunk: float
    shoulder: float  # half width
    hip: float  # half width
    upper_arm: float
    forearm: float
    thigh: float
    shin: float
    foot: float
    girth: float  # factor of all thicknesses
    belly: float  # how far it protrudes


@dataclass(frozen=True)
class Skeleton3D:
    """3D joints, and frames of the rigid parts, by name."""

    joints: dict[str, np.ndarray]  # (3,)
    frames: dict[str, np.ndarray]  # (3, 3) with the columns left, up, forward


def sample_proportions(rng: np.random.Generator) -> Proportions:
    """Sample random proportions of a man, woman or child."""
    kind = str(rng.choice(["man", "woman", "child"], p=[0.42, 0.4, 0.18]))

    def vary(value: float, spread: float = 0.05) -> float:
        return float(value * np.clip(rng.normal(1, spread), 1 - 2.2 * spread, 1 + 2.2 * spread))

    stature = {"man": 1.0, "woman": 0.94, "child": rng.uniform(0.62, 0.82)}[kind]
    legs = vary({"man": 1.0, "woman": 1.01, "child": 0.95}[kind], 0.04) * stature
    arms = vary({"man": 1.0, "woman": 0.97, "child": 0.94}[kind], 0.04) * stature
    weight = float(np.clip(rng.gamma(4.0, 0.25), 0.4, 2.4))  # 1 is average
    return Proportions(
        kind=kind,
        head=vary({"man": 0.138, "woman": 0.134, "child": 0.128}[kind], 0.04),
        neck=vary(0.036, 0.15) * stature,
        trunk=vary(0.285) * stature,
        shoulder=vary({"man": 0.112, "woman": 0.098, "child": 0.098}[kind], 0.06) * stature,
        hip=vary({"man": 0.052, "woman": 0.056, "child": 0.052}[kind], 0.06) * stature,
        upper_arm=vary(0.168) * arms,
        forearm=vary(0.145) * arms,
        thigh=vary(0.245) * legs,
        shin=vary(0.240) * legs,
        foot=vary(0.145) * stature,
        girth=(0.86 + 0.16 * weight) * stature,
        belly=max(0.0, weight - 1.1) * 0.03,
    )


def rotation(axis: str, degrees: float) -> np.ndarray:
    """Return the (3, 3) right-handed rotation about the axis x, y or z."""
    c, s = np.cos(np.deg2rad(degrees)), np.sin(np.deg2rad(degrees))
    if axis == "x":
        return np.array([[1, 0, 0], [0, c, -s], [0, s, c]])
    if axis == "y":
        return np.array([[c, 0, s], [0, 1, 0], [-s, 0, c]])
    return np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]])


def forward_kinematics(body: Proportions, pose: BodyPose) -> Skeleton3D:
    """Compute the joints of a body in a pose; arms with a target use inverse kinematics."""
    pelvis = rotation("z", pose.lying) @ rotation("x", pose.lean)
    # The waist and the chest each take half of the bend of the spine.
    flexion, side_bend, twist = (0.5 * angle for angle in pose.spine)
    bend = rotation("y", twist) @ rotation("z", side_bend) @ rotation("x", flexion)
    waist, chest = pelvis @ bend, pelvis @ bend @ bend
    joints = {"pelvis": np.zeros(3)}
    joints["waist"] = pelvis @ (0.0, 0.28 * body.trunk, 0.0)
    joints["chest"] = joints["waist"] + waist @ (0.0, 0.36 * body.trunk, 0.0)
    joints["neck"] = joints["chest"] + chest @ (0.0, 0.36 * body.trunk, 0.0)
    pitch, roll, turn = pose.neck
    head = chest @ rotation("y", turn) @ rotation("z", roll) @ rotation("x", pitch)
    # The neck leans 12 degrees forward and takes half of the pitch of the head.
    half_neck = chest @ rotation("x", 0.5 * pitch + 12.0)
    joints["skull"] = joints["neck"] + half_neck @ (0.0, body.neck + 0.1 * body.head, 0.0)
    joints["head"] = joints["skull"] + head @ (0.0, 0.38 * body.head, 0.12 * body.head)
    frames = {"pelvis": pelvis, "waist": waist, "chest": chest, "head": head}
    for name, point in HEAD_POINTS.items():
        joints[name] = joints["head"] + head @ (np.array(point) * body.head)
    skeleton = Skeleton3D(joints, frames)
    for i, side in enumerate(SIDES):
        mirror = np.diag([1.0 - 2.0 * i, 1.0, 1.0])
        _add_arm(skeleton, body, pose.arms[i], side, mirror)
        _add_leg(skeleton, body, pose.legs[i], side, mirror)
    return skeleton


def landmarks(body: Proportions, skeleton: Skeleton3D) -> np.ndarray:
    """Return the points (17, 3) at which COCO's annotators would mark the joints."""
    points = {name: skeleton.joints[name] for name in JOINTS}
    for part, frame, unit in (("shoulder", "chest", body.shoulder), ("hip", "pelvis", body.hip)):
        out, up = OUTWARD[part]
        for side, sign in zip(SIDES, (1.0, -1.0), strict=True):
            offset = unit * np.array([sign * out, up, 0.0])
            points[f"{side}_{part}"] = points[f"{side}_{part}"] + skeleton.frames[frame] @ offset
    return np.array(list(points.values()))


def _limb_rotation(limb: Arm | Leg) -> np.ndarray:
    """Return the (3, 3) rotation of an upper arm or a thigh relative to hanging straight down."""
    swing = rotation("x", -limb.flexion) @ rotation("z", limb.abduction)
    return swing @ rotation("y", -limb.internal)


def _add_arm(
    skeleton: Skeleton3D, body: Proportions, arm: Arm, side: str, mirror: np.ndarray
) -> None:
    """Add shoulder, elbow, wrist and hand of one arm.

    The points are computed for a left arm. `mirror` (3, 3) turns them into points of this side.
    """
    joints, chest = skeleton.joints, skeleton.frames["chest"]
    if arm.reach is None:
        upper = _limb_rotation(arm)
        to_elbow = upper @ (0.0, -1.0, 0.0) * body.upper_arm
        to_wrist = to_elbow + upper @ rotation("x", -arm.elbow) @ (0.0, -1.0, 0.0) * body.forearm
    else:
        to_elbow, to_wrist = _inverse_kinematics(arm, body.upper_arm, body.forearm)
    # A raised arm moves its shoulder up and inwards, as the clavicle does. `lift` is 0 if the arm
    # hangs, 1 if it points straight up.
    lift = max(0.0, 0.3 + to_elbow[1] / body.upper_arm) / 1.3
    shoulder = np.array([body.shoulder * (1 - 0.12 * lift), (0.24 * lift - 0.12) * body.trunk, 0.0])
    joints[f"{side}_shoulder"] = joints["neck"] + chest @ mirror @ shoulder
    joints[f"{side}_elbow"] = joints[f"{side}_shoulder"] + chest @ mirror @ to_elbow
    joints[f"{side}_wrist"] = joints[f"{side}_shoulder"] + chest @ mirror @ to_wrist
    # The hand continues the forearm, with about half its length.
    forearm = to_wrist - to_elbow
    joints[f"{side}_hand"] = joints[f"{side}_wrist"] + chest @ mirror @ forearm * (0.075 / 0.145)


def _inverse_kinematics(arm: Arm, upper: float, lower: float) -> tuple[np.ndarray, np.ndarray]:
    """Return elbow and wrist, (3,) relative to the shoulder, of an arm that reaches `arm.reach`."""
    wrist = np.array(arm.reach) * (upper + lower)
    distance = np.linalg.norm(wrist)
    # The lower limit is that of an elbow flexed by about 150 degrees.
    reach = np.clip(distance, 0.45 * max(upper, lower), 0.995 * (upper + lower))
    axis = wrist / distance
    pole = np.array(arm.pole) - np.dot(arm.pole, axis) * axis
    pole /= np.linalg.norm(pole)
    along = (upper**2 - lower**2 + reach**2) / (2 * reach)
    out = np.sqrt(max(upper**2 - along**2, 0.0))
    return along * axis + out * pole, reach * axis


def _add_leg(
    skeleton: Skeleton3D, body: Proportions, leg: Leg, side: str, mirror: np.ndarray
) -> None:
    """Add hip, knee, ankle, heel and toe of one leg, and the frame of the foot.

    `mirror` is the same as in `_add_arm`.
    """
    pelvis = skeleton.frames["pelvis"]
    thigh = _limb_rotation(leg)
    shin = thigh @ rotation("x", leg.knee)
    foot = shin @ rotation("x", leg.ankle)
    hip = np.array([body.hip, -0.02 * body.trunk, 0.0])
    knee = hip + thigh @ (0.0, -body.thigh, 0.0)
    ankle = knee + shin @ (0.0, -body.shin, 0.0)
    heel = ankle + foot @ (0.0, -0.15 * body.foot, -0.16 * body.foot)
    toe = ankle + foot @ (0.0, -0.2 * body.foot, 0.66 * body.foot)
    points = {"hip": hip, "knee": knee, "ankle": ankle, "heel": heel, "toe": toe}
    for key, point in points.items():
        skeleton.joints[f"{side}_{key}"] = pelvis @ mirror @ point
    skeleton.frames[f"{side}_foot"] = pelvis @ mirror @ foot @ mirror
