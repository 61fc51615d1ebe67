"""Reference results of single operations and evaluations (``tests/golden/{ops,eval}``)."""

import gzip
import json
from pathlib import Path
from typing import Any

import numpy as np

GOLDEN = Path(__file__).parent / "golden"


def golden(name: str) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Return ``meta`` and the arrays of ``tests/golden/<name>.npz``."""
    with np.load(GOLDEN / f"{name}.npz", allow_pickle=False) as file:
        arrays = {key: file[key] for key in file.files}
    return json.loads(str(arrays.pop("meta"))), arrays


def golden_annotations(name: str) -> bytes:
    """Return the JSON in ``tests/golden/eval/<name>_annotations.json.gz``."""
    return gzip.decompress((GOLDEN / "eval" / f"{name}_annotations.json.gz").read_bytes())
