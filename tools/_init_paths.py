"""Add the repository root to sys.path, so that `python tools/X.py` finds `lib` from any folder."""

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent

if str(ROOT) not in sys.path:
    sys.path.insert(0, str(ROOT))
