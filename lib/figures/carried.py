"""Bags, hand-held objects and seats. They occlude people, but are not part of a person's mask."""

import numpy as np

from lib.figures import paint as paints
from lib.figures.body import SIDES, Proportions, Skeleton3D
from lib.figures.render import Paint, Part, cone

Rng = np.random.Generator


def carried_objects(
    rng: Rng, body: Proportions, skeleton: Skeleton3D, bag: str, held: str, paint: Paint
) -> list[Part]:
    """Build a bag and a hand-held object, either of which may be ""; see `dress.Outfit`."""
    cones = []
    if bag == "backpack":
        cones.append((_backpack(body, skeleton), "chest"))
    elif bag == "shoulder":
        cones.append((_shoulder_bag(rng, body, skeleton), "neck"))
    if held:
        side = SIDES[rng.integers(2)]
        cones.append((_held_object(rng, skeleton, held, side), f"{side}_hand"))
    frame = skeleton.frames["chest"]
    return [
        Part(np.array(rows), frame, skeleton.joints[origin], paint, is_body=False)
        for rows, origin in cones
    ]


def _backpack(body: Proportions, skeleton: Skeleton3D) -> list[np.ndarray]:
    chest, center = skeleton.frames["chest"], skeleton.joints["chest"]
    behind = -0.085 * body.girth - 0.035
    cones = []
    for x in (-0.045, 0.0, 0.045):
        top = center + chest @ (x, 0.3 * body.trunk, behind)
        bottom = center + chest @ (x, -0.28 * body.trunk, behind - 0.015)
        cones.append(cone(top, bottom, 0.05, 0.06))
    return cones


def _shoulder_bag(rng: Rng, body: Proportions, skeleton: Skeleton3D) -> list[np.ndarray]:
    """Build a bag at one hip with a strap over one shoulder, chosen at random."""
    j, chest, pelvis = skeleton.joints, skeleton.frames["chest"], skeleton.frames["pelvis"]
    shoulder, hip = (SIDES[i] for i in rng.integers(0, 2, 2))
    sign = 1.0 if hip == "left" else -1.0
    top = j[f"{shoulder}_shoulder"] + chest @ (0, 0.045 * body.girth, 0)
    low = j[f"{hip}_hip"] + pelvis @ (sign * 0.075 * body.girth, 0.03, 0.02)
    cones = []
    for forward in (0.085, -0.085):
        middle = j["chest"] + chest @ (0.0, 0.0, forward * body.girth)
        if shoulder == hip:  # the strap hangs straight down
            middle = 0.5 * (top + low) + chest @ (0.0, 0.0, 0.6 * forward * body.girth)
        cones += [cone(top, middle, 0.008, 0.008), cone(middle, low, 0.008, 0.008)]
    drop, half_depth = rng.uniform(0.06, 0.16), pelvis @ (0, 0, rng.uniform(0.03, 0.08))
    bottom = low - pelvis @ (0, drop, 0)
    cones += [cone(low + s * half_depth, bottom + s * half_depth, 0.025, 0.04) for s in (-1, 0, 1)]
    return cones


def _held_object(rng: Rng, skeleton: Skeleton3D, name: str, side: str) -> list[np.ndarray]:
    wrist, hand = skeleton.joints[f"{side}_wrist"], skeleton.joints[f"{side}_hand"]
    along = (hand - wrist) / max(np.linalg.norm(hand - wrist), 1e-6)
    if name == "ball":
        radius = rng.uniform(0.04, 0.075)
        return [cone(hand + along * radius, hand + along * (radius + 0.001), radius, radius)]
    if name == "stick":
        axis = rng.normal(0, 1, 3) + 1.2 * along
        axis /= np.linalg.norm(axis)
        length = rng.uniform(0.3, 0.7)
        return [cone(hand - 0.1 * axis, hand + length * axis, 0.01, rng.uniform(0.008, 0.022))]
    # A bag.
    low = hand - 0.16 * skeleton.frames["pelvis"][:, 1]
    half_depth = 0.06 * skeleton.frames["pelvis"][:, 2]
    cones = [cone(hand, low - half_depth, 0.008, 0.04), cone(hand, low + half_depth, 0.008, 0.04)]
    return [*cones, cone(low - half_depth, low + half_depth, 0.05, 0.05)]


def seat(rng: Rng, body: Proportions, skeleton: Skeleton3D) -> Part:
    """Build a stool, chair or block under a seated person."""
    hips = 0.5 * (skeleton.joints["left_hip"] + skeleton.joints["right_hip"])
    # The seat stays upright when the pelvis tilts.
    center = hips - (0.0, 0.085 * body.girth + 0.02, 0.0)
    half, thickness = rng.uniform(0.12, 0.26), rng.uniform(0.015, 0.04)
    depth = np.array([0.0, 0.0, 1.0])
    across = np.array([half, 0.0, 0.0])
    rows = [
        cone(center - across + z * depth, center + across + z * depth, thickness, thickness)
        for z in np.linspace(-0.14, 0.12, 6)
    ]
    to_floor = np.array([0.0, -rng.uniform(0.15, 0.26), 0.0])
    if rng.random() < 0.3:  # a block
        rows += [
            cone(row[:3] + to_floor * t, row[3:6] + to_floor * t, 0.06, 0.06)
            for row in rows
            for t in (0.4, 0.9)
        ]
    else:
        tops = [center + s * across + z * depth for s in (-1, 1) for z in (-0.14, 0.12)]
        rows += [cone(top, top + to_floor, 0.012, 0.01) for top in tops]
    if rng.random() < 0.5:  # a backrest
        height = rng.uniform(0.12, 0.32)
        for x in np.linspace(-1, 1, int(rng.integers(2, 7))):
            low, high = (
                center + x * across - 0.17 * depth,
                center + x * across + (0.0, height, -0.19),
            )
            rows.append(cone(low, high, 0.014, 0.014))
    paint = paints.cloth(rng, paints.sample_color(rng), 0.3)
    return Part(np.array(rows), np.eye(3), center, paint, is_body=False)
