"""The joints of an experiment, from a built-in data set, the YAML file or the annotation file.

For your own data set, joint names and limbs that the YAML file lacks are read from the annotation
file. Missing flip pairs are derived from the joint names. If neither file has limbs, they are
derived from the joint names and the distances between the joints.
"""

import contextlib
import logging
import math
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from itertools import combinations
from pathlib import Path

import msgspec
import numpy as np
import yaml
from yacs.config import CfgNode

from lib.keypoints.skeletons import COCO, SKELETONS, Category, Skeleton, categories_with_joints
from lib.utils.errors import InputError
from lib.utils.reading import read_json

logger = logging.getLogger(__name__)

Pairs = tuple[tuple[int, int], ...]

MAX_PEOPLE = 1000  # maximum number of annotations used to measure distances between joints

_WORD = re.compile(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])|\d+")
_SIDES = {"left": "left", "l": "left", "right": "right", "r": "right"}
_DEFAULT_SIGMA = float(np.median(COCO.sigmas))  # of joints that COCO does not have


class _AnnotationFile(msgspec.Struct):
    categories: list[Category]
    annotations: list[msgspec.Raw] = []


class _Annotation(msgspec.Struct):
    keypoints: list[float] = []
    bbox: list[float] | None = None


def resolve_joints(cfg: CfgNode) -> None:
    """Fill in the empty joint settings of an experiment, in place.

    These are MODEL.NUM_JOINTS and, for joints that are not built in, DATASET.JOINT_NAMES,
    FLIP_PAIRS, SIGMAS and LIMBS. Afterwards, the joints no longer depend on the annotation file.

    Raises:
        InputError: if the data set is unknown, or its joints are missing or inconsistent.
    """
    settings = cfg.DATASET
    known = SKELETONS.get(settings.DATASET)
    names = tuple(settings.JOINT_NAMES)
    if known is None or (names and names != known.names):
        if not names and not settings.ANNOTATIONS:
            raise InputError(
                f"DATASET.DATASET: unknown data set {settings.DATASET!r}; choose from "
                f"{', '.join(SKELETONS)}, or set DATASET.ANNOTATIONS for your own data in COCO "
                "format (see docs/own_data.md)"
            )
        path, content = _annotation_file(settings), _AnnotationFile([])
        description = "annotations in COCO format (DATASET.ANNOTATIONS)"
        if not names:
            content = read_json(path, _AnnotationFile, description)
            _read_names(settings, content, path)
        elif not settings.LIMBS and settings.ANNOTATIONS and path.is_file():
            # Ignore a file that cannot be read: only drawings need the limbs.
            with contextlib.suppress(InputError):
                content = read_json(path, _AnnotationFile, description)
        _derive_pairs_and_sigmas(settings)
        if not settings.LIMBS:
            _find_limbs(settings, content, path)
    cfg.MODEL.NUM_JOINTS = cfg.MODEL.NUM_JOINTS or len(skeleton_of(cfg))


def skeleton_of(cfg: CfgNode) -> Skeleton:
    """Return the skeleton of a configuration after ``resolve_joints``.

    DATASET.FLIP_PAIRS, SIGMAS, LIMBS, UPPER_BODY and JOINT_WEIGHTS override a built-in skeleton.

    Raises:
        InputError: if a setting does not match the joint names.
    """
    settings = cfg.DATASET
    names = tuple(settings.JOINT_NAMES)
    skeleton = SKELETONS.get(settings.DATASET)
    if skeleton is None or (names and names != skeleton.names):
        skeleton = Skeleton(names, flip_pairs=(), sigmas=(), limbs=(), upper_body=())
    names = skeleton.names
    overrides = {
        "flip_pairs": _flip_pairs(settings.FLIP_PAIRS, names),
        "sigmas": _joint_values(settings.SIGMAS, names, "SIGMAS"),
        "limbs": _joint_pairs(settings.LIMBS, names, "LIMBS"),
        "upper_body": tuple(_joint_index(j, names, "UPPER_BODY") for j in settings.UPPER_BODY),
        "joint_weights": _joint_values(settings.JOINT_WEIGHTS, names, "JOINT_WEIGHTS"),
    }
    return replace(skeleton, **{name: value for name, value in overrides.items() if value})


def find_flip_pairs(names: Sequence[str]) -> Pairs:
    """Return the (left, right) indices of names that differ only in their side.

    Examples are ``left_eye`` and ``right_eye``, ``lefteye`` and ``righteye``, ``l-eye`` and
    ``r-eye``, ``EyeLeft`` and ``EyeRight``.
    """
    sides: dict[tuple[str, ...], dict[str, int]] = {}
    for index, name in enumerate(names):
        side, rest = _split_name(name)
        if side:
            sides.setdefault(rest, {})[side] = index
    return tuple((s["left"], s["right"]) for s in sides.values() if len(s) == 2)


def propose_limbs(names: Sequence[str], distances: np.ndarray) -> Pairs:
    """Return limbs for drawings, as pairs of joint indices.

    Start from the limbs of a built-in skeleton, keeping those with both joints in ``names``. Use
    the skeleton of which the most limbs are kept. Then add the shortest limbs that connect joints
    not yet connected by other limbs (Kruskal's algorithm), and finally the mirror images of all
    limbs.

    Args:
        names: names of the K joints.
        distances: (K, K), from ``joint_distances``; joints at infinite distance are not connected.
    """
    index = {_side_and_words(name): joint for joint, name in enumerate(names)}
    known: list[tuple[int, int]] = []
    for skeleton in SKELETONS.values():
        joints = [index.get(_side_and_words(name)) for name in skeleton.names]
        limbs = [(joints[a], joints[b]) for a, b in skeleton.limbs]
        known = max(known, [pair for pair in limbs if None not in pair], key=len)
    pairs = combinations(range(len(names)), 2)
    shortest = sorted((distances[pair], pair) for pair in pairs if np.isfinite(distances[pair]))
    # Number of each joint's connected component.
    component, limbs = list(range(len(names))), known.copy()
    for a, b in [*known, *(pair for _, pair in shortest)]:
        if component[a] != component[b]:
            component = [component[a] if number == component[b] else number for number in component]
            limbs.append((a, b))
    mirror = {a: b for pair in find_flip_pairs(names) for a, b in (pair, pair[::-1])}
    limbs += [(mirror.get(a, a), mirror.get(b, b)) for a, b in limbs]
    return tuple(dict.fromkeys((min(pair), max(pair)) for pair in limbs))


def joint_distances(people: Sequence[bytes], count: int) -> np.ndarray:
    """Return mean distances between joints, relative to the longer side of the box.

    Args:
        people: COCO annotations as JSON, of which at most ``MAX_PEOPLE`` are read, evenly spaced.
            If an annotation has no box, the box around its labelled joints is used.
        count: number of joints, K.

    Returns:
        (K, K); infinite for joints that are never labelled in the same annotation.
    """
    total, samples = np.zeros((2, count, count))
    step = max(1, math.ceil(len(people) / MAX_PEOPLE))
    for person in people[::step]:
        try:
            person = msgspec.json.decode(person, type=_Annotation)
        except ValueError:  # reported when the data set is read
            continue
        if len(person.keypoints) != 3 * count:
            continue
        joints = np.reshape(person.keypoints, (count, 3))
        is_labelled = joints[:, 2] > 0
        if is_labelled.sum() < 2:
            continue
        size = max((person.bbox or [])[2:], default=0)
        size = size if size > 0 else np.ptp(joints[is_labelled, :2], axis=0).max()
        distance = np.linalg.norm(joints[:, None, :2] - joints[None, :, :2], axis=2)
        are_labelled = np.outer(is_labelled, is_labelled)
        total += np.where(are_labelled, distance / max(size, 1e-6), 0)
        samples += are_labelled
    return np.where(samples > 0, total / np.maximum(samples, 1), np.inf)


def _split_name(name: str) -> tuple[str | None, tuple[str, ...]]:
    """Return the side (left, right or None) and the words of a joint's name.

    The word for the side is replaced by an empty string.
    """
    words = [word.lower() for word in _WORD.findall(name)]
    if not _SIDES.keys() & words:  # the side may be part of a word, as in leftear
        words = [part for word in words for part in re.split("(left|right)", word) if part]
    side = next((_SIDES[word] for word in words if word in _SIDES), None)
    return side, tuple("" if word in _SIDES else word for word in words)


def _side_and_words(name: str) -> tuple[str | None, tuple[str, ...]]:
    """Return the side and the words of a joint's name, without the word for the side."""
    side, words = _split_name(name)
    return side, tuple(filter(None, words))


def _annotation_file(settings: CfgNode) -> Path:
    """Return the annotation file of the training set, or of the test set if only that exists."""
    files = [
        Path(settings.ROOT) / settings.ANNOTATIONS.replace("{split}", split)
        for split in (settings.TRAIN_SET, settings.TEST_SET)
    ]
    return next((path for path in files if path.is_file()), files[0])


def _category(settings: CfgNode, content: _AnnotationFile) -> Category | None:
    """Return the category that defines the joints, or None if the file has no categories."""
    selected = [c for c in content.categories if c.name in settings.CATEGORIES]
    return next(iter(categories_with_joints(selected or content.categories)), None)


def _read_names(settings: CfgNode, content: _AnnotationFile, path: Path) -> None:
    """Read the joint names from the annotation file."""
    category = _category(settings, content)
    if not category or not category.keypoints:
        raise InputError(
            f"{path}: no category lists its keypoints; set DATASET.JOINT_NAMES instead"
        )
    settings.JOINT_NAMES = names = list(category.keypoints)
    logger.info("=> %s: %d joints: %s", path, len(names), ", ".join(names))


def _find_limbs(settings: CfgNode, content: _AnnotationFile, path: Path) -> None:
    """Read the limbs from the annotation file, or propose some if it has none."""
    names, category = settings.JOINT_NAMES, _category(settings, content)
    if category and category.skeleton and len(category.keypoints or ()) == len(names):
        settings.LIMBS = [list(pair) for pair in _limbs(category, str(path))]
    elif limbs := propose_limbs(names, joint_distances(content.annotations, len(names))):
        settings.LIMBS = [[names[a], names[b]] for a, b in limbs]
        logger.info(
            "=> no skeleton is given; limbs are derived from joint names and distances. To change "
            "them, set DATASET.LIMBS: %s",
            yaml.safe_dump(settings.LIMBS, default_flow_style=True, width=math.inf).strip(),
        )


def _limbs(category: Category, path: str) -> Pairs:
    """Return a category's skeleton as 0-based pairs.

    COCO's pairs are 1-based. A skeleton that contains a 0 is assumed to be 0-based.
    """
    offset = 0 if any(0 in pair for pair in category.skeleton) else 1
    limbs = [(a - offset, b - offset) for a, b in category.skeleton]
    kept = [pair for pair in limbs if all(0 <= j < len(category.keypoints) for j in pair)]
    if len(kept) < len(limbs):
        text = "%s: ignoring %d of %d limbs of category %r, which refer to missing joints"
        logger.warning(text, path, len(limbs) - len(kept), len(limbs), category.name)
    return tuple(kept)


def _derive_pairs_and_sigmas(settings: CfgNode) -> None:
    """Fill in flip pairs and sigmas if the YAML file does not give them."""
    names = tuple(settings.JOINT_NAMES)
    if not all(isinstance(name, str) for name in names) or len(set(names)) < len(names):
        raise InputError(f"DATASET.JOINT_NAMES: must be distinct strings, not {list(names)}")
    if not settings.FLIP_PAIRS and (pairs := find_flip_pairs(names)):
        settings.FLIP_PAIRS = [list(pair) for pair in pairs]
        text = ", ".join(f"{names[a]}/{names[b]}" for a, b in pairs)
        logger.info("=> flip pairs found by name: %s", text)
    if not settings.SIGMAS:
        known = dict(zip(COCO.names, COCO.sigmas, strict=True))
        settings.SIGMAS = [known.get(name, _DEFAULT_SIGMA) for name in names]
        logger.info(
            "=> DATASET.SIGMAS is not set: using COCO's for joints with the same name, and the "
            "median of COCO's, %g, for all others; AP depends on these values",
            _DEFAULT_SIGMA,
        )


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
            raise InputError(f"DATASET.{key}: must be pairs of different joints, not {pair!r}")
    return tuple((_joint_index(a, names, key), _joint_index(b, names, key)) for a, b in values)


def _flip_pairs(values: Sequence, names: Sequence[str]) -> Pairs:
    pairs = _joint_pairs(values, names, "FLIP_PAIRS")
    distinct = {frozenset(pair) for pair in pairs}  # the same pair twice is harmless
    for joint, count in Counter(joint for pair in distinct for joint in pair).items():
        if count > 1:
            raise InputError(
                f"DATASET.FLIP_PAIRS: {names[joint]} is in {count} pairs; it can be in only one"
            )
    return pairs


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
