"""Reading JSON files with clear errors, and writing JSON."""

import json
import re
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from lib.utils.errors import InputError, os_errors_as
from lib.utils.files import read_regular

T = TypeVar("T")


def read_json(path: str | Path, kind: type[T], what: str) -> T:
    """Read a JSON file as ``kind``, a msgspec struct or a list of structs.

    Fields that ``kind`` does not have are skipped.

    Args:
        what: description of the expected content, for error messages.

    Raises:
        InputError: the file is missing, not JSON, or does not match ``kind``. The message names the
            invalid list entry, if any.
    """
    data = _read(path, what)
    try:
        return msgspec.json.decode(data, type=kind)
    except UnicodeDecodeError as error:
        start = max(0, error.start - 20)
        text = f"text {error.object[start : error.end + 20]!r} is not UTF-8; save the file as UTF-8"
        entry = _undecodable_entry(data, kind)
    except (ValueError, RecursionError) as error:  # msgspec's errors are ValueErrors
        text, entry = str(error), ""
        # Such as: Expected `int`, got `str` - at `$.annotations[3].image_id`
        if match := re.fullmatch(r"(.*) - at `\$\.?(\w*)\[(\d+)\]\.?(.*)`", text):
            text = f"{match[1]} at {match[4]}" if match[4] else match[1]
            entry = _entry_name(match[2], match[3])
        elif match := re.search(r"\(byte (\d+)\)", text):  # such as NaN, which Python writes
            start = max(0, int(match[1]) - 20)
            text += f" in {data[start : start + 40].decode(errors='replace')!r}"
    raise InputError(f"{path}: {entry or f'cannot be read as {what}'}: {text}")


def read_any_json(path: str | Path, what: str) -> Any:
    """Read a JSON file with arbitrary content.

    NaN and Infinity are accepted. They are not valid JSON, but Python writes them, and callers may
    want to skip only the affected entries. ``what`` is as for ``read_json``.

    Raises:
        InputError: the file is missing or not JSON.
    """
    try:
        return json.loads(_read(path, what))
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path}: cannot be read as JSON: {error}") from None


def encode_json(value: Any) -> bytes:
    """Encode plain values, NumPy scalars and arrays as JSON."""
    return msgspec.json.encode(value, enc_hook=lambda x: x.tolist())


def _read(path: str | Path, what: str) -> bytes:
    with os_errors_as(f"{path}: cannot read {what}"):
        try:
            return read_regular(path)
        except FileNotFoundError:
            raise InputError(f"{path}: there is no such file ({what})") from None


def _undecodable_entry(data: bytes, kind: type) -> str:
    """Return the name of the first list entry with text that is not UTF-8; '' if none is found."""
    try:
        content = msgspec.json.decode(data.decode(errors="replace"), type=kind)
    except ValueError:  # the file has other errors too
        return ""
    lists = {"": content} if isinstance(content, list) else msgspec.structs.asdict(content)
    for name, entries in lists.items():
        for number, entry in enumerate(entries if isinstance(entries, list) else ()):
            if "\N{REPLACEMENT CHARACTER}" in repr(entry):
                return _entry_name(name, number)
    return ""


def _entry_name(name: str, number: int | str) -> str:
    return f"{name}[{number}]" if name else f"entry {number}"
