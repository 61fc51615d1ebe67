"""Box NMS in CUDA, in a library that ``make`` builds from ``gpu.cu`` if nvcc is installed.

Importing this module does not load the library or initialise a GPU. If the library or a GPU is
missing, ``is_available`` returns False.
"""

import ctypes
import logging
import re
from functools import cache
from pathlib import Path

import numpy as np

INTERFACE = 1  # version of the C functions' arguments; builds of other versions are ignored
# Not "gpu.so", which Python would try to import as a module.
LIBRARY = Path(__file__).resolve().parent / "libgpu_nms.so"

logger = logging.getLogger(__name__)


class CudaError(RuntimeError):
    """Raised when a CUDA call fails; includes CUDA's error message."""


def parse_device(device: str) -> int | None:
    """Return the index of the GPU, or None for the CPU.

    Raises:
        ValueError: if ``device`` is not "cpu", "cuda" or "cuda:<index>".
    """
    match = re.fullmatch(r"(cpu)|cuda(?::(\d+))?", str(device))
    if match is None:
        raise ValueError(f'device is {device!r}; it must be "cpu", "cuda" or "cuda:<index>"')
    return None if match[1] else int(match[2] or 0)


@cache
def load_library() -> ctypes.CDLL | None:
    """Return the compiled library, or None if none can be loaded."""
    if not LIBRARY.is_file():
        return None
    try:
        library = ctypes.CDLL(str(LIBRARY))
        interface = library.nms_interface()
    except (OSError, AttributeError) as error:
        logger.debug("%s cannot be used: %s", LIBRARY, error)
        return None
    if interface != INTERFACE:
        logger.debug("%s was built from another version of the source; run make", LIBRARY)
        return None
    library.nms_error_text.restype = ctypes.c_char_p
    library.nms_error_text.argtypes = [ctypes.c_int]
    library.nms_device_count.argtypes = [ctypes.POINTER(ctypes.c_int)]
    pointer, integer = ctypes.c_void_p, ctypes.c_int
    library.nms_box_keep.argtypes = [pointer, integer, ctypes.c_float, integer, pointer]
    return library


def is_available(index: int = 0) -> bool:
    """Return True if box NMS can run on the GPU with this index."""
    library = load_library()
    if library is None:
        return False
    count = ctypes.c_int(0)
    error = library.nms_device_count(ctypes.byref(count))
    if error:
        logger.debug("no GPU available for NMS: %s", error_text(library, error))
    return not error and index < count.value


def error_text(library: ctypes.CDLL, error: int) -> str:
    """Return the number and text of a CUDA error."""
    return f"CUDA error {error}, {library.nms_error_text(error).decode()}"


def box_keep(boxes: np.ndarray, threshold: float, keep: np.ndarray, index: int) -> None:
    """Mark the boxes that are kept, like ``lib.nms.numpy_nms.box_keep``, on GPU ``index``.

    ``is_available(index)`` must be True, and ``boxes`` must be contiguous and not empty.

    Raises:
        CudaError: if CUDA fails.
    """
    library = load_library()
    count = boxes.shape[1]
    words = np.empty((count + 63) // 64, np.uint64)
    error = library.nms_box_keep(boxes.ctypes.data, count, threshold, index, words.ctypes.data)
    if error:
        raise CudaError(f"NMS of {count} boxes on cuda:{index}: {error_text(library, error)}")
    # All machines with CUDA are little-endian, so the first byte of a word has its lowest bits.
    keep[:] = np.unpackbits(words.view(np.uint8), bitorder="little")[:count]
