"""Paths of the trained networks that come with the project, for COCO's 17 joints."""

from dataclasses import dataclass
from pathlib import Path

FOLDER = Path(__file__).resolve().parents[2] / "models" / "hrpose"


@dataclass(frozen=True)
class ShippedNetwork:
    """YAML file of the experiment, and weights written by tools/export.py --to weights."""

    experiment: Path
    weights: Path


TOP_DOWN = ShippedNetwork(FOLDER / "top_down.yaml", FOLDER / "top_down.pth")
BOTTOM_UP = ShippedNetwork(FOLDER / "bottom_up.yaml", FOLDER / "bottom_up.pth")
