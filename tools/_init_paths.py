"""Make `lib` importable, and limit how long PyTorch's threads spin. Import it before torch.

The repository root is added to sys.path, so that `python tools/X.py` works from any folder.
"""

import os
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent

if str(ROOT) not in sys.path:
    sys.path.insert(0, str(ROOT))

# By default, a GNU OpenMP thread spins for milliseconds while it waits for other threads. If one of
# these has lost its core to a data-loading process, the spinning delays it, and every operation can
# take milliseconds. 10000 iterations take less than a millisecond (docs/performance.md).
if "OMP_WAIT_POLICY" not in os.environ:
    os.environ.setdefault("GOMP_SPINCOUNT", "10000")
