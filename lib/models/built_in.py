"""Paths of the built-in network: COCO's 17 joints, trained only on drawn people."""

from pathlib import Path

FOLDER = Path(__file__).resolve().parents[2] / "models" / "hrpose"
EXPERIMENT = FOLDER / "top_down.yaml"
WEIGHTS = FOLDER / "top_down.pth"  # written by tools/export.py --to weights
