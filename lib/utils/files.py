"""Files that are either whole or not there."""

import contextlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO

from lib.utils.errors import InputError


@contextlib.contextmanager
def atomic_file(path: str | Path) -> Iterator[BinaryIO]:
    """A binary file to write that takes its place at ``path`` when the block ends well, and leaves
    nothing else behind.

    Folders are made as needed.

    Raises:
        InputError: the folder cannot be written, or there is no space left.
    """
    path = Path(path)
    # One name, not a random one: what a run that was killed left is written over by the next.
    partial = path.with_name(f".{path.name}.partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with partial.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)
    except OSError as error:
        raise InputError(f"{path}: cannot write: {error.strerror or error}") from error
    finally:
        with contextlib.suppress(OSError):
            partial.unlink()


def write_atomically(path: str | Path, content: bytes | Callable[[BinaryIO], None]) -> None:
    """Write ``content``, bytes or a function that writes to an open file, by ``atomic_file``."""
    with atomic_file(path) as file:
        if callable(content):
            content(file)
        else:
            file.write(content)


def make_folder(path: str | Path) -> Path:
    """The folder at ``path``, made with its parents if need be; an InputError where that cannot
    be."""
    path = Path(path)
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"{path}: cannot make this folder: {error.strerror}") from None
    return path
