"""What tests of the commands share: a tiny experiment, and how to look at what a run left."""

import csv
from pathlib import Path

import torch

from lib.config import load_config
from lib.models import build_model
from tests import tiny


def write(root: Path, name: str = "tiny", **sections) -> Path:
    return tiny.experiment(root.parent / f"{name}.yaml", root, **sections)


def lively_weights(root: Path) -> Path:
    """Weights for the experiment that ``write`` writes, with clear maxima."""
    path = root.parent / "lively.pth"
    torch.save(tiny.randomize_weights(build_model(load_config(write(root)))).state_dict(), path)
    return path


def output(root: Path, name: str = "tiny", dataset: str = "coco") -> Path:
    return root.parent / "output" / dataset / "pose_hrnet" / name


def history(folder: Path) -> list[dict[str, str]]:
    with (folder / "history.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def leftovers(folder: Path) -> list[Path]:
    """Temporary files."""
    return list(folder.rglob(".*"))


def is_one_line(ended, *parts: str) -> bool:
    """Whether a command ended as bad input must."""
    assert ended.code == 1, ended
    assert ended.err.startswith("error: ") and ended.err.count("\n") == 1, ended.err
    for part in parts:
        assert part in ended.err, ended.err
    return True
