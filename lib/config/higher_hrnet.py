"""Experiments of HRNet/HigherHRNet-Human-Pose-Estimation, translated to this project's keys."""

import ast
import contextlib
from typing import Any

from lib.utils.errors import InputError

NAME = "pose_higher_hrnet"

DATASETS = {"coco_kpt": "coco", "crowd_pose_kpt": "crowdpose"}
# HigherHRNet's keys -> this project's. Keys with '' have no effect here and are dropped.
RENAMED = {
    "DATASET.INPUT_SIZE": "MODEL.IMAGE_SIZE",
    "DATASET.OUTPUT_SIZE": "MODEL.HEATMAP_SIZE",
    "DATASET.SIGMA": "MODEL.SIGMA",
    "DATASET.TRAIN": "DATASET.TRAIN_SET",
    "DATASET.TEST": "DATASET.TEST_SET",
    "DATASET.DATASET_TEST": "",
    "DATASET.NUM_JOINTS": "",
    "TRAIN.IMAGES_PER_GPU": "TRAIN.BATCH_SIZE_PER_GPU",
    "TEST.IMAGES_PER_GPU": "TEST.BATCH_SIZE_PER_GPU",
    "TEST.REFINE": "TEST.REFINE_PEOPLE",
    "FP16.ENABLED": "TRAIN.AMP",
    "LOSS.NUM_STAGES": "",
    "MODEL.SYNC_BN": "TRAIN.SYNC_BN",
    **dict.fromkeys(("VERBOSE", "DIST_BACKEND", "MULTIPROCESSING_DISTRIBUTED"), ""),
    **dict.fromkeys(("FP16.STATIC_LOSS_SCALE", "FP16.DYNAMIC_LOSS_SCALE"), ""),
    **dict.fromkeys(("DATASET.BASE_SIZE", "DATASET.BASE_SIGMA", "DATASET.INT_SIGMA"), ""),
    **dict.fromkeys(("TEST.LOG_PROGRESS", "TEST.IGNORE_CENTER", "DEBUG.SAVE_TAGMAPS_PRED"), ""),
}
# Keys for which only one value is supported.
FIXED = {
    "DATASET.SCALE_AWARE_SIGMA": False,
    "DATASET.WITH_CENTER": False,
    "LOSS.WITH_HEATMAPS_LOSS": [True, True],
    "LOSS.WITH_AE_LOSS": [True, False],
    "TEST.WITH_HEATMAPS": [True, True],
    "TEST.WITH_AE": [True, False],
}


def translate(tree: dict, source: str) -> dict:
    """Translate the settings of a YAML file or of the command line for ``pose_higher_hrnet``.

    The result also selects the network, head and target type of HigherHRNet, and RGB input.

    Raises:
        InputError: if a setting is not supported; the message names ``source`` and the key.
    """
    for key in ("MODEL", "DATASET"):
        if not isinstance(tree.get(key, {}), dict):
            raise InputError(f"{source}: {key} is a section of keys; it cannot be {tree[key]!r}")
    translated: dict[str, Any] = {}
    for key, value in _flatten(tree):
        if key in FIXED:
            if _parse_literal(value) != FIXED[key]:
                raise InputError(
                    f"{source}: {key} must be {FIXED[key]}, not {_parse_literal(value)}"
                )
            continue
        name = RENAMED.get(key, key)
        if name:
            try:
                _set(translated, name, _convert(key, value))
            except (TypeError, ValueError, LookupError, OverflowError):
                raise InputError(f"{source}: {key} has an invalid value, {value!r}") from None
    for name, value in {
        "MODEL.NAME": "pose_hrnet",
        "MODEL.HEAD": "higher",
        "MODEL.TARGET_TYPE": "tags",
        "DATASET.COLOR_RGB": True,
    }.items():
        _set(translated, name, value)
    return translated


def _convert(key: str, value: Any) -> Any:
    if key == "DATASET.DATASET":
        return DATASETS.get(value, value)
    if key == "DATASET.FLIP":  # a probability in HigherHRNet's code
        return float(value) > 0
    if key == "DATASET.INPUT_SIZE":
        return [int(value), int(value)]
    if key == "DATASET.OUTPUT_SIZE":  # each further output is twice as large
        coarsest = int(_parse_literal(value)[0])
        return [coarsest, coarsest]
    return value


def _parse_literal(value: Any) -> Any:
    """Parse values such as ``(True, False)``, which YAML reads as a string."""
    with contextlib.suppress(ValueError, SyntaxError, TypeError):
        value = ast.literal_eval(value)
    return list(value) if isinstance(value, tuple) else value


def _flatten(tree: dict, prefix: str = "") -> list[tuple[str, Any]]:
    """Return (dotted key, value) of all settings; MODEL.EXTRA is one setting."""
    pairs = []
    for name, value in tree.items():
        key = f"{prefix}{name}"
        is_section = isinstance(value, dict) and key != "MODEL.EXTRA"
        pairs += _flatten(value, f"{key}.") if is_section else [(key, value)]
    return pairs


def _set(tree: dict, key: str, value: Any) -> None:
    *parents, name = key.split(".")
    for parent in parents:
        tree = tree.setdefault(parent, {})
    tree[name] = value
