"""The joints of an experiment: those of a data set known here, and what the YAML says of one's own.

Names and limbs that the YAML leaves out are found in the annotation file's category, flip pairs in
names with a left and a right.
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


def fill_in_joints(cfg: CfgNode) -> None:
    """Complete an experiment's settings of its joints, in place.

    MODEL.NUM_JOINTS 0 becomes the data set's number. For a data set in COCO's layout that is not
    one of SKELETONS, DATASET.JOINT_NAMES, FLIP_PAIRS, SIGMAS and LIMBS are filled in where they are
    empty, so that the configuration alone is enough where the annotations are not at hand.

    Raises:
        InputError: an unknown data set, joints that cannot be found out or do not fit each other.
    """
    settings = cfg.DATASET
    known = SKELETONS.get(settings.DATASET)
    names = tuple(settings.JOINT_NAMES)
    if known is None and not names:
        _take_category(cfg)
    if known is None or (names and names != known.names):
        _fill_in(settings)
    cfg.MODEL.NUM_JOINTS = cfg.MODEL.NUM_JOINTS or len(skeleton_of(cfg))


def skeleton_of(cfg: CfgNode) -> Skeleton:
    """The joints of DATASET.DATASET, with what DATASET.JOINT_NAMES, FLIP_PAIRS, SIGMAS, LIMBS,
    UPPER_BODY and JOINT_WEIGHTS say over it.

    Raises:
        InputError: an unknown data set without joint names, or settings that do not fit them.
    """
    settings = cfg.DATASET
    names = tuple(settings.JOINT_NAMES)
    known = SKELETONS.get(settings.DATASET)
    if known is None or (names and names != known.names):
        if not names:
            raise InputError(_unknown(settings.DATASET))
        _check_names(names)
        known = Skeleton(names, (), (_SIGMA,) * len(names), (), ())
    given = {
        "flip_pairs": _pairs(settings.FLIP_PAIRS, known.names, "FLIP_PAIRS"),
        "sigmas": _numbers(settings.SIGMAS, known.names, "SIGMAS"),
        "limbs": _pairs(settings.LIMBS, known.names, "LIMBS"),
        "upper_body": tuple(_number(j, known.names, "UPPER_BODY") for j in settings.UPPER_BODY),
        "joint_weights": _numbers(settings.JOINT_WEIGHTS, known.names, "JOINT_WEIGHTS"),
    }
    return replace(known, **{name: value for name, value in given.items() if value})


def flip_pairs_of(names: Sequence[str]) -> Pairs:
    """(left, right) joint numbers of names that differ in their side alone: ``left_eye`` and
    ``right_eye``, ``l-eye`` and ``r-eye``, ``EyeLeft`` and ``EyeRight``."""
    sides: dict[tuple[str, ...], dict[str, int]] = {}
    for number, name in enumerate(names):
        words = [word.lower() for word in _WORD.findall(name)]
        side = next((_SIDES[word] for word in words if word in _SIDES), None)
        if side:
            rest = tuple("" if word in _SIDES else word for word in words)
            sides.setdefault(rest, {})[side] = number
    return tuple((s["left"], s["right"]) for s in sides.values() if len(s) == 2)


_WORD = re.compile(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])|\d+")
_SIDES = {"left": "left", "l": "left", "right": "right", "r": "right"}
_SIGMA = float(np.median(COCO.sigmas))  # of a joint that nobody has measured


def _unknown(dataset: str) -> str:
    return (
        f"DATASET.DATASET: there is no {dataset!r}; known are {', '.join(SKELETONS)}. A data set "
        "of your own, in COCO's layout, gives DATASET.ANNOTATIONS: docs/own_data.md"
    )


def _take_category(cfg: CfgNode) -> None:
    """Joint names, and limbs where there are none, from the category in the annotation file."""
    settings = cfg.DATASET
    if not settings.ANNOTATIONS:
        raise InputError(_unknown(settings.DATASET))
    files = [
        Path(settings.ROOT) / settings.ANNOTATIONS.replace("{split}", split)
        for split in (settings.TRAIN_SET, settings.TEST_SET)
    ]
    path = next((path for path in files if path.exists()), files[0])
    file = read_json(path, _File, "annotations in COCO's layout (DATASET.ANNOTATIONS)")
    wanted = [c for c in file.categories if c.name in settings.CATEGORIES]
    found = categories_with_joints(wanted or file.categories)
    if not found or not found[0].keypoints:
        raise InputError(
            f"{path}: no category names its keypoints; give them as DATASET.JOINT_NAMES"
        )
    settings.JOINT_NAMES = names = list(found[0].keypoints)
    logger.info("=> %s: %d joints: %s", path, len(names), ", ".join(names))
    if not settings.LIMBS:
        settings.LIMBS = [list(pair) for pair in _limbs(found[0], str(path))]


def _limbs(category: Category, path: str) -> Pairs:
    """A category's skeleton, counted from 0. COCO counts from 1; a 0 in it tells otherwise."""
    pairs = category.skeleton or []
    first = 0 if any(0 in pair for pair in pairs) else 1
    counted = [(a - first, b - first) for a, b in pairs]
    kept = [pair for pair in counted if all(0 <= j < len(category.keypoints) for j in pair)]
    if len(kept) < len(counted):
        logger.warning(
            "%s: the skeleton of category %r names joints that are not there; %d of its %d limbs "
            "are left out",
            path,
            category.name,
            len(counted) - len(kept),
            len(counted),
        )
    return tuple(kept)


def _fill_in(settings: CfgNode) -> None:
    """Flip pairs from the names and sigmas, where the YAML gives none; the log says so."""
    names = tuple(settings.JOINT_NAMES)
    _check_names(names)
    if not settings.FLIP_PAIRS and (pairs := flip_pairs_of(names)):
        settings.FLIP_PAIRS = [list(pair) for pair in pairs]
        text = ", ".join(f"{names[a]}/{names[b]}" for a, b in pairs)
        logger.info("=> flip pairs by their names: %s", text)
    if not settings.SIGMAS:
        known = dict(zip(COCO.names, COCO.sigmas, strict=True))
        settings.SIGMAS = [known.get(name, _SIGMA) for name in names]
        logger.info(
            "=> DATASET.SIGMAS is not given: COCO's stand in for the joints it has, and %g, the "
            "middle of them, for the others; AP depends on this",
            _SIGMA,
        )


def _check_names(names: Sequence[str]) -> None:
    if not all(isinstance(name, str) for name in names) or len(set(names)) < len(names):
        raise InputError(f"DATASET.JOINT_NAMES: must be texts, each once, not {list(names)}")


def _numbers(values: Sequence[float], names: Sequence[str], key: str) -> tuple[float, ...]:
    is_right = all(isinstance(v, (int, float)) and v > 0 for v in values)
    if values and (len(values) != len(names) or not is_right):
        raise InputError(
            f"DATASET.{key}: must be {len(names)} numbers above 0, one a joint, not {list(values)}"
        )
    return tuple(map(float, values))


def _pairs(values: Sequence, names: Sequence[str], key: str) -> Pairs:
    for pair in values:
        if not isinstance(pair, (list, tuple)) or len(pair) != 2 or pair[0] == pair[1]:
            raise InputError(f"DATASET.{key}: must be pairs of joints, not {pair!r}")
    return tuple((_number(a, names, key), _number(b, names, key)) for a, b in values)


def _number(joint: str | int, names: Sequence[str], key: str) -> int:
    """The number of a joint that is given by its name or number."""
    if joint in names:
        return names.index(joint)
    if isinstance(joint, int) and 0 <= joint < len(names):
        return joint
    raise InputError(
        f"DATASET.{key}: there is no joint {joint!r}; they are {', '.join(names)}, or 0 to "
        f"{len(names) - 1}"
    )
