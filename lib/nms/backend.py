"""Selection of the NMS implementation: the compiled module if it was built, else NumPy."""

import logging
from types import ModuleType

from lib.nms import numpy_nms

INTERFACE = 1  # version of the compiled functions' arguments; builds of other versions are ignored

logger = logging.getLogger(__name__)
_warned = False


def find_compiled() -> ModuleType | None:
    """Return the compiled Cython module, or None if it was not built for this Python and source."""
    try:
        from lib.nms import cpu
    except ImportError as error:
        logger.debug("lib.nms.cpu cannot be imported: %s", error)
        return None
    return cpu if getattr(cpu, "INTERFACE", None) == INTERFACE else None


compiled = find_compiled()


def kernels() -> ModuleType:
    """Return the module to use; warn once if it is the slower NumPy version."""
    if compiled is not None:
        return compiled
    global _warned
    if not _warned:
        _warned = True
        logger.warning(
            "using the NumPy version of NMS: the compiled one is not built, or was built for "
            "another Python or another version of the source; run `make` in the repository"
        )
    return numpy_nms
