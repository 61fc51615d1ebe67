"""Checked values out of a config, for the networks' builders: modules take plain arguments."""

from collections.abc import Collection
from typing import Any

from yacs.config import CfgNode

from lib.utils.errors import InputError

_REQUIRED = object()


def setting(cfg: CfgNode, key: str, default: Any = _REQUIRED) -> Any:
    """The value at the dotted ``key``, or ``default``.

    Raises:
        InputError: the key is absent and has no default.
    """
    node: Any = cfg
    for name in key.split("."):
        if not isinstance(node, dict) or name not in node:
            if default is _REQUIRED:
                raise InputError(f"{key} is missing; the network {cfg.MODEL.NAME} needs it")
            return default
        node = node[name]
    return node


def count(cfg: CfgNode, key: str, default: Any = _REQUIRED) -> int:
    """A whole number of at least 1."""
    value = setting(cfg, key, default)
    require(_is_count(value), key, "a whole number of at least 1", value)
    return value


def counts(cfg: CfgNode, key: str, length: int, length_key: str) -> tuple[int, ...]:
    """``length`` whole numbers of at least 1; ``length_key`` is the key that said how many."""
    value = setting(cfg, key)
    is_list = isinstance(value, (list, tuple)) and all(_is_count(item) for item in value)
    require(is_list, key, "a list of whole numbers of at least 1", value)
    require(len(value) == length, key, f"{length} numbers, as {length_key} says", value)
    return tuple(value)


def choice(cfg: CfgNode, key: str, known: Collection[Any], default: Any = _REQUIRED) -> Any:
    """A value that must be one of ``known``."""
    value = setting(cfg, key, default)
    # A list from a YAML is not hashable, and True would pass for 1.
    is_known = not isinstance(value, (bool, list, dict)) and value in known
    require(is_known, key, f"one of {', '.join(map(str, known))}", value)
    return value


def require(is_right: bool, key: str, right: str, value: Any) -> None:
    """Refuse ``value`` of ``key`` unless ``is_right``; ``right`` says what it must be."""
    if not is_right:
        raise InputError(f"{key} must be {right}, not {value!r}")


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 1
