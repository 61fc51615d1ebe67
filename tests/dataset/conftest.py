"""A tiny data set in COCO format."""

from pathlib import Path
from typing import Any

import pytest

from tests import tiny


@pytest.fixture
def content(tmp_path: Path) -> dict[str, Any]:
    """The annotations of a split of three images with two people each, written to ``tmp_path``."""
    return tiny.write_coco(tmp_path)
