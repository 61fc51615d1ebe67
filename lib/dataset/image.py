"""Reading images: files, and members of zip archives."""

import os
import struct
import zipfile
import zlib
from pathlib import Path

import cv2
import numpy as np

from lib.utils.errors import InputError

ZIP_MARK = ".zip@"
# OpenCV 4 cuts no crops from images with a longer side; OpenCV 5 crashes on those above 2^31 bytes.
MAX_SIDE, MAX_PIXELS = 32766, (2**31 - 1) // 3
PNG = b"\x89PNG\r\n\x1a\n"

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
        InputError: the file is missing, empty, cut off, no image, or too large for crops.
    """
    data = _read_bytes(path)
    if not data:
        raise InputError(f"{path}: the image file is empty")
    if _is_cut_off(data):
        raise InputError(
            f"{path}: the image file is cut off after {len(data)} bytes; copy it again"
        )
    # The header comes first, to avoid decoding gigabytes.
    if data.startswith(PNG) and data[12:16] == b"IHDR" and len(data) >= 24:
        check_size(struct.unpack(">II", data[16:24]), path)
    flags = cv2.IMREAD_COLOR if is_upright else cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION
    try:
        image = cv2.imdecode(np.frombuffer(data, np.uint8), flags)
    except cv2.error as error:
        raise InputError(f"{path}: cannot decode the image: {error.err}") from None
    if image is None:
        raise InputError(f"{path}: not an image that OpenCV can decode")
    check_size(image.shape[1::-1], path)
    return image


def check_size(size: tuple[int, int], name: str) -> None:
    """Raise an InputError where an image is too large to cut crops from.

    Args:
        size: (width, height) in pixels.
    """
    width, height = size
    if max(size) > MAX_SIDE or width * height > MAX_PIXELS:
        raise InputError(
            f"{name}: is {width} x {height} pixels; at most {MAX_SIDE} pixels per side and "
            f"{MAX_PIXELS // 10**6} million in total are possible; make it smaller"
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
    if data.startswith(PNG):
        return b"IEND" not in data
    return False
