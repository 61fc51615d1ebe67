"""Reading images: files, and members of zip archives."""

import os
import zipfile
import zlib
from pathlib import Path

import cv2
import numpy as np

from lib.utils.errors import InputError

ZIP_MARK = ".zip@"
MAX_SIDE = 32766  # pixels: OpenCV 4 cuts no crops from larger images

# What zipfile raises: no archive, damaged or cut-off data, encryption, an unknown compression.
_BROKEN_ARCHIVE = (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError, NotImplementedError)

_archives: dict[tuple[int, str], zipfile.ZipFile] = {}


def read_image(path: str, is_upright: bool = False) -> np.ndarray:
    """The image at ``path``, (H, W, 3) uint8 in OpenCV's order BGR.

    ``folder/train2017.zip@/000000000001.jpg`` is a member of an archive, with or without the
    archive's name as a folder inside it.

    Args:
        is_upright: turn it as its EXIF header says. Without, it is in the file's own pixels, which
            annotations refer to.

    Raises:
        InputError: the file is missing, empty, cut off, or no image.
    """
    data = _read_bytes(path)
    if not data:
        raise InputError(f"{path}: the image file is empty")
    if _is_cut_off(data):
        raise InputError(
            f"{path}: the image file is cut off after {len(data)} bytes; copy it again"
        )
    flags = cv2.IMREAD_COLOR if is_upright else cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION
    try:
        image = cv2.imdecode(np.frombuffer(data, np.uint8), flags)
    except cv2.error as error:
        raise InputError(f"{path}: cannot decode the image: {error.err}") from None
    if image is None:
        raise InputError(f"{path}: not an image that OpenCV can decode")
    return image


def check_size(image: np.ndarray, name: str) -> None:
    """An InputError where an image (H, W, 3) is larger than crops can be cut from."""
    if max(image.shape) > MAX_SIDE:
        raise InputError(
            f"{name}: is {image.shape[1]} x {image.shape[0]} pixels; a side may have at most "
            f"{MAX_SIDE}: make it smaller"
        )


def _read_bytes(path: str) -> bytes:
    archive, mark, member = path.partition(ZIP_MARK)
    try:
        if mark:
            return _read_member(f"{archive}.zip", member.lstrip("/"))
        return Path(path).read_bytes()
    except FileNotFoundError:
        what = (
            f"{archive}.zip: there is no such archive"
            if mark
            else f"{path}: there is no such image"
        )
        raise InputError(what) from None
    except (OSError, *_BROKEN_ARCHIVE) as error:
        raise InputError(f"{path}: cannot read the image: {error}") from None


def _read_member(archive: str, member: str) -> bytes:
    # A file position is shared with forked processes, so each process opens the archive for itself.
    key = (os.getpid(), archive)
    if key not in _archives:
        _archives[key] = zipfile.ZipFile(archive)
    for name in (member, f"{Path(archive).stem}/{member}"):
        try:
            return _archives[key].read(name)
        except KeyError:
            continue
    raise InputError(f"{archive}: the archive has no {member}")


def _is_cut_off(data: bytes) -> bool:
    """Whether a JPEG or PNG ends before its end mark: OpenCV would fill the rest with grey and say
    nothing."""
    if data[:2] == b"\xff\xd8":
        # Bytes may follow the end mark, and a thumbnail in the header has marks of its own.
        return b"\xff\xd9" not in data[-32:] and data.rfind(b"\xff\xd9") < data.rfind(b"\xff\xda")
    if data[:8] == b"\x89PNG\r\n\x1a\n":
        return b"IEND" not in data
    return False
