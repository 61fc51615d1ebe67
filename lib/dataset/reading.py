"""Reading annotation files: typed JSON, with errors for people."""

import mmap
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from lib.utils.errors import InputError

T = TypeVar("T")
_CHUNK = 4096


def read_json(path: str | Path, kind: type[T], what: str) -> T:
    """The JSON file ``path`` as ``kind``; fields that ``kind`` does not name are skipped without
    building them.

    Raises:
        InputError: the file is missing, no JSON, or of another layout; ``what`` says what it should
            be.
    """
    try:
        # Mapped, not read: raw parts of the result stay in the file and need no memory of their
        # own. The map closes with the last of them.
        with open(path, "rb") as file:
            data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        return msgspec.json.decode(data, type=kind)
    except FileNotFoundError:
        raise InputError(f"{path}: there is no such file ({what})") from None
    except ValueError as error:  # an empty file cannot be mapped; msgspec's errors are ValueErrors
        raise InputError(f"{path}: cannot be read as {what}: {error}") from None
    except OSError as error:
        raise InputError(f"{path}: cannot read {what}: {error.strerror}") from None


def decode_chunks(
    raw: list[msgspec.Raw], kind: type[T], path: str | Path, name: str
) -> Iterator[list[T]]:
    """Entries of a JSON list, decoded a few thousand at a time so that only those take memory.

    Raises:
        InputError: an entry does not fit ``kind``; the message says which one of ``name`` in
            ``path``.
    """
    decoder = msgspec.json.Decoder(list[kind])
    for start in range(0, len(raw), _CHUNK):
        part = b"[" + b",".join(bytes(r) for r in raw[start : start + _CHUNK]) + b"]"
        try:
            yield decoder.decode(part)
        except msgspec.DecodeError as error:
            raise InputError(f"{path}: {_place(error, start, name)}") from None


def _place(error: Exception, start: int, name: str) -> str:
    text = str(error)
    match = re.search(r" - at `\$\[(\d+)\]\.?(.*)`", text)
    if not match:
        return f"{name}: {text}"
    place = f" at {match[2]}" if match[2] else ""
    return f"{name}[{start + int(match[1])}]: {text[: match.start()]}{place}"


def write_json(value: Any) -> bytes:
    """JSON bytes of plain values and NumPy scalars."""
    return msgspec.json.encode(value, enc_hook=lambda x: x.item())
