"""Reading images from files and zip archives."""

import os
import re
import struct
import threading
import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np

from lib.utils.errors import InputError
from lib.utils.files import check_path, read_regular

ZIP_MARK = ".zip@"
# OpenCV 4 cannot warp images with a side above MAX_SIDE. OpenCV 5 crashes on images above 2^31
# bytes.
MAX_SIDE, MAX_PIXELS = 32766, (2**31 - 1) // 3
MAX_BYTES = 1 << 28  # of an image file
PNG = b"\x89PNG\r\n\x1a\n"

# Raised by zipfile for files that are not zip archives, damaged or truncated data, encryption and
# unknown compression methods.
_ZIP_ERRORS = (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError, NotImplementedError)

_archives: dict[tuple[int, str], zipfile.ZipFile] = {}
_opening = threading.Lock()


def read_image(path: str, apply_exif: bool = False) -> np.ndarray:
    """Read an image as (H, W, 3) uint8, BGR.

    The path ``folder/train2017.zip@/000000000001.jpg`` refers to a member of the archive
    ``folder/train2017.zip``: ``000000000001.jpg`` or ``train2017/000000000001.jpg``.

    Args:
        apply_exif: rotate the image according to its EXIF orientation. Annotations usually refer to
            the unrotated pixels.

    Raises:
        InputError: if the file is missing, empty, truncated, not an image, or too large.
    """
    data = _read_bytes(path)
    if not data:
        raise InputError(f"{path}: the image file is empty")
    if _is_truncated(data):
        raise InputError(
            f"{path}: the image file is truncated after {len(data)} bytes; copy it again"
        )
    # Check the size in the header, to avoid decoding gigabytes.
    if data.startswith(PNG) and data[12:16] == b"IHDR" and len(data) >= 24:
        check_size(struct.unpack(">II", data[16:24]), path)
    flags = cv2.IMREAD_COLOR if apply_exif else cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION
    try:
        image = cv2.imdecode(np.frombuffer(data, np.uint8), flags)
    except cv2.error as error:
        raise InputError(f"{path}: cannot decode the image: {error.err}") from None
    if image is None:
        raise InputError(f"{path}: not an image that OpenCV can decode")
    check_size(image.shape[1::-1], path)
    return image


def image_paths(folder: str, names: Sequence[str], data_format: str) -> np.ndarray:
    """Return the paths of images for ``read_image``, as an array (M,) of UTF-8 bytes.

    Args:
        data_format: ``jpg`` to use the names as they are; ``png`` to replace their suffix by
            ``.png``; ``zip`` to read the images from ``folder``.zip.

    Raises:
        InputError: if a name points outside the folder.
    """
    if data_format == "png":
        names = [str(Path(name).with_suffix(".png")) for name in names]
    for name in names:
        if name.startswith(("/", "\\")) or (".." in name and ".." in re.split(r"[/\\]", name)):
            raise InputError(
                f"{folder}: the image name {name} is absolute or points outside this folder; names "
                "must be relative to DATASET.IMAGES, a folder that contains all images"
            )
    root = f"{folder}.zip@" if data_format == "zip" else folder
    return np.array([f"{root}/{name}".encode() for name in names])


def check_size(size: tuple[int, int], name: str) -> None:
    """Raise an InputError if an image of ``size`` (width, height) is too large for OpenCV."""
    width, height = size
    if max(size) > MAX_SIDE or width * height > MAX_PIXELS:
        raise InputError(
            f"{name} is {width} x {height} pixels; the limit is {MAX_SIDE} pixels per side and "
            f"{MAX_PIXELS // 10**6} million in total; resize the image"
        )


def _read_bytes(path: str) -> bytes:
    archive, mark, member = path.partition(ZIP_MARK)
    try:
        if mark:
            return _read_member(f"{archive}.zip", member.lstrip("/"))
        return read_regular(path, MAX_BYTES)
    except FileNotFoundError:
        name, kind = (f"{archive}.zip", "archive") if mark else (path, "image")
        raise InputError(f"{name}: there is no such {kind}") from None
    except (OSError, *_ZIP_ERRORS) as error:
        raise InputError(f"{path}: cannot read the image: {error}") from None


def _read_member(archive: str, member: str) -> bytes:
    # Forked processes share the file position, so each process opens the archive itself.
    key = (os.getpid(), archive)
    with _opening:  # large archives take seconds to open
        if key not in _archives:
            check_path(archive)
            _archives[key] = zipfile.ZipFile(archive)
    for name in (member, f"{Path(archive).stem}/{member}"):
        try:
            info = _archives[key].getinfo(name)
        except KeyError:
            continue
        if info.file_size > MAX_BYTES:
            raise InputError(
                f"{archive}: {name} has {info.file_size} bytes; the limit is {MAX_BYTES}"
            )
        return _archives[key].read(info)
    raise InputError(f"{archive}: the archive has no {member}")


def _is_truncated(data: bytes) -> bool:
    """Return True if a JPEG or PNG has no end marker. OpenCV would fill the rest with gray."""
    if data[:2] == b"\xff\xd8":
        # Bytes may follow the end marker, and a thumbnail in the header has its own markers.
        return b"\xff\xd9" not in data[-32:] and data.rfind(b"\xff\xd9") < data.rfind(b"\xff\xda")
    if data.startswith(PNG):
        return b"IEND" not in data
    return False
