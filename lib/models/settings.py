"""Validation of configuration values, for the functions that build networks.

``load_config`` completes a configuration and checks its types, so only values are checked here.
"""

from collections.abc import Collection
from operator import attrgetter
from typing import Any

from yacs.config import CfgNode

from lib.utils.errors import InputError


def get(cfg: CfgNode, key: str) -> Any:
    """Return the value at the dotted ``key``."""
    return attrgetter(key)(cfg)


def positive_int(cfg: CfgNode, key: str) -> int:
    """Return the integer at ``key``, which must be at least 1."""
    value = get(cfg, key)
    require(value >= 1, key, "a positive integer", value)
    return value


def positive_ints(cfg: CfgNode, key: str, length: int, source: str) -> tuple[int, ...]:
    """Return the list at ``key``, which must contain ``length`` positive integers.

    ``source`` tells the user where ``length`` comes from, such as another key.
    """
    value = get(cfg, key)
    # load_config accepts True and False in a list of integers.
    is_valid = all(type(item) is int and item >= 1 for item in value)
    require(is_valid, key, "a list of positive integers", value)
    require(len(value) == length, key, f"{length} numbers (set by {source})", value)
    return tuple(value)


def choice(cfg: CfgNode, key: str, options: Collection[Any]) -> Any:
    """Return the value at ``key``, which must be one of ``options``."""
    value = get(cfg, key)
    require(value in options, key, f"one of {', '.join(map(str, options))}", value)
    return value


def require_image_size(cfg: CfgNode, divisor: int) -> None:
    """Raise InputError unless the sides of MODEL.IMAGE_SIZE are multiples of ``divisor``."""
    size = cfg.MODEL.IMAGE_SIZE
    is_valid = all(side % divisor == 0 for side in size)
    expected = f"multiples of {divisor} for {cfg.MODEL.NAME}"
    require(is_valid, "MODEL.IMAGE_SIZE", expected, list(size))


def require(is_valid: bool, key: str, expected: str, value: Any) -> None:
    """Raise InputError unless ``is_valid``; the message says that ``key`` must be ``expected``."""
    if not is_valid:
        raise InputError(f"{key} must be {expected}, not {value!r}")
