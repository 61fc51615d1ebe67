"""Validated access to configuration values, for the functions that build networks."""

from collections.abc import Collection
from typing import Any

from yacs.config import CfgNode

from lib.utils.errors import InputError

_REQUIRED = object()


def get(cfg: CfgNode, key: str, default: Any = _REQUIRED) -> Any:
    """Return the value at the dotted ``key``, or ``default`` if it is missing.

    Raises:
        InputError: if the key is missing and there is no default.
    """
    node: Any = cfg
    for name in key.split("."):
        if not isinstance(node, dict) or name not in node:
            if default is _REQUIRED:
                raise InputError(f"{key} is missing; {cfg.MODEL.NAME} requires it")
            return default
        node = node[name]
    return node


def positive_int(cfg: CfgNode, key: str, default: Any = _REQUIRED) -> int:
    """Return the value at ``key``, which must be a positive integer."""
    value = get(cfg, key, default)
    require(_is_positive_int(value), key, "a positive integer", value)
    return value


def positive_ints(cfg: CfgNode, key: str, length: int, source: str) -> tuple[int, ...]:
    """Return the value at ``key``, which must be ``length`` positive integers.

    ``source`` tells the user where ``length`` comes from, such as another key.
    """
    value = get(cfg, key)
    is_list = isinstance(value, (list, tuple)) and all(_is_positive_int(item) for item in value)
    require(is_list, key, "a list of positive integers", value)
    require(len(value) == length, key, f"{length} numbers (set by {source})", value)
    return tuple(value)


def choice(cfg: CfgNode, key: str, options: Collection[Any], default: Any = _REQUIRED) -> Any:
    """Return the value at ``key``, which must be one of ``options``."""
    value = get(cfg, key, default)
    # A list from a YAML file is not hashable, and True would count as 1.
    is_option = not isinstance(value, (bool, list, dict)) and value in options
    require(is_option, key, f"one of {', '.join(map(str, options))}", value)
    return value


def require_image_size(cfg: CfgNode, divisor: int) -> None:
    """Raise InputError unless the sides of MODEL.IMAGE_SIZE are multiples of ``divisor``."""
    size = get(cfg, "MODEL.IMAGE_SIZE", (256, 256))
    is_valid = all(side % divisor == 0 for side in size)
    expected = f"multiples of {divisor} for {cfg.MODEL.NAME}"
    require(is_valid, "MODEL.IMAGE_SIZE", expected, list(size))


def require(is_valid: bool, key: str, expected: str, value: Any) -> None:
    """Raise InputError unless ``is_valid``; the message says that ``key`` must be ``expected``."""
    if not is_valid:
        raise InputError(f"{key} must be {expected}, not {value!r}")


def _is_positive_int(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 1
