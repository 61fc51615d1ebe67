"""Box NMS in CUDA, from the library that ``make`` builds of ``gpu.cu`` where it finds nvcc.

Importing this loads nothing and touches no GPU. Where the library or a GPU is missing,
``available`` is False and the CPU does the work.
"""

import ctypes
import logging
import os
import re
from functools import cache
from pathlib import Path

import numpy as np

INTERFACE = 1  # of the C functions; a library of another interface is as good as none
# Not "gpu.so": Python would take that for a module of its own.
LIBRARY = Path(__file__).resolve().parent / "libgpu_nms.so"

logger = logging.getLogger(__name__)


class CudaError(RuntimeError):
    """A CUDA call failed; the message holds CUDA's own."""


def parse_device(device: str) -> int | None:
    """The GPU's number, or None for the CPU; ValueError for another name than these."""
    match = re.fullmatch(r"(cpu)|auto|cuda(?::(\d+))?", str(device))
    if match is None:
        raise ValueError(f'device is {device!r}; it must be "cpu", "cuda", "cuda:1" or "auto"')
    return None if match[1] else int(match[2] or 0)


@cache
def load_library() -> ctypes.CDLL | None:
    """The built library, or None where there is none that can be loaded."""
    if not LIBRARY.is_file():
        return None
    try:
        library = ctypes.CDLL(str(LIBRARY))
        interface = library.nms_interface()
    except (OSError, AttributeError) as error:
        logger.debug("%s cannot be used: %s", LIBRARY, error)
        return None
    if interface != INTERFACE:
        logger.debug("%s was built from other source; run make", LIBRARY)
        return None
    library.nms_error_text.restype = ctypes.c_char_p
    library.nms_error_text.argtypes = [ctypes.c_int]
    library.nms_device_count.argtypes = [ctypes.POINTER(ctypes.c_int)]
    library.nms_box_keep.argtypes = [
        ctypes.c_void_p,
        ctypes.c_int,
        ctypes.c_float,
        ctypes.c_int,
        ctypes.c_void_p,
    ]
    return library


@cache
def count_devices(process: int) -> int:
    """How many GPUs this process can use. ``process``: its id, so that a fork asks anew."""
    library = load_library()
    if library is None:
        return 0
    count = ctypes.c_int(0)
    error = library.nms_device_count(ctypes.byref(count))
    if error:
        logger.debug("no GPU for NMS: %s", error_text(library, error))
        return 0
    return count.value


def available(number: int = 0) -> bool:
    """Whether box NMS can run on GPU ``number``."""
    return number < count_devices(os.getpid())


def error_text(library: ctypes.CDLL, error: int) -> str:
    """CUDA's number and words for an error."""
    return f"CUDA error {error}, {library.nms_error_text(error).decode()}"


def box_keep(boxes: np.ndarray, threshold: float, keep: np.ndarray, number: int = 0) -> None:
    """Mark the boxes that stay, on GPU ``number``; the answer is the CPU's.

    Args:
        boxes: float32 (4, n), n > 0, contiguous: x1, y1, x2, y2, highest score first.
        threshold: a box goes when its overlap with a kept, better one is above this.
        keep: uint8 (n,), overwritten with 1 where a box stays and 0 where it goes.
        number: of the GPU.

    Raises:
        CudaError: CUDA failed, or the library is not there.
    """
    library = load_library()
    if library is None:
        raise CudaError("the CUDA version of NMS is not built; run make where nvcc is")
    count = boxes.shape[1]
    words = np.empty((count + 63) // 64, np.uint64)
    error = library.nms_box_keep(boxes.ctypes.data, count, threshold, number, words.ctypes.data)
    if error:
        raise CudaError(f"NMS of {count} boxes on cuda:{number}: {error_text(library, error)}")
    # Words of a little-endian machine, as all that CUDA runs on are: byte order is bit order.
    keep[:] = np.unpackbits(words.view(np.uint8), bitorder="little")[:count]
