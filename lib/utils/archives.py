"""Unpacking: single files out of zip and tar archives, each to a place that the caller names."""

import fnmatch
import os
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from pathlib import Path, PurePosixPath
from typing import BinaryIO

from lib.utils.errors import InputError
from lib.utils.files import make_folder
from lib.utils.logs import progress

# What reading a damaged, cut-off or encrypted archive raises.
_DAMAGED = (
    *(zipfile.BadZipFile, tarfile.TarError, zlib.error, EOFError, RuntimeError),
    *(NotImplementedError, OSError),
)


def unpack(archive: Path, places: Mapping[str, Path]) -> int:
    """Unpack what ``places`` asks for; the folders inside the archive do not matter, so nothing can
    land elsewhere. Files that are already there, and not empty, stay.

    Args:
        archive: a .zip, or a .tar with any compression.
        places: pattern of file names -> the file to become, or (without a suffix) the folder to go
            to.

    Returns:
        How many such files the archive has.

    Raises:
        InputError: the archive is missing or damaged (each file's check sum is compared), or a file
            cannot be written.
    """
    count = 0
    for name, content in progress(_members(archive), None, archive.name):
        target = _target(name, places)
        if target is not None:
            count += 1
            if not (target.exists() and target.stat().st_size):
                _write(target, _pieces(content, archive))
    return count


def _target(name: str, places: Mapping[str, Path]) -> Path | None:
    """Where the member ``name`` goes."""
    base = PurePosixPath(name.replace("\\", "/")).name
    if base.startswith("."):  # macOS adds such files, named as their neighbours
        return None
    for pattern, place in places.items():
        if fnmatch.fnmatchcase(base, pattern):
            return place if place.suffix else place / base
    return None


def _members(archive: Path) -> Iterator[tuple[str, Callable[[], BinaryIO]]]:
    """Name of each file, and what opens its content."""
    try:
        if zipfile.is_zipfile(archive):
            with zipfile.ZipFile(archive) as file:
                for info in file.infolist():
                    if not info.is_dir():
                        yield info.filename, partial(file.open, info)
            return
        with tarfile.open(archive, "r|*") as file:  # one pass: to go back is to decompress anew
            for member in file:
                if member.isfile():
                    yield member.name, partial(file.extractfile, member)
    except FileNotFoundError:
        raise InputError(f"{archive}: there is no such archive") from None
    except _DAMAGED as error:
        raise _damaged(archive, error) from None


def _pieces(content: Callable[[], BinaryIO], archive: Path) -> Iterator[bytes]:
    try:
        with content() as source:
            while piece := source.read(1 << 20):
                yield piece
    except _DAMAGED as error:
        raise _damaged(archive, error) from None


def _damaged(archive: Path, error: Exception) -> InputError:
    return InputError(f"{archive}: damaged, or no archive ({error}); delete it and get it again")


def _write(target: Path, pieces: Iterable[bytes]) -> None:
    """A file that is whole or absent. It is not forced to the disk, unlike those of
    ``lib.utils.files``: a data set has a hundred thousand, and can be unpacked again."""
    make_folder(target.parent)
    unfinished = target.with_name(f".{target.name}.partial")
    try:
        with unfinished.open("wb") as file:
            for piece in pieces:
                file.write(piece)
        os.replace(unfinished, target)
    except OSError as error:
        raise InputError(f"{target}: cannot write: {error.strerror}") from None
    finally:
        unfinished.unlink(missing_ok=True)
