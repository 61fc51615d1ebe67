"""JSON files, read with errors for people, and written."""

import json
import re
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from lib.utils.errors import InputError

T = TypeVar("T")


def read_json(path: str | Path, kind: type[T], what: str) -> T:
    """The JSON file ``path`` as ``kind``, a struct or a list of structs.

    Fields that ``kind`` does not name are skipped without being built.

    Raises:
        InputError: the file is missing, no JSON, or of another layout; ``what`` says what it should
            be. Where an entry of a list does not fit, the message names its list and number.
    """
    data = _read(path, what)
    try:
        return msgspec.json.decode(data, type=kind)
    except UnicodeDecodeError as error:
        start = max(0, error.start - 20)
        text = f"text {error.object[start : error.end + 20]!r} is not UTF-8; save the file as UTF-8"
        place = _undecodable_entry(data, kind)
    except (ValueError, RecursionError) as error:  # msgspec's errors are ValueErrors
        text, place = str(error), ""
        if match := re.fullmatch(r"(.*) - at `\$\.?(\w*)\[(\d+)\]\.?(.*)`", text):
            text = f"{match[1]} at {match[4]}" if match[4] else match[1]
            place = _place(match[2], match[3])
    raise InputError(f"{path}: {place or f'cannot be read as {what}'}: {text}")


def read_any_json(path: str | Path, what: str) -> Any:
    """The JSON file ``path``, whatever its layout.

    NaN and Infinity, which are no JSON but which Python writes, are numbers here, so that a caller
    can leave out single entries.

    Raises:
        InputError: the file is missing or no JSON; ``what`` says what it should be.
    """
    try:
        return json.loads(_read(path, what))
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path}: cannot be read as JSON: {error}") from None


def write_json(value: Any) -> bytes:
    """JSON bytes of plain values and NumPy scalars."""
    return msgspec.json.encode(value, enc_hook=lambda x: x.item())


def _read(path: str | Path, what: str) -> bytes:
    try:
        return Path(path).read_bytes()
    except FileNotFoundError:
        raise InputError(f"{path}: there is no such file ({what})") from None
    except OSError as error:
        raise InputError(f"{path}: cannot read {what}: {error.strerror}") from None


def _undecodable_entry(data: bytes, kind: type) -> str:
    """The place of the first entry of a list that has text which is not UTF-8; '' if there is
    none."""
    try:
        content = msgspec.json.decode(data.decode(errors="replace"), type=kind)
    except ValueError:  # another fault further on
        return ""
    lists = {"": content} if isinstance(content, list) else msgspec.structs.asdict(content)
    for name, entries in lists.items():
        for number, entry in enumerate(entries if isinstance(entries, list) else ()):
            if "\N{REPLACEMENT CHARACTER}" in repr(entry):
                return _place(name, number)
    return ""


def _place(name: str, number: int | str) -> str:
    return f"{name}[{number}]" if name else f"entry {number}"
