"""Atomic writing, safe reading and locking of files."""

import contextlib
import os
import socket
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import BinaryIO, TextIO

from lib.utils import distributed
from lib.utils.errors import InputError, os_errors_as

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None


@contextlib.contextmanager
def atomic_file(path: str | Path, sync: bool = True) -> Iterator[BinaryIO]:
    """Open a binary file for writing that replaces ``path`` only if the block succeeds.

    Missing folders are created. Of several processes only the main one writes. With ``sync``, the
    file is flushed to the disk.

    Raises:
        InputError: the file cannot be written.
    """
    path = Path(path)
    if not distributed.is_main():
        with open(os.devnull, "wb") as discarded:
            yield discarded
        return
    # A fixed name, not a random one, so that leftovers of a killed run are overwritten.
    partial = path.with_name(f".{path.name}.partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with partial.open("wb") as file:
            yield file
            if sync:
                file.flush()
                os.fsync(file.fileno())
        os.replace(partial, path)
    except OSError as error:
        raise InputError(f"{path}: cannot write: {error.strerror or error}") from error
    finally:
        with contextlib.suppress(OSError):
            partial.unlink()


def write_atomically(path: str | Path, content: bytes | Callable[[BinaryIO], None]) -> None:
    """Write bytes, or the output of a function that writes to a file, with ``atomic_file``.

    If the folder is removed during the first attempt, the file is written once more.
    """
    for is_last in (False, True):
        try:
            with atomic_file(path) as file:
                if callable(content):
                    content(file)
                else:
                    file.write(content)
            return
        except InputError as error:
            if is_last or not isinstance(error.__cause__, FileNotFoundError):
                raise


def read_regular(path: str | Path, max_bytes: int | None = None) -> bytes:
    """Read a file; refuse pipes and devices, which could block or never end.

    Raises:
        InputError: it is a pipe or device, or has more than ``max_bytes``.
        OSError: it cannot be read.
    """
    path = Path(path)
    check_regular(path)
    if max_bytes is not None and (size := path.stat().st_size) > max_bytes:
        raise InputError(f"{path} has {size} bytes; the limit is {max_bytes}")
    return path.read_bytes()


def check_regular(path: Path) -> None:
    """Raise InputError if the path is a pipe or device, or contains a NUL character."""
    check_path(path)
    if path.exists() and not (path.is_file() or path.is_dir()):
        raise InputError(f"{path} is a pipe or device, not a file")


def check_path(path: str | Path) -> None:
    """Raise InputError if the path contains a NUL character, which no file name can contain."""
    if "\0" in str(path):
        raise InputError(f"{path}: a file name must not contain NUL characters")


def first_existing(root: str | Path, names: Sequence[str], suffix: str = "") -> Path:
    """Return the path of the first of ``names`` that exists in ``root``, else of the first name.

    ``suffix`` is appended to look for a file, but is not part of the returned path.
    """
    paths = [Path(root) / name for name in names]
    return next((path for path in paths if Path(f"{path}{suffix}").exists()), paths[0])


def _open_lock(path: Path) -> TextIO:
    with os_errors_as(f"{path}: cannot write"):
        return path.open("a+")


@contextlib.contextmanager
def wait_for_lock(path: Path) -> Iterator[None]:
    """Hold a lock named after ``path`` within the block; wait while another process holds it."""
    make_folder(path.parent)
    with _open_lock(path.with_name(f".{path.name}.lock")) as file:
        if fcntl is not None:
            with contextlib.suppress(OSError):  # a file system without locks
                fcntl.flock(file, fcntl.LOCK_EX)
        yield


@contextlib.contextmanager
def hold_lock(folder: Path, name: str) -> Iterator[None]:
    """Hold ``<folder>/<name>.lock`` within the block, so that no other run uses the folder.

    The operating system releases the lock if the process is killed. Of several processes only the
    main one holds it.

    Raises:
        InputError: another run holds the lock; the message says which.
    """
    path = folder / f"{name}.lock"
    if not distributed.is_main() or fcntl is None:
        yield
        return
    with _open_lock(path) as file:
        # Data-loading processes outlive a killed run by seconds and must not hold the lock.
        os.register_at_fork(after_in_child=file.close)
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if not (path.exists() and os.path.samestat(os.fstat(file.fileno()), path.stat())):
                raise BlockingIOError  # another run is ending and has removed this file
        except BlockingIOError:
            file.seek(0)
            raise InputError(
                f"{folder}: in use by {file.read().strip() or 'another run'}; wait until it has "
                "ended, or choose another folder with the setting EXPERIMENT or with --work-dir"
            ) from None
        except OSError:  # a file system without locks
            yield
            return
        owner = f"process {os.getpid()} on {socket.gethostname()}\n"
        try:
            file.truncate(0)
            with os_errors_as(f"{path}: cannot write"):
                os.write(file.fileno(), owner.encode())  # unbuffered, or close would fail again
            yield
        finally:
            path.unlink(missing_ok=True)


def make_folder(path: str | Path) -> Path:
    """Create a folder and its parents if they do not exist, or raise an InputError."""
    path = Path(path)
    with os_errors_as(f"{path}: cannot create this folder"):
        path.mkdir(parents=True, exist_ok=True)
    return path
