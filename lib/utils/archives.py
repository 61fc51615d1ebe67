"""Extraction of selected files from zip and tar archives."""

import fnmatch
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path, PurePosixPath
from typing import BinaryIO

from lib.utils.errors import InputError
from lib.utils.files import atomic_file
from lib.utils.logs import progress

# Raised when reading a damaged, truncated or encrypted archive. RuntimeError includes
# NotImplementedError.
_DAMAGED = (zipfile.BadZipFile, tarfile.TarError, zlib.error, EOFError, RuntimeError, OSError)


def unpack(archive: Path, targets: Mapping[str, Path]) -> int:
    """Extract the files that match the patterns in ``targets``.

    Only the names of files are matched, not their folders in the archive, so no file can be written
    outside the targets. Existing files are kept unless they are empty.

    Args:
        archive: a .zip file, or a .tar file with any compression.
        targets: maps file name patterns to files, or to folders if the path has no suffix.

    Returns:
        The number of matching files.

    Raises:
        InputError: the archive is missing or damaged, or a file cannot be written.
    """
    count = 0
    for name, open_member in progress(_members(archive), None, archive.name):
        target = _target(name, targets)
        if target is not None:
            count += 1
            if not (target.exists() and target.stat().st_size):
                # Syncing a hundred thousand files would be slow, and they can be extracted again.
                with atomic_file(target, sync=False) as file:
                    file.writelines(_chunks(open_member, archive))
    return count


def _target(name: str, targets: Mapping[str, Path]) -> Path | None:
    """Return the target file of a member, or None to skip it."""
    base = PurePosixPath(name.replace("\\", "/")).name
    if base.startswith("."):  # macOS adds hidden copies such as ._1.jpg
        return None
    for pattern, target in targets.items():
        if fnmatch.fnmatchcase(base, pattern):
            return target if target.suffix else target / base
    return None


def _members(archive: Path) -> Iterator[tuple[str, Callable[[], BinaryIO]]]:
    """Yield the name of each file and a function that opens it."""
    try:
        if zipfile.is_zipfile(archive):
            with zipfile.ZipFile(archive) as file:
                for info in file.infolist():
                    if not info.is_dir():
                        yield info.filename, partial(file.open, info)
            return
        with tarfile.open(archive, "r|*") as file:  # stream: seeking back would decompress again
            for member in file:
                if member.isfile():
                    yield member.name, partial(file.extractfile, member)
    except FileNotFoundError:
        raise InputError(f"{archive}: there is no such archive") from None
    except _DAMAGED as error:
        raise _damaged(archive, error) from None


def _chunks(open_member: Callable[[], BinaryIO], archive: Path) -> Iterator[bytes]:
    try:
        with open_member() as source:
            while chunk := source.read(1 << 20):
                yield chunk
    except _DAMAGED as error:
        raise _damaged(archive, error) from None


def _damaged(archive: Path, error: Exception) -> InputError:
    return InputError(
        f"{archive}: damaged or not an archive ({error}); delete it and download it again"
    )
