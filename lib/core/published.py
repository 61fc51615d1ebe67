"""Published scores of tested weights, to compare with the measured ones."""

from pathlib import Path

from yacs.config import CfgNode

from lib.config import load_config
from lib.utils import zoo
from lib.utils.errors import InputError
from lib.utils.zoo import ROOT, Weights

# Settings without which a score is not comparable.
DECISIVE = (
    *("DATASET.DATASET", "DATASET.TEST_SET", "DATASET.COLOR_RGB"),
    *("MODEL.NAME", "MODEL.HEAD", "MODEL.TARGET_TYPE", "MODEL.IMAGE_SIZE"),
    *("TEST.USE_GT_BBOX", "TEST.COCO_BBOX_FILE", "TEST.FLIP_TEST", "TEST.SHIFT_HEATMAP"),
)


def published_lines(cfg: CfgNode, path: Path, names: list[str]) -> tuple[list[str], list[str]]:
    """Published scores of the weights at ``path``, as rows for the table with the columns ``names``
    and remarks to print below it. Both are empty for weights that models/zoo.yaml does not list.

    Where the test is not the published one there is no row, and a remark says what differs.
    """
    weights = zoo.identify_weights(path)
    if weights is None or not weights.experiment:
        return [], []
    differing = _differing(cfg, weights)
    if differing:
        score = next(f"{name} {value:g}" for name, value in weights.scores.items())
        return [], [
            f"=> published for these weights: {score}, with {' '.join(differing)}: {weights.source}"
        ]
    values = [f"{weights.scores[name]:.3f}" if name in weights.scores else "" for name in names]
    row = f"| published | {' | '.join(values)} |"
    return [row], [f"=> published by {weights.source}"]


def _differing(cfg: CfgNode, weights: Weights) -> list[str]:
    """KEY VALUE of the published test where ``cfg`` has another value."""
    opts = [str(word) for pair in weights.settings.items() for word in pair]
    try:
        published = load_config(ROOT / weights.experiment, opts)
    except InputError:  # an experiment that the user has changed or removed
        return [weights.experiment]
    keys = dict.fromkeys([*DECISIVE, *weights.settings])
    return [f"{key} {_at(published, key)}" for key in keys if _at(cfg, key) != _at(published, key)]


def _at(cfg: CfgNode, key: str) -> object:
    for name in key.split("."):
        cfg = cfg[name]
    # A file is the same wherever it lies.
    return Path(cfg).name if key.endswith("_FILE") else cfg
