"""Files that are either whole or not there."""

import contextlib
import os
import tempfile
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
    temporary = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        with os.fdopen(handle, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
        temporary = None
    except OSError as error:
        raise InputError(f"{path}: cannot write: {error.strerror or error}") from error
    finally:
        if temporary is not None:
            with contextlib.suppress(OSError):
                os.unlink(temporary)


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
