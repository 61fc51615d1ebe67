"""Experiment configuration. ``load_config`` reads a YAML file and checks it against the schema.

A YAML file holds only what differs from its ``_BASE_`` (a path relative to the file; bases may have
bases) and from the defaults in ``default.py``. ``KEY VALUE`` options override everything else.
"""

import ast
import contextlib
import copy
import difflib
import math
from collections.abc import Iterator, Sequence
from operator import attrgetter
from pathlib import Path
from typing import Any

import yaml
from yacs.config import CfgNode

from lib.config import higher_hrnet
from lib.config.default import BOTTOM_UP_ONLY, IGNORED, TOP_DOWN_ONLY, default_config
from lib.config.joints import resolve_joints, skeleton_of
from lib.config.networks import EXTRA
from lib.utils.download import is_url
from lib.utils.errors import InputError
from lib.utils.files import check_path, read_regular

__all__ = ["is_bottom_up", "load_config", "skeleton_of"]

BASE_KEY = "_BASE_"
SCALARS = {bool: "true or false", int: "an integer", float: "a number"}
AT_LEAST_1 = (
    "PRINT_FREQ", "TRAIN.BATCH_SIZE_PER_GPU", "TEST.BATCH_SIZE_PER_GPU", "TRAIN.ACCUMULATE",
    "TRAIN.KEEP", "DATASET.MAX_NUM_PEOPLE",
)  # fmt: skip
AT_LEAST_0 = (
    "WORKERS", "SEED", "MODEL.NUM_JOINTS", "DATASET.ROT_FACTOR", "TRAIN.EVAL_INTERVAL",
    "TRAIN.WARMUP_ITERS", "TRAIN.CHECKPOINT_EVERY",
)  # fmt: skip


def load_config(path: str | Path, opts: Sequence[str] = ()) -> CfgNode:
    """Load an experiment and return its complete, frozen configuration.

    DATA_DIR is prepended to paths, and the joints of the data set are filled in
    (lib/config/joints.py).

    Args:
        path: the experiment's YAML file.
        opts: overrides, ``[key, value, key, value, ...]``.

    Raises:
        InputError: if a file cannot be read, a key does not exist or a value is invalid.
    """
    try:
        return _load_config(path, opts)
    except RecursionError:
        raise InputError(f"{path} is nested too deeply, or refers to itself") from None


def _load_config(path: str | Path, opts: Sequence[str]) -> CfgNode:
    layers = _read_layers(Path(path))
    layers.append(("command line", _options_tree(opts)))
    if _network_name(layers, "") == higher_hrnet.NAME:
        layers = [(source, higher_hrnet.translate(tree, source)) for source, tree in layers]
    cfg = default_config()
    network = _network_name(layers, cfg.MODEL.NAME)
    if network in EXTRA:
        cfg.MODEL.EXTRA = copy.deepcopy(EXTRA[network])
    defaults = cfg.clone()
    # If the network is unknown, do not check EXTRA; ``build_model`` reports the unknown name.
    for source, tree in layers:
        _merge(cfg, defaults, tree, source, "", any_extra=network not in EXTRA)
    _resolve_paths(cfg)
    _check(cfg, layers)
    _check_task(cfg, layers)
    resolve_joints(cfg)
    cfg.freeze()
    return cfg


def is_bottom_up(cfg: CfgNode) -> bool:
    """Return True if the network finds everybody in a whole image, without boxes."""
    return cfg.MODEL.TARGET_TYPE == "tags"


def _read_layers(path: Path, seen: tuple[Path, ...] = ()) -> list[tuple[str, dict]]:
    """Return (path, content) of the file and its bases; the file comes last."""
    check_path(path)
    if path.resolve() in seen:
        raise InputError(f"{path}: circular {BASE_KEY}: the file is its own base")
    tree = _read_yaml(path)
    base = tree.pop(BASE_KEY, None)
    if base is None:
        return [(str(path), tree)]
    if not isinstance(base, str):
        raise InputError(f"{path}: {BASE_KEY} must be the path of a YAML file, not {base!r}")
    return [*_read_layers(path.parent / base, (*seen, path.resolve())), (str(path), tree)]


def _read_yaml(path: Path) -> dict:
    try:
        tree = yaml.safe_load(read_regular(path).decode())
    except OSError as error:
        raise InputError(f"{path}: cannot read the experiment: {error.strerror}") from None
    except (yaml.YAMLError, ValueError) as error:  # ValueError: not UTF-8, or an invalid date
        reason = " ".join(str(error).split())
        raise InputError(f"{path}: not a YAML file: {reason}") from None
    if tree is None:
        return {}
    if not isinstance(tree, dict):
        raise InputError(
            f"{path}: an experiment must be a mapping of keys, not a {type(tree).__name__}"
        )
    return tree


def _options_tree(opts: Sequence[str]) -> dict:
    """Turn ``['A.B', '1']`` into ``{'A': {'B': '1'}}``."""
    if len(opts) % 2:
        raise InputError(f"command line: expected KEY VALUE pairs; {opts[-1]!r} has no value")
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
    """Return MODEL.NAME of the last layer that sets it, or ``default`` if none does."""
    found = _last_set(layers, ["MODEL.NAME"])
    return str(found[1]) if found else default


def _last_set(layers: list[tuple[str, dict]], keys: Sequence[str]) -> tuple[str, Any] | None:
    """Return (source, value) from the last layer that sets one of ``keys``, or None."""
    for source, tree in reversed(layers):
        for key in keys:
            node: Any = tree
            for name in key.split("."):
                if not isinstance(node, dict) or name not in node:
                    break
                node = node[name]
            else:
                return source, node
    return None


def _merge(
    node: CfgNode, defaults: CfgNode, tree: dict, source: str, prefix: str, any_extra: bool
) -> None:
    """Merge ``tree`` into ``node``. Values must have the types of ``defaults``.

    With ``any_extra``, MODEL.EXTRA accepts any key and type.
    """
    for name, value in tree.items():
        key = f"{prefix}{name}"
        if key in IGNORED:
            continue
        accepts_anything = any_extra and prefix.startswith("MODEL.EXTRA")
        if name not in node:
            if not accepts_anything:
                raise InputError(f"{source}: unknown key {key}{_suggest(key, node, prefix)}")
            node[name] = CfgNode(value) if isinstance(value, dict) else _parse(value)
        elif isinstance(node[name], CfgNode):
            if not isinstance(value, dict):
                raise InputError(f"{source}: {key} is a section of keys; it cannot be {value!r}")
            section = defaults.get(name, node[name])
            _merge(node[name], section, value, source, f"{key}.", any_extra)
        elif accepts_anything:
            node[name] = _parse(value)
        else:
            node[name] = _coerce(value, defaults[name], f"{source}: {key}")


def _suggest(key: str, node: CfgNode, prefix: str) -> str:
    """Return the end of an error message, which suggests keys similar to ``key``."""
    all_keys = list(_all_keys(default_config()))
    siblings = [f"{prefix}{name}" for name in node]
    close = difflib.get_close_matches(key, siblings, n=2, cutoff=0.6)
    close += difflib.get_close_matches(key, all_keys, n=3, cutoff=0.6)
    last = key.rpartition(".")[2]
    close += [other for other in all_keys if other.rpartition(".")[2] == last]
    names = list(dict.fromkeys(close))[:3]
    if names:
        return f"; did you mean {', '.join(names)}?"
    return f"; choose from {', '.join(siblings)}"


def _all_keys(node: CfgNode, prefix: str = "") -> Iterator[str]:
    for name, value in node.items():
        yield f"{prefix}{name}"
        if isinstance(value, CfgNode):
            yield from _all_keys(value, f"{prefix}{name}.")


def _parse(value: Any) -> Any:
    """Parse a string as a Python literal such as ``(0, 1)``, or else as YAML, such as ``true``."""
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
    """Convert ``value`` to the type of ``default``; an error message begins with ``where``."""
    if isinstance(default, str):
        if value is None:
            return ""
        if isinstance(value, str):
            # The original HRNet code removes quotes, too: MODEL.PRETRAINED "''" is empty.
            is_quoted = len(value) > 1 and value[0] == value[-1] and value[0] in "'\""
            return value[1:-1] if is_quoted else str(value)
        raise InputError(f"{where} must be a string, not {value!r}; put it in quotes")
    parsed = _parse(value)
    kind = type(default)
    if kind not in SCALARS:
        return _coerce_sequence(parsed, default, where)
    accepted = (int, float) if kind is float else kind
    # bool is a subclass of int, but True is not accepted as a number.
    if isinstance(parsed, accepted) and isinstance(parsed, bool) == (kind is bool):
        with contextlib.suppress(OverflowError):  # an integer too large for a float
            return kind(parsed)
    raise InputError(f"{where} must be {SCALARS[kind]}, not {value!r}")


def _coerce_sequence(value: Any, default: list | tuple, where: str) -> list | tuple:
    is_number = isinstance(value, int) and not isinstance(value, bool)
    items = [value] if is_number else value  # GPUS 0 means GPUS (0,)
    kind = type(default[0]) if default else object
    accepted = (int, float) if kind is float else kind
    if not isinstance(items, (list, tuple)) or not all(isinstance(i, accepted) for i in items):
        kinds = {int: "integers", str: "strings", float: "numbers"}.get(kind, "values")
        raise InputError(f"{where} must be a list of {kinds}, not {value!r}")
    return type(default)(items)


def _resolve_paths(cfg: CfgNode) -> None:
    """Prepend DATA_DIR to the paths of data and weights, as the original HRNet code does.

    Unlike the original, also prepend it to COCO_BBOX_FILE, unless that file exists.
    """
    base = Path(cfg.DATA_DIR)
    cfg.DATASET.ROOT = str(base / cfg.DATASET.ROOT)
    for section, name in (("MODEL", "PRETRAINED"), ("TEST", "MODEL_FILE")):
        if cfg[section][name] and not is_url(cfg[section][name]):
            cfg[section][name] = str(base / cfg[section][name])
    boxes = cfg.TEST.COCO_BBOX_FILE
    if boxes and not Path(boxes).exists():
        cfg.TEST.COCO_BBOX_FILE = str(base / boxes)


def _source(layers: list[tuple[str, dict]], keys: Sequence[str]) -> str:
    """Return the file that sets one of ``keys`` last, or ``command line``.

    If none is set, return the experiment's file.
    """
    found = _last_set(layers, keys)
    return found[0] if found else layers[-2][0]  # the last layer is the command line


def _check(cfg: CfgNode, layers: list[tuple[str, dict]]) -> None:
    """Raise InputError for values of the right type that are out of range or inconsistent."""

    def require(is_valid: bool, key: str, expected: str, *other_keys: str) -> None:
        """``other_keys`` are the keys that the check also depends on."""
        if not is_valid:
            source, value = _source(layers, (key, *other_keys)), attrgetter(key)(cfg)
            raise InputError(f"{source}: {key} must be {expected}, not {value!r}")

    data, train, test = cfg.DATASET, cfg.TRAIN, cfg.TEST
    for key in AT_LEAST_1:
        require(attrgetter(key)(cfg) >= 1, key, "at least 1")
    for key in AT_LEAST_0:
        require(attrgetter(key)(cfg) >= 0, key, "0 or more")
    for key in ("DATASET.MAX_BROKEN", "TEST.MAX_BROKEN", "DATASET.SCALE_FACTOR"):
        require(0 <= attrgetter(key)(cfg) < 1, key, "at least 0 and below 1")
    for name in ("COLOR", "GRAY", "BLUR", "NOISE", "JPEG", "ERASE"):
        require(0 <= data[f"PROB_{name}"] <= 1, f"DATASET.PROB_{name}", "from 0 to 1")
    for key in ("IMAGE_SIZE", "HEATMAP_SIZE"):
        size = cfg.MODEL[key]
        require(len(size) == 2 and min(size) > 0, f"MODEL.{key}", "a width and a height in pixels")
    name = cfg.EXPERIMENT.replace("{name}", "")
    is_valid = cfg.EXPERIMENT not in (".", "..") and not set("/\\{}\0") & set(name)
    require(is_valid, "EXPERIMENT", "a folder name")
    expected = "above 0 and below 1000, in heatmap pixels (simcc: bins)"
    require(0 < cfg.MODEL.SIGMA < 1e3, "MODEL.SIGMA", expected)
    pair = cfg.MODEL.SIMDR_SIGMA
    are_numbers = all(isinstance(s, (int, float)) and 0 < s < 1e3 for s in pair)
    expected = "[] or two numbers between 0 and 1000, in bins"
    require(are_numbers and len(pair) in (0, 2), "MODEL.SIMDR_SIGMA", expected)
    require(0 < cfg.LOSS.BETA < 1e3, "LOSS.BETA", "above 0 and below 1000")
    are_names = all(isinstance(name, str) for name in data.CATEGORIES)
    require(are_names, "DATASET.CATEGORIES", "a list of names")
    require(data.DATA_FORMAT in ("jpg", "png", "zip"), "DATASET.DATA_FORMAT", "jpg, png or zip")
    is_valid = 0 <= train.BEGIN_EPOCH <= train.END_EPOCH
    require(
        is_valid, "TRAIN.BEGIN_EPOCH", f"from 0 to END_EPOCH ({train.END_EPOCH})", "TRAIN.END_EPOCH"
    )
    require(0 <= train.EMA < 1, "TRAIN.EMA", "0 (off) or a decay below 1, such as 0.999")
    require(len(set(cfg.GPUS)) == len(cfg.GPUS), "GPUS", "distinct device numbers")
    is_valid = 0 < test.OKS_THRE < math.inf or (test.OKS_THRE == 0 and not test.SOFT_NMS)
    require(
        is_valid,
        "TEST.OKS_THRE",
        "above 0 with SOFT_NMS" if test.SOFT_NMS else "0 or more",
        "TEST.SOFT_NMS",
    )
    # Bottom-up networks:
    require(data.SCALE_TYPE in ("short", "long"), "DATASET.SCALE_TYPE", "short or long")
    is_valid = 0 < data.MIN_SCALE <= data.MAX_SCALE
    expected = f"above 0 and at most MAX_SCALE ({data.MAX_SCALE})"
    require(is_valid, "DATASET.MIN_SCALE", expected, "DATASET.MAX_SCALE")
    require(0 <= data.MAX_TRANSLATE < 100, "DATASET.MAX_TRANSLATE", "at least 0 and below 100")
    scales = test.SCALE_FACTOR
    is_valid = len(scales) > 0 and all(0 < scale <= 4 for scale in scales)
    require(is_valid, "TEST.SCALE_FACTOR", "a list of numbers above 0 and at most 4")
    is_valid = len(scales) == 1 or 1 in scales
    require(is_valid, "TEST.SCALE_FACTOR", "a list that contains 1, the scale whose tags are used")


def _check_task(cfg: CfgNode, layers: list[tuple[str, dict]]) -> None:
    """Raise InputError if a top-down experiment sets a bottom-up key, or the reverse."""
    bottom_up, defaults = is_bottom_up(cfg), default_config()
    for key in TOP_DOWN_ONLY if bottom_up else BOTTOM_UP_ONLY:
        if attrgetter(key)(cfg) != attrgetter(key)(defaults):
            reason = (
                "is only for top-down networks, but MODEL.TARGET_TYPE tags is for bottom-up ones"
                if bottom_up
                else "is only for bottom-up networks (MODEL.TARGET_TYPE tags)"
            )
            raise InputError(f"{_source(layers, [key])}: {key} {reason}; remove it")
