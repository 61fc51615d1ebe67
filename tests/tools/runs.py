"""Helpers for tests of the commands: a tiny experiment, its weights and its results."""

import csv
from functools import partial
from pathlib import Path

import torch

from lib.config import load_config
from lib.models import build_model
from tests import tiny

RESULTS = "results/keypoints_val2017_results_0.json"
torch_load = partial(torch.load, weights_only=True)


def write(root: Path, name: str = "tiny", **sections) -> Path:
    return tiny.experiment(root.parent / f"{name}.yaml", root, **sections)


def random_weights(root: Path, experiment: Path | None = None) -> Path:
    """Write random weights with clear heatmap maxima, by default for ``write(root)``."""
    path = root.parent / "random.pth"
    network = build_model(load_config(experiment or write(root)))
    torch.save(tiny.randomize_weights(network).state_dict(), path)
    return path


def output(root: Path, name: str = "tiny", dataset: str = "coco") -> Path:
    return root.parent / "output" / dataset / "pose_hrnet" / name


def annotations(root: Path, split: str = "val2017") -> Path:
    return root / "annotations" / f"person_keypoints_{split}.json"


def is_equal(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> bool:
    """Return True if all tensors of two state dicts are equal."""
    return first.keys() == second.keys() and all(torch.equal(first[k], second[k]) for k in first)


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
