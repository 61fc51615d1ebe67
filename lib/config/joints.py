"""The joints of an experiment, from a built-in data set or from the YAML file.

For your own data set, missing joint names and limbs are read from the annotation file. Missing flip
pairs are derived from the joint names.
"""

import logging
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import msgspec
import numpy as np
from yacs.config import CfgNode

from lib.keypoints.skeletons import (
    COCO,
    SKELETONS,
    Category,
    Skeleton,
    categories_with_joints,
)
from lib.utils.errors import InputError
from lib.utils.reading import read_json

logger = logging.getLogger(__name__)

Pairs = tuple[tuple[int, int], ...]


class _File(msgspec.Struct):
    categories: list[Category]


def resolve_joints(cfg: CfgNode) -> None:
    """Complete the joint settings of an experiment in place.

    If MODEL.NUM_JOINTS is 0, it is set to the data set's number of joints.
    For a data set in COCO
    format that is not in SKELETONS, empty values of DATASET.JOINT_NAMES, FLIP_PAIRS, SIGMAS and
    LIMBS are filled in. The configuration can then be used without the annotations.

    Raises:
        InputError: if the data set is unknown, or its joints are missing or inconsistent.
    """
    settings = cfg.DATASET
    known = SKELETONS.get(settings.DATASET)
    names = tuple(settings.JOINT_NAMES)
    if known is None and not names:
        _read_joints(cfg)
    if known is None or (names and names != known.names):
        _derive_pairs_and_sigmas(settings)
    cfg.MODEL.NUM_JOINTS = cfg.MODEL.NUM_JOINTS or len(skeleton_of(cfg))


def skeleton_of(cfg: CfgNode) -> Skeleton:
    """Return the skeleton of DATASET.DATASET.

    DATASET.JOINT_NAMES, FLIP_PAIRS, SIGMAS, LIMBS, UPPER_BODY and JOINT_WEIGHTS override it.

    Raises:
        InputError: if the data set is unknown and no joint names are given, or if a setting does
            not match the joint names.
    """
    settings = cfg.DATASET
    names = tuple(settings.JOINT_NAMES)
    known = SKELETONS.get(settings.DATASET)
    if known is None or (names and names != known.names):
        if not names:
            raise InputError(_unknown_data_set(settings.DATASET))
        _check_names(names)
        known = Skeleton(names, (), (_DEFAULT_SIGMA,) * len(names), (), ())
    upper_body = tuple(_joint_index(j, known.names, "UPPER_BODY") for j in settings.UPPER_BODY)
    overrides = {
        "flip_pairs": _joint_pairs(settings.FLIP_PAIRS, known.names, "FLIP_PAIRS"),
        "sigmas": _joint_values(settings.SIGMAS, known.names, "SIGMAS"),
        "limbs": _joint_pairs(settings.LIMBS, known.names, "LIMBS"),
        "upper_body": upper_body,
        "joint_weights": _joint_values(settings.JOINT_WEIGHTS, known.names, "JOINT_WEIGHTS"),
    }
    return replace(known, **{name: value for name, value in overrides.items() if value})


def find_flip_pairs(names: Sequence[str]) -> Pairs:
    """Return the (left, right) indices of names that differ only in their side.

    Examples are ``left_eye`` and ``right_eye``, ``l-eye`` and ``r-eye``, ``EyeLeft`` and
    ``EyeRight``.
    """
    sides: dict[tuple[str, ...], dict[str, int]] = {}
    for index, name in enumerate(names):
        words = [word.lower() for word in _WORD.findall(name)]
        side = next((_SIDES[word] for word in words if word in _SIDES), None)
        if side:
            rest = tuple("" if word in _SIDES else word for word in words)
            sides.setdefault(rest, {})[side] = index
    return tuple((s["left"], s["right"]) for s in sides.values() if len(s) == 2)


_WORD = re.compile(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])|\d+")
_SIDES = {"left": "left", "l": "left", "right": "right", "r": "right"}
_DEFAULT_SIGMA = float(np.median(COCO.sigmas))  # for joints that COCO does not have


def _unknown_data_set(dataset: str) -> str:
    return (
        f"DATASET.DATASET: unknown data set {dataset!r}; choose from {', '.join(SKELETONS)}, or "
        "set DATASET.ANNOTATIONS for your own data in COCO format (see docs/own_data.md)"
    )


def _read_joints(cfg: CfgNode) -> None:
    """Read joint names, and limbs if none are given, from the annotation file."""
    settings = cfg.DATASET
    if not settings.ANNOTATIONS:
        raise InputError(_unknown_data_set(settings.DATASET))
    files = [
        Path(settings.ROOT) / settings.ANNOTATIONS.replace("{split}", split)
        for split in (settings.TRAIN_SET, settings.TEST_SET)
    ]
    path = next((path for path in files if path.exists()), files[0])
    file = read_json(path, _File, "annotations in COCO format (DATASET.ANNOTATIONS)")
    wanted = [c for c in file.categories if c.name in settings.CATEGORIES]
    found = categories_with_joints(wanted or file.categories)
    if not found or not found[0].keypoints:
        raise InputError(
            f"{path}: no category lists its keypoints; set DATASET.JOINT_NAMES instead"
        )
    settings.JOINT_NAMES = names = list(found[0].keypoints)
    logger.info("=> %s: %d joints: %s", path, len(names), ", ".join(names))
    if not settings.LIMBS:
        settings.LIMBS = [list(pair) for pair in _limbs(found[0], str(path))]


def _limbs(category: Category, path: str) -> Pairs:
    """Return a category's skeleton, counted from 0.

    COCO counts from 1. A skeleton that contains a 0 is taken to count from 0.
    """
    pairs = category.skeleton or []
    first = 0 if any(0 in pair for pair in pairs) else 1
    counted = [(a - first, b - first) for a, b in pairs]
    kept = [pair for pair in counted if all(0 <= j < len(category.keypoints) for j in pair)]
    if len(kept) < len(counted):
        logger.warning(
            "%s: ignoring %d of %d limbs of category %r: no such joints",
            path,
            len(counted) - len(kept),
            len(counted),
            category.name,
        )
    return tuple(kept)


def _derive_pairs_and_sigmas(settings: CfgNode) -> None:
    """Fill in flip pairs and sigmas if the YAML file does not give them."""
    names = tuple(settings.JOINT_NAMES)
    _check_names(names)
    if not settings.FLIP_PAIRS and (pairs := find_flip_pairs(names)):
        settings.FLIP_PAIRS = [list(pair) for pair in pairs]
        text = ", ".join(f"{names[a]}/{names[b]}" for a, b in pairs)
        logger.info("=> flip pairs found by name: %s", text)
    if not settings.SIGMAS:
        known = dict(zip(COCO.names, COCO.sigmas, strict=True))
        settings.SIGMAS = [known.get(name, _DEFAULT_SIGMA) for name in names]
        logger.info(
            "=> DATASET.SIGMAS is not set: using COCO's for joints with the same name and their "
            "median, %g, for all others; AP depends on these values",
            _DEFAULT_SIGMA,
        )


def _check_names(names: Sequence[str]) -> None:
    if not all(isinstance(name, str) for name in names) or len(set(names)) < len(names):
        raise InputError(f"DATASET.JOINT_NAMES: must be distinct strings, not {list(names)}")


def _joint_values(values: Sequence[float], names: Sequence[str], key: str) -> tuple[float, ...]:
    is_valid = all(isinstance(v, (int, float)) and v > 0 for v in values)
    if values and (len(values) != len(names) or not is_valid):
        raise InputError(
            f"DATASET.{key}: must be {len(names)} positive numbers, one per joint, not "
            f"{list(values)}"
        )
    return tuple(map(float, values))


def _joint_pairs(values: Sequence, names: Sequence[str], key: str) -> Pairs:
    for pair in values:
        if not isinstance(pair, (list, tuple)) or len(pair) != 2 or pair[0] == pair[1]:
            raise InputError(f"DATASET.{key}: must be pairs of two joints, not {pair!r}")
    return tuple((_joint_index(a, names, key), _joint_index(b, names, key)) for a, b in values)


def _joint_index(joint: str | int, names: Sequence[str], key: str) -> int:
    """Return the index of a joint given by its name or number."""
    if joint in names:
        return names.index(joint)
    if isinstance(joint, int) and 0 <= joint < len(names):
        return joint
    raise InputError(
        f"DATASET.{key}: unknown joint {joint!r}; choose from {', '.join(names)}, or use 0 to "
        f"{len(names) - 1}"
    )
