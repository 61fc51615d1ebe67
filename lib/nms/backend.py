"""Which implementation runs: the compiled one where it was built, else NumPy's."""

import logging
from types import ModuleType

from lib.nms import numpy_nms

INTERFACE = 1  # of the compiled functions; a build of another interface is as good as none

logger = logging.getLogger(__name__)
_warned = False


def find_compiled() -> ModuleType | None:
    """The built Cython module, or None where there is none that fits this source and Python."""
    try:
        from lib.nms import cpu
    except ImportError as error:
        logger.debug("lib.nms.cpu cannot be imported: %s", error)
        return None
    return cpu if getattr(cpu, "INTERFACE", None) == INTERFACE else None


compiled = find_compiled()


def kernels() -> ModuleType:
    """The module to compute with; the first time that it is NumPy's, say what would be faster."""
    if compiled is not None:
        return compiled
    global _warned
    if not _warned:
        _warned = True
        logger.warning(
            "NMS runs on NumPy: its compiled version is not built for this Python; "
            "`make` in the repository's folder would make it faster"
        )
    return numpy_nms
