"""Experiments as YAML over one schema.

``load_config`` is all that others need. An experiment's YAML says what differs from its ``_BASE_``
(a path relative to the file, nestable) and from the defaults in ``default.py``; ``KEY VALUE``
options come last.
"""

import ast
import copy
import difflib
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml
from yacs.config import CfgNode

from lib.config.default import IGNORED, default_config
from lib.config.networks import EXTRA
from lib.utils.errors import InputError

__all__ = ["load_config"]

BASE_KEY = "_BASE_"


def load_config(path: str | Path, opts: Sequence[str] = ()) -> CfgNode:
    """The experiment in the YAML file ``path``, with ``opts`` (``[key, value, key, value, ...]``)
    over it, frozen.

    ``DATA_DIR`` is already put before the paths it concerns.

    Raises:
        InputError: a file that cannot be read, a key that does not exist, a value of the wrong
            type; the message names the file (or the command line), the key and what would be right.
    """
    layers = _read_layers(Path(path))
    layers.append(("command line", _options_tree(opts)))
    cfg = default_config()
    network = _network_name(layers, cfg.MODEL.NAME)
    if network in EXTRA:
        cfg.MODEL.EXTRA = copy.deepcopy(EXTRA[network])
    for source, tree in layers:
        _merge(cfg, tree, source, "", is_free=network not in EXTRA)
    _resolve_paths(cfg)
    _check(cfg, str(path))
    cfg.freeze()
    return cfg


def _read_layers(path: Path, seen: tuple[Path, ...] = ()) -> list[tuple[str, dict]]:
    """(file, content) of the file's bases and of itself, the outermost base first."""
    if path.resolve() in seen:
        raise InputError(f"{path}: {BASE_KEY} leads back to this file")
    tree = _read_yaml(path)
    base = tree.pop(BASE_KEY, None)
    if base is None:
        return [(str(path), tree)]
    if not isinstance(base, str):
        raise InputError(f"{path}: {BASE_KEY} must be the path of one YAML file, not {base!r}")
    return [*_read_layers(path.parent / base, (*seen, path.resolve())), (str(path), tree)]


def _read_yaml(path: Path) -> dict:
    try:
        tree = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"{path}: cannot read the experiment: {error.strerror}") from None
    except (yaml.YAMLError, ValueError) as error:  # ValueError: not UTF-8, or a date that is none
        reason = " ".join(str(error).split())
        raise InputError(f"{path}: not a YAML file: {reason}") from None
    if tree is None:
        return {}
    if not isinstance(tree, dict):
        raise InputError(f"{path}: an experiment is a mapping of keys, not a {type(tree).__name__}")
    return tree


def _options_tree(opts: Sequence[str]) -> dict:
    """``['A.B', '1']`` as ``{'A': {'B': '1'}}``."""
    if len(opts) % 2:
        raise InputError(
            f"command line: options come as KEY VALUE pairs; {opts[-1]!r} has no value"
        )
    tree: dict = {}
    for key, value in zip(opts[0::2], opts[1::2], strict=True):
        *parents, name = str(key).split(".")
        node = tree
        for parent in parents:
            node = node.setdefault(parent, {})
            if not isinstance(node, dict):
                raise InputError(f"command line: {key} and {parent} are both set")
        node[name] = value
    return tree


def _network_name(layers: list[tuple[str, dict]], default: str) -> str:
    for _, tree in reversed(layers):
        model = tree.get("MODEL")
        if isinstance(model, dict) and "NAME" in model:
            return str(model["NAME"])
    return default


def _merge(node: CfgNode, tree: dict, source: str, prefix: str, is_free: bool) -> None:
    """Put ``tree`` into ``node`` in place; below MODEL.EXTRA anything goes where ``is_free``."""
    for name, value in tree.items():
        key = f"{prefix}{name}"
        if key in IGNORED:
            continue
        free_here = is_free and prefix.startswith("MODEL.EXTRA")
        if name not in node:
            if not free_here:
                raise InputError(f"{source}: there is no key {key}{_nearest(key, node, prefix)}")
            node[name] = CfgNode(value) if isinstance(value, dict) else _parse(value)
        elif isinstance(node[name], CfgNode):
            if not isinstance(value, dict):
                raise InputError(f"{source}: {key} holds further keys, not the value {value!r}")
            _merge(node[name], value, source, f"{key}.", is_free)
        elif free_here:
            node[name] = _parse(value)
        else:
            node[name] = _coerce(value, node[name], f"{source}: {key}")


def _nearest(key: str, node: CfgNode, prefix: str) -> str:
    """Where the keys nearest to ``key`` are, as the end of a message."""
    every = list(_all_keys(default_config()))
    here = [f"{prefix}{name}" for name in node]
    close = difflib.get_close_matches(key, here, n=2, cutoff=0.6)
    close += difflib.get_close_matches(key, every, n=3, cutoff=0.6)
    last = key.rpartition(".")[2]
    close += [other for other in every if other.rpartition(".")[2] == last]
    names = list(dict.fromkeys(close))[:3]
    if names:
        return f"; the nearest are {', '.join(names)}"
    return f"; known here are {', '.join(here)}"


def _all_keys(node: CfgNode, prefix: str = ""):
    for name, value in node.items():
        yield f"{prefix}{name}"
        if isinstance(value, CfgNode):
            yield from _all_keys(value, f"{prefix}{name}.")


def _parse(value: Any) -> Any:
    """What a text means: a Python literal such as ``(0, 1)`` or a YAML scalar such as ``true`` or
    ``1e-3``."""
    if not isinstance(value, str):
        return value
    try:
        return ast.literal_eval(value)
    except (ValueError, SyntaxError, TypeError):
        pass
    try:
        return yaml.safe_load(value)
    except (yaml.YAMLError, ValueError):
        return str(value)


def _coerce(value: Any, default: Any, where: str) -> Any:
    """``value`` in the type of ``default``; ``where`` begins the error."""
    if isinstance(default, str):
        if value is None:
            return ""
        if isinstance(value, str):
            return str(value)
        raise InputError(f"{where} must be text, not {value!r}; put it in quotes")
    parsed = _parse(value)
    if isinstance(default, bool):
        if isinstance(parsed, bool):
            return parsed
        raise InputError(f"{where} must be true or false, not {value!r}")
    if isinstance(default, int):
        if isinstance(parsed, int) and not isinstance(parsed, bool):
            return parsed
        raise InputError(f"{where} must be a whole number, not {value!r}")
    if isinstance(default, float):
        if isinstance(parsed, (int, float)) and not isinstance(parsed, bool):
            return float(parsed)
        raise InputError(f"{where} must be a number, not {value!r}")
    return _coerce_sequence(parsed, default, where)


def _coerce_sequence(value: Any, default: list | tuple, where: str) -> list | tuple:
    is_number = isinstance(value, int) and not isinstance(value, bool)
    items = [value] if is_number else value  # GPUS 0 means GPUS (0,)
    kind = type(default[0]) if default else object
    if not isinstance(items, (list, tuple)) or not all(isinstance(i, kind) for i in items):
        what = {int: "whole numbers", str: "texts"}.get(kind, "values")
        raise InputError(f"{where} must be a list of {what}, not {value!r}")
    return type(default)(items)


def _resolve_paths(cfg: CfgNode) -> None:
    """Put DATA_DIR before the paths it concerns, as the original does.

    The original leaves COCO_BBOX_FILE alone; here it too is looked for below DATA_DIR when it is
    nowhere else.
    """
    base = Path(cfg.DATA_DIR)
    cfg.DATASET.ROOT = str(base / cfg.DATASET.ROOT)
    for section, name in (("MODEL", "PRETRAINED"), ("TEST", "MODEL_FILE")):
        if cfg[section][name]:
            cfg[section][name] = str(base / cfg[section][name])
    boxes = cfg.TEST.COCO_BBOX_FILE
    if boxes and not Path(boxes).exists():
        cfg.TEST.COCO_BBOX_FILE = str(base / boxes)


def _check(cfg: CfgNode, source: str) -> None:
    """Values of the right type that still cannot work."""

    def require(is_right: bool, key: str, right: str) -> None:
        if not is_right:
            node = cfg
            for name in key.split("."):
                node = node[name]
            raise InputError(f"{source}: {key} must be {right}, not {node!r}")

    for key in ("IMAGE_SIZE", "HEATMAP_SIZE"):
        size = cfg.MODEL[key]
        require(len(size) == 2 and min(size) > 0, f"MODEL.{key}", "a width and a height in pixels")
    for section in ("TRAIN", "TEST"):
        require(cfg[section].BATCH_SIZE_PER_GPU > 0, f"{section}.BATCH_SIZE_PER_GPU", "at least 1")
    name = cfg.EXPERIMENT.replace("{name}", "")
    require(not set("/\\{}") & set(name), "EXPERIMENT", "a folder's name")
    require(cfg.MODEL.NUM_JOINTS >= 0, "MODEL.NUM_JOINTS", "0 (the data set's) or more")
    require(0 < cfg.MODEL.SIGMA < 1e3, "MODEL.SIGMA", "above 0, in heatmap pixels (simcc: bins)")
    pair = cfg.MODEL.SIMDR_SIGMA
    are_numbers = all(isinstance(s, (int, float)) and 0 < s < 1e3 for s in pair)
    right = "[] or two numbers between 0 and 1000, in bins"
    require(are_numbers and len(pair) in (0, 2), "MODEL.SIMDR_SIGMA", right)
    require(0 < cfg.LOSS.BETA < 1e3, "LOSS.BETA", "above 0")
    require(cfg.WORKERS >= 0, "WORKERS", "0 or more")
    are_names = all(isinstance(name, str) for name in cfg.DATASET.CATEGORIES)
    require(are_names, "DATASET.CATEGORIES", "a list of names")
    require(cfg.SEED >= 0, "SEED", "0 or more")
    require(cfg.PRINT_FREQ > 0, "PRINT_FREQ", "at least 1")
    require(cfg.TRAIN.EVAL_INTERVAL >= 0, "TRAIN.EVAL_INTERVAL", "0 or more")
    require(cfg.TRAIN.WARMUP_ITERS >= 0, "TRAIN.WARMUP_ITERS", "0 or more")
    is_begun = 0 <= cfg.TRAIN.BEGIN_EPOCH <= cfg.TRAIN.END_EPOCH
    require(is_begun, "TRAIN.BEGIN_EPOCH", f"from 0 to END_EPOCH, {cfg.TRAIN.END_EPOCH}")
    require(cfg.DATASET.ROT_FACTOR >= 0, "DATASET.ROT_FACTOR", "0 degrees or more")
    require(0 <= cfg.DATASET.SCALE_FACTOR < 1, "DATASET.SCALE_FACTOR", "from 0 to below 1")
    for name in ("COLOR", "GRAY", "BLUR", "NOISE", "JPEG", "ERASE"):
        share = cfg.DATASET[f"PROB_{name}"]
        require(0 <= share <= 1, f"DATASET.PROB_{name}", "from 0 to 1")
    require(len(set(cfg.GPUS)) == len(cfg.GPUS), "GPUS", "different device numbers")
    least = "above 0" if cfg.TEST.SOFT_NMS else "0 or above"
    threshold = cfg.TEST.OKS_THRE
    is_right = 0 < threshold < math.inf or (threshold == 0 and not cfg.TEST.SOFT_NMS)
    require(is_right, "TEST.OKS_THRE", least)
    formats = ("jpg", "png", "zip")
    require(cfg.DATASET.DATA_FORMAT in formats, "DATASET.DATA_FORMAT", " or ".join(formats))
