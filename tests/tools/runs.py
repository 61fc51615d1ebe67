"""Helpers for tests of the commands: a tiny experiment and access to its results."""

import csv
from pathlib import Path

import torch

from lib.config import load_config
from lib.models import build_model
from tests import tiny


def write(root: Path, name: str = "tiny", **sections) -> Path:
    return tiny.experiment(root.parent / f"{name}.yaml", root, **sections)


def random_weights(root: Path) -> Path:
    """Write random weights with clear heatmap maxima for the experiment of ``write``."""
    path = root.parent / "random.pth"
    torch.save(tiny.randomize_weights(build_model(load_config(write(root)))).state_dict(), path)
    return path


def output(root: Path, name: str = "tiny", dataset: str = "coco") -> Path:
    return root.parent / "output" / dataset / "pose_hrnet" / name


def history(folder: Path) -> list[dict[str, str]]:
    with (folder / "history.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def leftovers(folder: Path) -> list[Path]:
    """Return temporary files that were not removed."""
    return list(folder.rglob(".*"))


def is_one_line(ended, *parts: str) -> bool:
    """Check that a command ended with one line of error that contains ``parts``."""
    assert ended.code == 1, ended
    assert ended.err.startswith("error: ") and ended.err.count("\n") == 1, ended.err
    for part in parts:
        assert part in ended.err, ended.err
    return True
