"""Reading annotation files: typed JSON, with errors for people."""

import mmap
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NoReturn, TypeVar

import msgspec
import numpy as np

from lib.utils.errors import InputError

T = TypeVar("T")
Take = Callable[[int, list[Any]], None]  # given the number of the first entry, and some entries
_CHUNK = 4096
_BLOCK = 1 << 20
_STRUCTURE = b'"[]{}'
_QUOTE, _OPEN_LIST, _CLOSE_LIST, _OPEN, _CLOSE = _STRUCTURE
_IS_STRUCTURE = bytes(byte in _STRUCTURE for byte in range(256))


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
    # An empty file cannot be mapped; msgspec's errors are ValueErrors.
    except (ValueError, RecursionError) as error:
        text = _text(error) if isinstance(error, UnicodeDecodeError) else error
        raise InputError(f"{path}: cannot be read as {what}: {text}") from None
    except OSError as error:
        raise InputError(f"{path}: cannot read {what}: {error.strerror}") from None


def read_lists(
    path: str | Path, kind: type[T], what: str, lists: dict[str, tuple[type, Take]]
) -> T:
    """The JSON object in ``path`` as ``kind``, its long lists handed over a part at a time.

    A file as large as COCO's thus needs the memory of a few thousand entries, and no more.

    Args:
        lists: name of a list in the object -> the type of its entries, and what is called with each
            part of them, in the file's order. In the result these lists are empty.

    Raises:
        InputError: as ``read_json``; an entry that does not fit is named by its list and number.
    """
    parts = _Parts(path, lists)
    try:
        with open(path, "rb") as file:
            while block := file.read(_BLOCK):
                while block.endswith(b"\\") and (more := file.read(1)):
                    block += more  # the two bytes of an escape stay together
                parts.add(block)
        return msgspec.json.decode(parts.rest, type=kind)
    except FileNotFoundError:
        raise InputError(f"{path}: there is no such file ({what})") from None
    except (ValueError, OverflowError, RecursionError) as error:
        raise InputError(f"{path}: cannot be read as {what}: {_text(error)}") from None
    except OSError as error:
        raise InputError(f"{path}: cannot read {what}: {error.strerror}") from None


class _Parts:
    """Cuts a JSON object, given in blocks, into entries of some of its lists and the rest.

    Only brackets and quotes are looked at; the parts are decoded by msgspec, and so is the rest
    with the lists emptied: together they check every byte.
    """

    def __init__(self, path: str | Path, lists: dict[str, tuple[type, Take]]) -> None:
        self.rest = bytearray()
        self._path = path
        self._takes = {name: take for name, (_, take) in lists.items()}
        self._decoders = {n: msgspec.json.Decoder(list[kind]) for n, (kind, _) in lists.items()}
        self._depth = 0
        self._in_string = 0
        self._name: str | None = None  # the list that we are in
        self._entries = bytearray()
        self._count = 0

    def add(self, block: bytes) -> None:
        """The next bytes of the file; no escape sequence is cut at their end."""
        borders, last_end = self._borders(block)
        at = 0
        for place in borders:
            if self._name is not None:
                self._entries += block[at:place]
                self._flush()
                self._name, at = None, place
            elif block[place] == _OPEN_LIST:
                self.rest += block[at : place + 1]
                self._name, self._count = self._key(), 0
                at = place + 1
        if self._name is None:
            self.rest += block[at:]
            return
        if last_end > at:
            self._entries += block[at:last_end]
            self._flush()
            at = last_end
        self._entries += block[at:]

    def _borders(self, block: bytes) -> tuple[list[int], int]:
        """Where lists that are values of the object open and close, and where the last entry that
        is an object ends."""
        plain = re.sub(rb"\\.", b"__", block, flags=re.DOTALL) if b"\\" in block else block
        places = np.flatnonzero(np.frombuffer(plain.translate(_IS_STRUCTURE), bool))
        marks = np.frombuffer(plain, np.uint8)[places]
        is_quote = marks == _QUOTE
        quotes = self._in_string + np.cumsum(is_quote)
        is_bracket = ~is_quote & (quotes % 2 == 0)
        places, marks = places[is_bracket], marks[is_bracket]
        opens = (marks == _OPEN_LIST) | (marks == _OPEN)
        depth = self._depth + np.cumsum(np.where(opens, 1, -1))
        if len(is_quote):
            self._in_string = int(quotes[-1]) % 2
        if len(depth):
            self._depth = int(depth[-1])
        is_border = ((depth == 2) & (marks == _OPEN_LIST)) | ((depth == 1) & (marks == _CLOSE_LIST))
        ends = np.flatnonzero((depth == 2) & (marks == _CLOSE))
        return places[is_border].tolist(), int(places[ends[-1]]) + 1 if len(ends) else 0

    def _key(self) -> str | None:
        """The list that the rest so far ends in, None if it is none of ours."""
        match = re.search(rb'"([^"\\]*)"\s*:\s*\[\Z', self.rest[-256:])
        name = match[1].decode(errors="replace") if match else None
        return name if name in self._takes else None

    def _flush(self) -> None:
        """Hand over the entries gathered."""
        text = bytes(self._entries).strip(b" \t\r\n")
        self._entries.clear()
        if not text:
            return
        name = self._name
        if self._count:
            if not text.startswith(b","):
                raise ValueError(f"no comma before {name}[{self._count}]")
            # A comma with nothing after it stays, and msgspec says so.
            text = text[1:] if len(text) > 1 else text
        try:
            entries = self._decoders[name].decode(b"[" + text + b"]")
        except msgspec.DecodeError as error:
            raise InputError(f"{self._path}: {_place(error, self._count, name)}") from None
        except UnicodeDecodeError:  # it names no entry
            self._raise_undecodable(text)
        self._takes[name](self._count, entries)
        self._count += len(entries)

    def _raise_undecodable(self, text: bytes) -> NoReturn:
        """Raise the InputError of the first entry in ``text`` that is not UTF-8."""
        entries = msgspec.json.decode(b"[" + text + b"]", type=list[msgspec.Raw])
        for number, entry in enumerate(entries, self._count):
            try:
                self._decoders[self._name].decode(b"[" + bytes(entry) + b"]")
            except UnicodeDecodeError as error:
                place = f"{self._path}: {self._name}[{number}]"
                raise InputError(f"{place}: {_text(error)}") from None
        raise InputError(f"{self._path}: {self._name} is not UTF-8; save the file as UTF-8")


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
    text = _text(error)
    match = re.search(r" - at `\$\[(\d+)\]\.?(.*)`", text)
    if not match:
        return f"{name}, from number {start} on: {text}"
    place = f" at {match[2]}" if match[2] else ""
    return f"{name}[{start + int(match[1])}]: {text[: match.start()]}{place}"


def _text(error: Exception) -> str:
    if isinstance(error, UnicodeDecodeError):
        shown = error.object[max(0, error.start - 20) : error.end + 20]
        return f"text {shown!r} is not UTF-8; save the file as UTF-8"
    # Bytes were counted in a part of the file, which nobody can look up.
    return re.sub(r" \(byte \d+\)$", "", str(error))


def write_json(value: Any) -> bytes:
    """JSON bytes of plain values and NumPy scalars."""
    return msgspec.json.encode(value, enc_hook=lambda x: x.item())
